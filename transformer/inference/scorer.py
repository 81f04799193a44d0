"""Log-probabilities of given translations, and of text."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from transformer.config import ModelConfig, SearchRules
from transformer.data.batch import Batch
from transformer.data.frames import checked
from transformer.data.tokenizer import Tokenizer
from transformer.decoding.scores import length_penalty as penalty
from transformer.errors import ConfigError, DataError
from transformer.inference.batches import batches, bucket, num_rows, on_mesh, padded, segments
from transformer.inference.model_directory import LoadedModel, check_kind, load_model
from transformer.model.masks import shift_right
from transformer.model.transformer import Transformer, unrolled, unstack_layers
from transformer.special_ids import SpecialIds
from transformer.training.loss import token_log_probs

_CHUNK = 512  # tokens whose logits exist at one time


class Likelihood(NamedTuple):
    """How likely lines are.

    Attributes:
      log_prob: of all lines, nats.
      tokens: that have a probability, end marks included.
      bytes: of the lines in UTF-8, line ends included: a measure that depends on no tokenizer, as long as
        no text is unknown to it.
      unknown: of the tokens: each costs one probability, whatever text it stands for.
    """

    log_prob: float
    tokens: int
    bytes: int
    unknown: int = 0

    def plus(self, other: "Likelihood") -> "Likelihood":
        """Returns that of the lines of both."""
        sums = self.tokens + other.tokens, self.bytes + other.bytes, self.unknown + other.unknown
        return Likelihood(self.log_prob + other.log_prob, *sums)

    @property
    def nll(self) -> float:
        """Nats a token."""
        return -self.log_prob / max(self.tokens, 1)

    @property
    def perplexity(self) -> float:
        """Of a token."""
        return math.exp(min(self.nll, 700))

    @property
    def bits_per_byte(self) -> float:
        """Bits that a byte takes."""
        return -self.log_prob / math.log(2) / max(self.bytes, 1)

    def __str__(self) -> str:
        warning = f" (too low: tokens of unknown text: {self.unknown:,})" if self.unknown else ""
        return (
            f"perplexity {self.perplexity:.2f}  [{self.nll:.4f} nats a token, {self.tokens:,} tokens]\n"
            f"{self.bits_per_byte:.4f} bits a byte, {self.bytes:,} bytes{warning}"
        )


class Scorer:
    """Scores pairs of lines, or lines of text alone, with one model.

    Example:
      >>> scorer = Scorer.load("runs/quickstart")
      >>> scorer.score(["January 5, 2024"], ["5. Januar 2024"])
      [-0.4]
    """

    def __init__(
        self,
        model: Transformer,
        params: Any,
        tokenizer: Tokenizer,
        rules: SearchRules = "paper",
        mesh: Mesh | None = None,
    ):
        """Takes a model with its parameters and tokenizer, the rules of its search; `mesh` divides rows."""
        check_kind(model.config, "encoder_decoder", "decoder_only")
        self._model = unrolled(model)
        self._params = unstack_layers(params)
        self._tokenizer = tokenizer
        self._rules = rules
        self._mesh = mesh

    @classmethod
    def load(cls, path: str | Path, checkpoint: str = "best") -> "Scorer":
        """Loads a run or an averaged model; arguments and errors as `Translator.load`."""
        return cls.of(load_model(path, checkpoint))

    @classmethod
    def of(cls, loaded: LoadedModel) -> "Scorer":
        """Returns a scorer of a model that is loaded already."""
        return cls(loaded.model, loaded.params, loaded.tokenizer, loaded.config.decode.rules)

    def likelihood(self, log_probs: Sequence[float], targets: Sequence[str]) -> Likelihood:
        """Returns what the lines are together, given what `score` returned for them without a penalty."""
        special, encoded = self._tokenizer.special, self._tokenizer.encode_target(targets)
        tokens = sum(len(ids) - len(special.given) for ids in encoded)
        unknown = sum(ids.count(special.unk) for ids in encoded)
        return Likelihood(sum(log_probs), tokens, sum(len(line.encode()) + 1 for line in targets), unknown)

    def score(
        self,
        sources: Sequence[Any] | None,
        targets: Sequence[str],
        batch_size: int = 64,
        length_penalty: float = 0.0,
        first_line: int = 0,
    ) -> list[float]:
        """Returns the log-probability of each target given its source, in nats, end mark included.

        Nothing is split or left out, and an empty target has the probability of the bare end mark.

        Args:
          sources: source text, or frames as `Translator` takes them; None for a language model of text alone.
          targets: one translation of each line, or the text.
          batch_size: pairs scored together.
          length_penalty: alpha; log-probabilities are divided as the model's search divides them, see
            `decoding.scores.length_penalty`.
          first_line: number of `targets[0]` in its file, for messages.

        Raises:
          ConfigError: if the batch size is below 1, or there are sources that the model does not read, or
            none that it reads.
          DataError: if the numbers of lines differ, or a line has more tokens than the model has
            learned positions.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size: must be at least 1, got {batch_size}")
        if (sources is not None) != self._model.config.reads_source:
            raise ConfigError(
                "source: is needed: the text that the target translates"
                if sources is None
                else "source: the model is one of text alone and reads none; give the target only"
            )
        if sources is not None and len(sources) != len(targets):
            raise DataError(
                f"got {len(sources):,} sources and {len(targets):,} targets; give one target for each source"
            )
        read = self._sources(sources, len(targets), first_line)
        pairs = list(zip(read, self._tokenizer.encode_target(targets), strict=True))
        check_positions(self._model.config, pairs, first_line)
        scores = [0.0] * len(pairs)
        # Both sides are padded to one length: a little more work, far fewer shapes.
        lengths = [max(map(len, pair)) for pair in pairs]
        for chosen in batches(lengths, batch_size):
            rows, width = num_rows(len(chosen), self._mesh), bucket(max(lengths[i] for i in chosen))
            sides = zip(*(pairs[i] for i in chosen), strict=True)
            special = self._tokenizer.special
            arrays: list[np.ndarray] = []
            for side, w in zip(sides, (width * self._model.config.reads_source, width), strict=True):
                arrays += [padded(side, rows, w, special.pad), segments(side, rows, w)]
            inputs = on_mesh(self._mesh, *arrays)
            given = _score_batch(self._params, *inputs, length_penalty, self._rules, self._model, special)
            found = np.asarray(given).tolist()
            for row, i in enumerate(chosen):
                scores[i] = found[row]
        return scores

    def _sources(self, sources: Sequence[Any] | None, count: int, first_line: int) -> Sequence[Any]:
        """Returns the ids or frames of each source; none of them has any if there are none."""
        if sources is None:
            return [[]] * count
        if features := self._model.config.source_features:
            numbered = enumerate(sources, first_line + 1)
            return [checked(frames, features, f"source {n}") for n, frames in numbered]
        return self._tokenizer.encode_source(sources)


def check_positions(
    config: ModelConfig, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], first_line: int = 0
) -> None:
    """Checks that learned positions reach the ends of all (source, target) ids, those of lines of a file.

    Raises:
      DataError: naming the first line that is too long.
    """
    if config.positions != "learned":
        return
    for line, pair in enumerate(pairs, first_line + 1):
        for side, ids in zip(("source", "target"), pair, strict=True):
            if len(ids) > config.max_length:
                raise DataError(
                    f"{side} line {line}: has {len(ids)} tokens, the model learned positions for "
                    f"{config.max_length} (model.max_length); split the line"
                )


@partial(jax.jit, static_argnames=("rules", "model", "special"))
def _score_batch(
    params: Any,
    src_BS: jax.Array,
    src_seg_BS: jax.Array,
    tgt_BT: jax.Array,
    tgt_seg_BT: jax.Array,
    alpha: float,
    rules: SearchRules,
    model: Transformer,
    special: SpecialIds,
) -> jax.Array:
    """Returns score_B, float32; one compiled function for each shape."""
    pos_BS, pos_BT = (jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape) for x in (src_seg_BS, tgt_seg_BT))
    batch = Batch(src_BS, src_seg_BS, pos_BS, tgt_BT, tgt_seg_BT, pos_BT)
    log_p_BT = token_scores(params, batch, model, len(special.given))
    return jnp.sum(log_p_BT, axis=1) / penalty(batch.tgt_seg_BT.sum(axis=1), alpha, rules)


@partial(jax.jit, static_argnames=("model", "given"))
def token_scores(
    params: Any, batch: Batch, model: Transformer, given: int, dropout_key: jax.Array | None = None
) -> jax.Array:
    """Returns log_p_BT, float32, nats: of each target token, those before it being read; 0 on padding.

    Args:
      params: of `model`.
      batch: pairs of ids.
      model: its layers are apart, or stacked as its parameters are.
      given: tokens at the beginning of every target that have no probability.
      dropout_key: with it activations are dropped as in training.
    """
    tgt_in_BT = shift_right(batch.tgt_BT, batch.tgt_pos_BT, model.start_id)
    inputs = *batch[:3], tgt_in_BT, batch.tgt_seg_BT, batch.tgt_pos_BT
    rngs = None if dropout_key is None else {"dropout": dropout_key}
    output: Any = model.apply(
        {"params": params}, *inputs, method=Transformer.with_output, deterministic=rngs is None, rngs=rngs
    )
    y_BTD, table_RVD, bias_V = output
    log_p_BT, _ = token_log_probs(y_BTD, table_RVD, batch.tgt_BT, _CHUNK, bias_V)
    return jnp.where((batch.tgt_seg_BT > 0) & (batch.tgt_pos_BT >= given), log_p_BT, 0)
