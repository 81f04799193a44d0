"""The Transformer (paper, section 3): encoder and decoder, or one of them alone."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from transformer.axes import copies, shard
from transformer.config import ModelConfig
from transformer.model import local, masks
from transformer.model.attention import KeysValues
from transformer.model.layers import DecoderLayer, EncoderLayer, SequenceLayer
from transformer.model.projection import Projection
from transformer.model.sharded import look_up
from transformer.model.stack import Stack
from transformer.special_ids import BOS_ID


class Tables(NamedTuple):
    """Names of the tables that look source and target ids up, and of the output projection."""

    source: str
    target: str
    output: str


TABLES = {
    "all": Tables("shared", "shared", "shared"),
    "target": Tables("source", "target", "target"),
    "inputs": Tables("shared", "shared", "output"),
    "none": Tables("source", "target", "output"),
}


class Embedding(nn.Module):
    """A table V x D; looks ids up, and serves as output projection."""

    vocab_size: int
    config: ModelConfig

    def setup(self) -> None:
        d_model = self.config.d_model
        self.embedding = self.param(
            "embedding",
            nn.initializers.normal(d_model**-0.5),
            (self.vocab_size, d_model),
            jnp.dtype(self.config.param_dtype),
        )
        self.copies_RVD = copies(self.embedding, "VD")

    def __call__(self, ids_BT: jax.Array, rows: str = "BT") -> jax.Array:
        x_BTD = shard(look_up(self.copies_RVD, ids_BT, "VD", self.config.dtype, rows), rows + "D")
        return x_BTD * self.config.d_model**0.5 if self.config.scale_embeddings else x_BTD

    def logits(self, y_BTD: jax.Array) -> jax.Array:
        return jnp.einsum("BTD,VD->BTV", y_BTD, self.embedding.astype(self.config.dtype))


class Transformer(nn.Module):
    """Encoder, decoder and embeddings; of kind "encoder_only" without a decoder.

    Of kind "decoder_only" there is one stack over sources and targets. A target follows its source as one
    sequence, the prefix: what one layer's self-attention of a target reads, in one softmax, is the source's
    and its own keys of that layer.

    Inputs are int32 arrays: ids (`src_BS`, `tgt_in_BT`), segment numbers (0 is padding; several
    sentences may share a row) and positions within each sentence. `tgt_in_BT` is the target
    shifted right, `masks.shift_right`. An encoder alone does not read it: it has an answer at each
    source position, and the target says what the answer should be there.

    With `source_features` sources are float32 [B, S, C], a frame of C numbers a position, and a linear map
    with a bias stands in place of the source's table. It is not scaled by sqrt(d_model): that makes up for
    the small numbers of tables, which are output projections too; the map's are drawn so that results are
    about as large as frames are.

    Attributes:
      config: sizes and choices.
      source_vocab: number of source pieces.
      target_vocab: number of target pieces, the same when both sides share a table; or of labels.
      start_id: the tokenizer's id that begins the decoder's input.
    """

    config: ModelConfig
    source_vocab: int
    target_vocab: int
    start_id: int = BOS_ID

    def setup(self) -> None:
        c, names = self.config, self.tables
        if "decoder" in c.stacks and "shared" in names and self.source_vocab != self.target_vocab:
            raise ValueError(f"tied_embeddings='{c.tied_embeddings}' needs equal vocabularies")
        sizes = {names.output: self.target_vocab}
        if "decoder" in c.stacks:
            sizes[names.target] = self.target_vocab
        if not c.source_features:
            sizes[names.source] = self.source_vocab
        for name, size in sizes.items():
            setattr(self, name, Embedding(size, c))
        if c.source_features:
            self.source = Projection("C->D", True, c, "BS")
        if c.logits_bias:
            shape, dtype = (self.target_vocab,), jnp.dtype(c.param_dtype)
            self.logits_bias = self.param("logits_bias", nn.initializers.zeros, shape, dtype)
        if "encoder" in c.stacks:
            self.encoder = Stack(c, EncoderLayer, c.num_encoder_layers)
        self.alone = c.kind == "decoder_only"
        if "decoder" in c.stacks:
            self.decoder = Stack(c, SequenceLayer if self.alone else DecoderLayer, c.num_decoder_layers)

    @property
    def tables(self) -> Tables:
        """Names of the tables that this model has; labels are no pieces, and have one of their own.

        Of sources that are no tokens it is the name of the map in place of a table.
        """
        tied = self.config.tied_embeddings
        labels = self.config.kind == "encoder_only" and self.target_vocab != self.source_vocab
        if labels:
            tied = "inputs" if tied in ("all", "inputs") else "none"
        return TABLES[tied]._replace(source="source") if self.config.source_features else TABLES[tied]

    def smallest(self) -> tuple[jax.Array, ...]:
        """Returns what `__call__` reads, one position a side: no parameter's shape depends on more."""
        one, features = jnp.ones((1, 1), jnp.int32), self.config.source_features
        source = jnp.ones((1, 1, features)) if features else one
        return source, one, 0 * one, one, one, 0 * one

    def __call__(
        self,
        src_BS: jax.Array,
        src_seg_BS: jax.Array,
        src_pos_BS: jax.Array,
        tgt_in_BT: jax.Array,
        tgt_seg_BT: jax.Array,
        tgt_pos_BT: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        """Returns y_BTD, what the output projection reads."""
        source, target = (src_BS, src_seg_BS, src_pos_BS), (tgt_in_BT, tgt_seg_BT, tgt_pos_BT)
        if self.alone:
            y_BTD = self._one_sequence(source, target, deterministic)
        else:
            y_BTD = self.encode(*source, deterministic)
            if "decoder" in self.config.stacks:
                y_BTD = self.decode(*target, y_BTD, src_seg_BS, deterministic)
        if self.is_initializing():
            self.logits(y_BTD)  # an untied output projection is made when it is first used
        return y_BTD

    def with_output(self, *batch: Any, **mode: Any) -> tuple[jax.Array, jax.Array, jax.Array | None]:
        """Returns (y_BTD as `__call__` does, table_RVD and bias_V of the output projection) for the loss.

        The table is the very copies that look ids up where the two are tied, see `axes.copies`.
        """
        bias_V = self.logits_bias if self.config.logits_bias else None
        return self(*batch, **mode), self._table("output").copies_RVD, bias_V

    def encode(
        self, src_BS: jax.Array, seg_BS: jax.Array, pos_BS: jax.Array, deterministic: bool = True
    ) -> jax.Array:
        """Returns encoded_BSD, which of an encoder alone the output projection reads."""
        if self.config.source_features:
            x_BSD = shard(self.source(src_BS), "BSD")
        else:
            x_BSD = self._table("source")(src_BS, "BS")
        x_BSD = self.encoder.signal(x_BSD, pos_BS, deterministic)
        encoded_BSD = self.encoder.run(x_BSD, pos_BS, deterministic, self.encoder.mask(seg_BS))
        return encoded_BSD if "decoder" in self.config.stacks else self._scaled(encoded_BSD)

    def decode(
        self,
        tgt_in_BT: jax.Array,
        seg_BT: jax.Array,
        pos_BT: jax.Array,
        encoded_BSD: jax.Array,
        src_seg_BS: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        """Returns y_BTD of all target positions at once (teacher forcing)."""
        x_BTD = self.decoder.signal(self._table("target")(tgt_in_BT), pos_BT, deterministic)
        context = encoded_BSD, self.decoder.mask(seg_BT), masks.segment_mask(seg_BT, src_seg_BS)
        return self._scaled(self.decoder.run(x_BTD, pos_BT, deterministic, *context))

    def _one_sequence(
        self, source: tuple[jax.Array, ...], target: tuple[jax.Array, ...], deterministic: bool
    ) -> jax.Array:
        """Returns y_BTD of targets that follow their sources; both are ids, segments and positions."""
        following = *target[:2], masks.positions_after(source[1], *target[1:])
        rows = zip(source, following, strict=True)
        ids, seg, pos = (jnp.concatenate(sides, axis=1) for sides in rows)
        S = source[0].shape[1]
        x_BTD = self.decoder.signal(self._table("target")(ids), pos, deterministic)
        x_BTD = self.decoder.run(x_BTD, pos, deterministic, self.decoder.mask(seg, S))
        return self._scaled(x_BTD[:, S:])

    def read(self, src_BS: jax.Array, seg_BS: jax.Array, pos_BS: jax.Array) -> tuple[KeysValues, ...]:
        """Returns what each decoder layer reads of a source in `decode_step`. Needs unscanned layers."""
        if not self.alone:
            return self.source_keys(self.encode(src_BS, seg_BS, pos_BS))
        remembered: list[KeysValues] = []
        x_BSD = self.decoder.signal(self._table("target")(src_BS), pos_BS)
        mask = self.decoder.mask(seg_BS, src_BS.shape[1])
        self.decoder.run(x_BSD, pos_BS, True, mask, remembered=remembered)
        return tuple(remembered)

    def source_keys(self, encoded_BSD: jax.Array) -> tuple[KeysValues, ...]:
        """Returns each decoder layer's encoder-decoder keys and values, computed once per sentence."""
        found = tuple(layer.source_keys(encoded_BSD) for layer in self.decoder.layer)
        return found if self.config.recurrence == "none" else found * self.config.num_decoder_layers

    def decode_step(
        self,
        token_BW: jax.Array,
        t: jax.Array,
        cache: tuple[KeysValues, ...],
        ancestor_BWT: jax.Array,
        source: tuple[KeysValues, ...],
        src_seg_BS: jax.Array,
    ) -> tuple[jax.Array, tuple[KeysValues, ...]]:
        """Runs one target position of W hypotheses a sentence. Needs unscanned layers.

        Args:
          token_BW: int32 ids at position `t` of the decoder input.
          t: scalar int32.
          cache: from `empty_cache` or the previous step.
          ancestor_BWT: int32, at which place of the beam each hypothesis was at each position up to `t`;
            T may be another one than the cache's.
          source: from `read`.
          src_seg_BS: segment numbers of the source, above 0 where real.

        Returns:
          (logits_BWV of the next token, the cache with position `t` written).
        """
        pos_BW = jnp.full_like(token_BW, t)
        if self.alone:
            pos_BW += (src_seg_BS > 0).sum(axis=1, keepdims=True, dtype=pos_BW.dtype)
        x_BWD = self.decoder.signal(self._table("target")(token_BW), pos_BW)
        mask_B11S = (src_seg_BS > 0)[:, None, None, :]
        B, W = token_BW.shape
        T = cache[0].value.shape[2] // W
        place_T, seen_T, ancestor_BWT = self.decoder.remembered(t, T, ancestor_BWT)
        seen_BWTW = (ancestor_BWT[..., None] == jnp.arange(W)) & seen_T[:, None]
        seen_B1WS = seen_BWTW.reshape(B, 1, W, T * W)
        distance_N1S = (place_T.repeat(W) - t)[None, None]
        read: tuple[jax.Array, ...] = (mask_B11S,)
        if self.alone:  # one row of keys: the source's, and then its own
            read, S = (), src_seg_BS.shape[1]
            source_B1WS = jnp.broadcast_to(mask_B11S, (B, 1, W, S))
            seen_B1WS = jnp.concatenate([source_B1WS, seen_B1WS], axis=-1)
            own_B1S = jnp.broadcast_to(distance_N1S, (B, 1, T * W))
            distance_N1S = jnp.concatenate([jnp.arange(S) - pos_BW[:, :1, None], own_B1S], axis=-1)
        table_LXH = self.decoder.tables()
        written: list[KeysValues] = []

        def step(depth: int, layer: Any, x_BWD: jax.Array) -> jax.Array:
            table_XH = None if table_LXH is None else table_LXH[depth]
            bias_NH1S = self.decoder.score_bias(table_XH, distance_N1S)
            seen = cache[depth], seen_B1WS, bias_NH1S
            x_BWD, own = layer.step(x_BWD, t, pos_BW, *seen, source[depth], *read)
            written.append(own)
            return x_BWD

        y_BWD = self.decoder.deepen(x_BWD, pos_BW, step)
        return self.logits(self._scaled(y_BWD)), tuple(written)

    def logits(self, y_BTD: jax.Array) -> jax.Array:
        """Returns logits_BTV."""
        logits_BTV = self._table("output").logits(y_BTD)
        return (
            logits_BTV + self.logits_bias.astype(logits_BTV.dtype) if self.config.logits_bias else logits_BTV
        )

    def _scaled(self, y_BTD: jax.Array) -> jax.Array:
        return y_BTD * self.config.d_model**-0.5 if self.config.scale_logits else y_BTD

    def _table(self, use: str) -> Embedding:
        return getattr(self, getattr(self.tables, use))


def empty_cache(config: ModelConfig, batch: int, width: int, length: int) -> tuple[KeysValues, ...]:
    """Returns zeroed decoder keys and values of T positions for each layer, S = T * W.

    T is `length`, or as many as a position ever sees, if that is less.
    """
    G, K, S = config.kv_heads, config.key_size, _places(config, length) * width
    key, value = jnp.zeros((batch, G, K, S), config.dtype), jnp.zeros((batch, G, S, K), config.dtype)
    return (KeysValues(key, value),) * config.num_decoder_layers


def _places(config: ModelConfig, length: int) -> int:
    reach = local.reach(config, causal=True)
    return length if reach is None else min(length, reach.ring)


def longer_cache(
    cache: tuple[KeysValues, ...], config: ModelConfig, width: int, length: int
) -> tuple[KeysValues, ...]:
    """Returns the cache with room for `length` positions, or as many as are ever seen."""

    def longer(x: jax.Array, axis: int) -> jax.Array:
        wanted = [(0, 0)] * x.ndim
        wanted[axis] = 0, _places(config, length) * width - x.shape[axis]
        return jnp.pad(x, wanted)

    return tuple(KeysValues(longer(layer.key, 3), longer(layer.value, 2)) for layer in cache)


def unrolled(model: Transformer) -> Transformer:
    """Returns the same model without what only training is faster or smaller with.

    Its layers are apart, as decoding needs them (see `unstack_layers`), and its attention is the one
    that takes single positions and lets its weights be captured.
    """
    config = dataclasses.replace(model.config, scan_layers=False, remat=False, attention_implementation="xla")
    return dataclasses.replace(model, config=config)


def unstack_layers(params: Any) -> Any:
    """Returns parameters of scanned layers ("layers", leading axis L) as "layer_0", "layer_1", ...

    Parameters of unscanned layers are returned as they are. Decoding always runs unscanned.
    """
    result = dict(params)
    for stack in ("encoder", "decoder"):
        if "layers" in params.get(stack, {}):
            rest = {k: v for k, v in params[stack].items() if k != "layers"}
            stacked = params[stack]["layers"]
            for i in range(jax.tree.leaves(stacked)[0].shape[0]):
                rest[f"layer_{i}"] = jax.tree.map(lambda x, i=i: x[i], stacked)
            result[stack] = rest
    return result
