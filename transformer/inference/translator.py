"""Text in, translations out."""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from transformer.axes import spec
from transformer.config import DecodeConfig, replace_decode
from transformer.data.tokenizer import BOS_ID, EOS_ID, PAD_ID, Tokenizer
from transformer.decoding.beam import beam_search
from transformer.decoding.sampling import sample
from transformer.decoding.scores import Hypotheses
from transformer.errors import ConfigError
from transformer.inference.model_directory import LoadedModel, load_model
from transformer.inference.splitting import split_line
from transformer.io.devices import row_shards
from transformer.model.transformer import Transformer, empty_cache, unstack_layers


class Translation(NamedTuple):
    """One output of one input line.

    Attributes:
      text: the translation.
      score: log-probability over the length penalty ((5 + length) / 6) ** alpha.
      log_prob: log-probability in nats, end mark included.
    """

    text: str
    score: float
    log_prob: float


class Translator:
    """Translates lines of text with one model.

    Example:
      >>> translator = Translator.load("runs/quickstart")
      >>> translator.translate(["January 5, 2024"])
      ['5. Januar 2024']
    """

    def __init__(
        self,
        model: Transformer,
        params: Any,
        tokenizer: Tokenizer,
        decode: DecodeConfig,
        mesh: Mesh | None = None,
    ):
        """Takes a model with its parameters and tokenizer; `decode` are the defaults, `mesh` divides rows."""
        self._model = dataclasses.replace(
            model, config=dataclasses.replace(model.config, scan_layers=False, remat=False)
        )
        self._params = unstack_layers(params)
        self._tokenizer = tokenizer
        self._decode = decode
        self._mesh = mesh
        self.num_split = 0  # input lines so far that had to be split

    @classmethod
    def load(cls, path: str | Path, checkpoint: str = "best") -> "Translator":
        """Loads a run or an averaged model.

        Args:
          path: the folder that was `--workdir` of a training run, or an output of `average`.
          checkpoint: "best" (by the run's metric; the last if none was evaluated), "last", or a step.

        Raises:
          CheckpointError: if there is no such run or checkpoint.
          DataError: if its tokenizer is damaged.
        """
        return cls.of(load_model(path, checkpoint))

    @classmethod
    def of(cls, loaded: LoadedModel) -> "Translator":
        """Returns a translator of a model that is loaded already."""
        return cls(loaded.model, loaded.params, loaded.tokenizer, loaded.config.decode)

    @property
    def max_length(self) -> int:
        """Longest input, in tokens with the end mark, that is not split."""
        return self._model.config.max_length

    def translate(self, lines: Sequence[str], **options: Any) -> list[str]:
        """Returns the best translation of each line, in order; an empty line stays empty.

        Args:
          lines: source text, one sentence each.
          **options: fields of `DecodeConfig` to change for this call, for example `beam_size=1`.
        """
        return [best[0].text for best in self.translate_n_best(lines, n_best=1, **options)]

    def translate_n_best(
        self, lines: Sequence[str], n_best: int, first_line: int = 0, **options: Any
    ) -> list[list[Translation]]:
        """Returns the `n_best` translations of each line, the best first.

        A line longer than the model was trained for is split at sentence ends, its parts are
        translated, and their outputs joined with spaces (log-probabilities add up);
        `num_split` counts such lines.

        Args:
          lines: source text.
          n_best: 1 to `beam_size`.
          first_line: number of `lines[0]` in its file; sampling depends on seed and line number.
          **options: fields of `DecodeConfig` to change for this call.

        Raises:
          ConfigError: if an option is unknown or cannot be used.
        """
        decode = replace_decode(self._decode, options)
        if n_best > decode.beam_size or (n_best > 1 and decode.temperature > 0):
            raise ConfigError(
                f"n_best: {n_best} outputs need a beam_size of at least {n_best} and temperature 0, "
                f"got beam_size {decode.beam_size}, temperature {decode.temperature}"
            )
        parts = [self._split(line) for line in lines]
        flat = [(first_line + i, part) for i, line in enumerate(parts) for part in line]
        done = iter(self._translate_parts(flat, n_best, decode))
        return [_join([next(done) for _ in line], n_best) for line in parts]

    def _split(self, line: str) -> list[str]:
        if not line.strip():
            return []
        if len(self._tokenizer.encode_source([line])[0]) <= self._model.config.max_length:
            return [line]
        self.num_split += 1
        return split_line(
            line, lambda t: len(self._tokenizer.encode_source([t])[0]), self._model.config.max_length
        )

    def _translate_parts(
        self, parts: Sequence[tuple[int, str]], n_best: int, decode: DecodeConfig
    ) -> list[list[Translation]]:
        """Translates (line number, text that fits), in batches of like length."""
        encoded = self._tokenizer.encode_source([text for _, text in parts])
        order = sorted(range(len(parts)), key=lambda i: (len(encoded[i]), i))
        results: list[list[Translation]] = [[] for _ in parts]
        for chosen in _batches(order, [_bucket(len(ids)) for ids in encoded], decode.batch_size):
            numbers = [parts[i][0] for i in chosen]
            found = self._run([encoded[i] for i in chosen], numbers, n_best, decode)
            for row, i in enumerate(chosen):
                texts = self._tokenizer.decode_target(found.ids_BWT[row, :n_best])
                results[i] = [
                    Translation(text, float(score), float(log_prob))
                    for text, score, log_prob in zip(
                        texts, found.score_BW[row], found.log_prob_BW[row], strict=False
                    )
                ]
        return results

    def _run(
        self, sentences: list[list[int]], numbers: list[int], n_best: int, decode: DecodeConfig
    ) -> Hypotheses:
        rows = 1 << (len(sentences) - 1).bit_length()  # few shapes, so few compilations
        if self._mesh is not None:
            rows += -rows % row_shards(self._mesh)
        width = _bucket(max(map(len, sentences)))
        src_BS = np.zeros((rows, width), np.int32)
        number_B = np.zeros(rows, np.int32)
        for i, ids in enumerate(sentences):
            src_BS[i, : len(ids)] = ids
            number_B[i] = numbers[i]
        inputs: Any = (src_BS, number_B)
        if self._mesh is not None:
            inputs = tuple(jax.device_put(x, NamedSharding(self._mesh, spec("B"))) for x in inputs)
        longest = self._model.config.max_length if self._model.config.positions == "learned" else None
        found = _decode_batch(self._params, *inputs, self._model, n_best, longest, decode)
        return Hypotheses(*(np.asarray(x) for x in found))


@partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _decode_batch(
    params: Any,
    src_BS: jax.Array,
    number_B: jax.Array,
    model: Transformer,
    n_best: int,
    longest: int | None,
    decode: DecodeConfig,
) -> Hypotheses:
    """Encodes once, then searches; one compiled function for each shape."""
    B, S = src_BS.shape
    seg_BS = (src_BS != PAD_ID).astype(jnp.int32)
    pos_BS = jnp.broadcast_to(jnp.arange(S), src_BS.shape)
    encoded_BSD = model.apply({"params": params}, src_BS, seg_BS, pos_BS, method="encode")
    source = model.apply({"params": params}, encoded_BSD, method="source_keys")
    max_length = min(S + decode.max_extra_length, longest or S + decode.max_extra_length)
    limit_B = jnp.minimum(seg_BS.sum(axis=1) + decode.max_extra_length, max_length)
    greedy = decode.beam_size == 1 or decode.temperature > 0
    cache = empty_cache(model.config, B, 1 if greedy else decode.beam_size, max_length)

    def step_fn(token_BW: jax.Array, t: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
        return model.apply({"params": params}, token_BW, t, cache, source, seg_BS, method="decode_step")

    shared: dict[str, Any] = dict(
        max_length=max_length,
        alpha=decode.length_penalty,
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        forbidden=(PAD_ID, BOS_ID),
    )
    if greedy:
        key = jax.random.key(decode.seed)
        key_B = jax.vmap(jax.random.fold_in, (None, 0))(key, number_B)
        choice = dict(temperature=decode.temperature, top_k=decode.top_k, top_p=decode.top_p)
        return sample(step_fn, cache, limit_B, key_B, **choice, **shared)
    return beam_search(step_fn, cache, limit_B, beam_size=decode.beam_size, n_best=n_best, **shared)


def _bucket(length: int) -> int:
    """Returns the padded source length: a multiple of 8 up to 64, of 32 above."""
    step = 8 if length <= 64 else 32
    return -(-length // step) * step


def _batches(order: Sequence[int], buckets: Sequence[int], size: int) -> Iterator[list[int]]:
    """Cuts `order` into lists of at most `size` indices of one bucket each."""
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) == size or buckets[i] != buckets[batch[0]]):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _join(parts: list[list[Translation]], n_best: int) -> list[Translation]:
    """Joins the outputs of a line's parts, rank by rank."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return [Translation("", 0.0, 0.0)] * n_best
    return [
        Translation(" ".join(t.text for t in rank), sum(t.score for t in rank), sum(t.log_prob for t in rank))
        for rank in zip(*parts, strict=True)
    ]
