"""Sub-layers, and the encoder and decoder layers made of them (paper, figure 1)."""

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from transformer.axes import shard
from transformer.config import ModelConfig
from transformer.model.attention import KeysValues, MultiHeadAttention
from transformer.model.chunks import in_chunks
from transformer.model.dropout import Dropout
from transformer.model.local import Parts
from transformer.model.norms import Norm
from transformer.model.projection import Projection, project


@jax.custom_vjp
def relu(x_BTF: jax.Array) -> jax.Array:
    """Returns max(x, 0), of which a bit a value is kept for the backward pass."""
    return jnp.maximum(x_BTF, 0)


def _relu_forward(x_BTF: jax.Array) -> tuple[jax.Array, jax.Array]:
    return relu(x_BTF), jnp.packbits(x_BTF > 0, axis=-2)


def _relu_backward(bits: jax.Array, dy_BTF: jax.Array) -> tuple[jax.Array]:
    positive_BTF = jnp.unpackbits(bits, axis=-2, count=dy_BTF.shape[-2])
    return (jnp.where(positive_BTF, dy_BTF, 0),)


relu.defvjp(_relu_forward, _relu_backward)

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": relu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "swish": jax.nn.swish,
}


class FeedForward(nn.Module):
    """FFN(x) = activation(x W_1 + b_1) W_2 + b_2 (equation 2), or (activation(x W) * (x V)) W_2 if gated."""

    config: ModelConfig
    rows: str = "BT"

    def __call__(self, x_BTD: jax.Array, deterministic: bool = True) -> jax.Array:
        """Returns y_BTD; the hidden vectors [B, T, F] exist for `chunk_length` positions at a time."""

        def run(self: "FeedForward", x_BTD: jax.Array) -> jax.Array:
            return self.whole(x_BTD, deterministic)

        return in_chunks(self, run, {self.rows + "D": x_BTD}, self.config.chunk_length)

    @nn.compact
    def whole(self, x_BTD: jax.Array, deterministic: bool) -> jax.Array:
        """Returns y_BTD of all positions at once."""
        c = self.config
        names = ("wi", "wi_linear") if c.gated_feed_forward else ("wi",)
        inner = [Projection("D->F", c.feed_forward_bias, c, self.rows, name=name) for name in names]
        h_BTF, *linear = project(x_BTD, *inner)
        h_BTF = ACTIVATIONS[c.activation](h_BTF)
        for factor_BTF in linear:
            h_BTF = h_BTF * factor_BTF
        h_BTF = Dropout(c.activation_dropout_rate)(h_BTF, deterministic)
        return Projection("F->D", c.feed_forward_bias, c, self.rows, name="wo")(h_BTF)


class Layer(nn.Module):
    """What all layers share: self-attention, the feed-forward network, the residual connections around them.

    What a layer reads is sown as intermediate "input", as attention sows its weights.
    """

    config: ModelConfig
    rows: ClassVar[str] = "BT"
    causal: ClassVar[bool] = True  # whether later positions are hidden

    def setup(self) -> None:
        self.self_attention = MultiHeadAttention(self.config, causal=self.causal)
        self.self_attention_norm = Norm(self.config)
        self.feed_forward = FeedForward(self.config, self.rows)
        self.feed_forward_norm = Norm(self.config)
        self.dropout = Dropout(self.config.dropout_rate)

    def residual(
        self,
        x_BTD: jax.Array,
        norm: Norm,
        sublayer: Callable[[jax.Array], jax.Array],
        deterministic: bool,
    ) -> jax.Array:
        """Returns LayerNorm(x + Dropout(Sublayer(x))) (3.1, 5.4), or x + Dropout(Sublayer(LayerNorm(x)))."""
        if self.config.norm == "pre":
            x_BTD = x_BTD + self.dropout(sublayer(norm(x_BTD)), deterministic)
        else:
            x_BTD = norm(x_BTD + self.dropout(sublayer(x_BTD), deterministic))
        return shard(x_BTD, self.rows + "D")

    def feed(self, x_BTD: jax.Array, deterministic: bool) -> jax.Array:
        """Returns what the last sub-layer makes of x_BTD."""
        return self.residual(
            x_BTD, self.feed_forward_norm, lambda y: self.feed_forward(y, deterministic), deterministic
        )


class EncoderLayer(Layer):
    """Self-attention over the whole sequence, then the feed-forward network."""

    causal: ClassVar[bool] = False
    rows: ClassVar[str] = "BS"

    def __call__(
        self,
        x_BSD: jax.Array,
        pos_BS: jax.Array,
        mask: jax.Array | Parts,
        bias: jax.Array | Parts | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        def attend(y: jax.Array) -> jax.Array:
            return self.self_attention(y, y, mask, bias, deterministic, pos_BS)

        self.sow("intermediates", "input", x_BSD)
        return self._sublayers(x_BSD, attend, deterministic)

    def _sublayers(
        self, x_BSD: jax.Array, attend: Callable[[jax.Array], jax.Array], deterministic: bool
    ) -> jax.Array:
        x_BSD = self.residual(x_BSD, self.self_attention_norm, attend, deterministic)
        return self.feed(x_BSD, deterministic)


class SequenceLayer(EncoderLayer):
    """The layer of a language model: an encoder's, masked, whose positions are read by later ones."""

    causal: ClassVar[bool] = True

    def remember(self, x_BSD: jax.Array, pos_BS: jax.Array) -> KeysValues:
        """Returns the keys and values, of the layer's input, that later positions read in `step`."""
        y_BSD = self.self_attention_norm(x_BSD) if self.config.norm == "pre" else x_BSD
        return self.self_attention.remember(y_BSD, pos_BS)

    def step(
        self,
        x_BWD: jax.Array,
        t: jax.Array,
        pos_BW: jax.Array,
        cache: KeysValues,
        seen_B1WS: jax.Array,
        bias_NHWS: jax.Array | None,
        source: KeysValues,
    ) -> tuple[jax.Array, KeysValues]:
        """Runs place `t` alone, as `DecoderLayer.step`; S: the source's positions, then the cache's T * W."""
        written = cache

        def attend(y_BWD: jax.Array) -> jax.Array:
            nonlocal written
            read = seen_B1WS, bias_NHWS, (source,)
            y_BWD, written = self.self_attention.step(y_BWD, t, pos_BW, cache, *read)
            return y_BWD

        return self._sublayers(x_BWD, attend, True), written


class DecoderLayer(Layer):
    """Masked self-attention, encoder-decoder attention, then the feed-forward network."""

    def setup(self) -> None:
        super().setup()
        self.cross_attention = MultiHeadAttention(self.config)
        self.cross_attention_norm = Norm(self.config)

    def __call__(
        self,
        x_BTD: jax.Array,
        pos_BT: jax.Array,
        encoded_BSD: jax.Array,
        mask: jax.Array | Parts,
        cross_mask_B1TS: jax.Array,
        bias: jax.Array | Parts | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        def attend(y: jax.Array) -> jax.Array:
            return self.self_attention(y, y, mask, bias, deterministic, pos_BT)

        def read_source(y: jax.Array) -> jax.Array:
            return self.cross_attention(y, encoded_BSD, cross_mask_B1TS, deterministic=deterministic)

        self.sow("intermediates", "input", x_BTD)
        return self._sublayers(x_BTD, attend, read_source, deterministic)

    def source_keys(self, encoded_BSD: jax.Array) -> KeysValues:
        """Returns the keys and values that encoder-decoder attention reads in `step`, once per sentence."""
        return self.cross_attention.remember(encoded_BSD)

    def step(
        self,
        x_BWD: jax.Array,
        t: jax.Array,
        pos_BW: jax.Array,
        cache: KeysValues,
        seen_B1WS: jax.Array,
        bias_1H1S: jax.Array | None,
        source: KeysValues,
        cross_mask_B1TS: jax.Array,
    ) -> tuple[jax.Array, KeysValues]:
        """Runs position `t` alone, reading earlier positions from `cache`.

        Args:
          x_BWD: one position of each of W hypotheses a sentence.
          t: scalar int32, the position's place in the cache.
          pos_BW: the position.
          cache: own keys and values so far, S = T * W of them.
          seen_B1WS: which of all T * W of them each hypothesis may see.
          bias_1H1S: what each of the T * W adds to the scores.
          source: what `source_keys` returned; shared by the hypotheses.
          cross_mask_B1TS: which source positions are real (T broadcasts).

        Returns:
          (x_BWD, the cache with position `t` written).
        """
        written = cache

        def attend(y_BWD: jax.Array) -> jax.Array:
            nonlocal written
            y_BWD, written = self.self_attention.step(y_BWD, t, pos_BW, cache, seen_B1WS, bias_1H1S)
            return y_BWD

        def read_source(y_BWD: jax.Array) -> jax.Array:
            return self.cross_attention.recall(y_BWD, source, cross_mask_B1TS)

        return self._sublayers(x_BWD, attend, read_source, True), written

    def _sublayers(
        self,
        x_BTD: jax.Array,
        attend: Callable[[jax.Array], jax.Array],
        read_source: Callable[[jax.Array], jax.Array],
        deterministic: bool,
    ) -> jax.Array:
        x_BTD = self.residual(x_BTD, self.self_attention_norm, attend, deterministic)
        x_BTD = self.residual(x_BTD, self.cross_attention_norm, read_source, deterministic)
        return self.feed(x_BTD, deterministic)
