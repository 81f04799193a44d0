"""Text in, translations out; and of a language model, text that goes on."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from transformer.axes import shard
from transformer.config import DecodeConfig, ModelConfig
from transformer.config_mapping import replace_decode
from transformer.data.frames import checked
from transformer.data.tokenizer import Tokenizer
from transformer.decoding.beam import beam_search
from transformer.decoding.sampling import sample
from transformer.decoding.scores import Allowed, Hypotheses, length_penalty
from transformer.errors import ConfigError, DataError
from transformer.inference.batches import OneAtATime, batches, bucket, num_rows, on_mesh, padded, segments
from transformer.inference.model_directory import LoadedModel, check_kind, load_model
from transformer.inference.splitting import split_line
from transformer.model.transformer import Transformer, empty_cache, longer_cache, unrolled, unstack_layers
from transformer.special_ids import SpecialIds

_MOSTLY_LONGER = 8  # tokens
_AT_A_TIME = 2  # batches on a CPU: what of one runs on a single core goes beside products of the other


class Translation(NamedTuple):
    """One output of one input line.

    Attributes:
      text: the translation, or of text alone the input and what follows it; a piece that the tokenizer
        does not know is " ⁇ ".
      score: log-probability over the length penalty, ((5 + length) / 6) ** alpha by the paper's rules.
      log_prob: log-probability in nats, end mark included.
      length: number of tokens, end mark included.
    """

    text: str
    score: float
    log_prob: float
    length: int


class Translator:
    """Translates lines of text with one model.

    A language model of text alone (`model.prefix` "none") goes on with lines instead: each is the
    beginning of an output, and may be empty. Where sources are frames (`model.source_features`), a line is
    an array of them, float32 [frames, features].

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
        check_kind(model.config, "encoder_decoder", "decoder_only")
        self._model = unrolled(model)
        self._params = unstack_layers(params)
        self._tokenizer = tokenizer
        self._decode = decode
        self._mesh = mesh
        self._compiling = OneAtATime()
        self.num_split = 0  # input lines so far that had to be split

    @classmethod
    def load(cls, path: str | Path, checkpoint: str = "best") -> "Translator":
        """Loads a run or an averaged model.

        Args:
          path: the folder that was `--workdir` of a training run, or an output of `average`.
          checkpoint: "best" (by the run's metric; the last if none was evaluated), "last", or a step.

        Raises:
          CheckpointError: if there is no such run or checkpoint, or its tokenizer is damaged.
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

    def translate(self, lines: Sequence[Any], first_line: int = 0, **options: Any) -> list[str]:
        """Returns the best translation of each line, in order; an empty line to translate stays empty.

        Args:
          lines: source text, one sentence each, or frames.
          first_line: as of `translate_n_best`.
          **options: fields of `DecodeConfig` to change for this call, for example `beam_size=1`.
        """
        return [best[0].text for best in self.translate_n_best(lines, 1, first_line, **options)]

    def translate_n_best(
        self, lines: Sequence[Any], n_best: int, first_line: int = 0, **options: Any
    ) -> list[list[Translation]]:
        """Returns the `n_best` translations of each line, the best first.

        A line longer than the model was trained for is split at sentence ends, its parts are
        translated, and their outputs joined with spaces, best with best, second with second;
        `num_split` counts such lines. Log-probabilities and lengths of the parts add up, and the
        score is that of the sums. Memory and time grow with the lines: give a large file in blocks.

        Args:
          lines: source text, or frames, which are split where they become too long.
          n_best: 1 to `beam_size`.
          first_line: number of `lines[0]` in its file; sampling depends on seed and line number.
          **options: fields of `DecodeConfig` to change for this call.

        Raises:
          ConfigError: if an option is unknown or cannot be used.
          DataError: if a line to go on with is longer than the model was trained for, or an array is none
            of frames of the model's.
        """
        decode = replace_decode(self._decode, options)
        if not 1 <= n_best <= decode.beam_size or (n_best > 1 and decode.temperature > 0):
            raise ConfigError(
                f"n_best: got {n_best}, expected 1 to beam_size, and 1 when sampling; "
                f"beam_size is {decode.beam_size}, temperature {decode.temperature}"
            )
        c = self._model.config
        if c.source_features:
            parts = [self._cut(frames, f"input {n}") for n, frames in enumerate(lines, first_line + 1)]
        elif c.reads_source:
            encoded = self._tokenizer.encode_source(lines)
            parts = [self._split(line, ids) for line, ids in zip(lines, encoded, strict=True)]
        else:
            parts = [[ids] for ids in self._beginnings(lines, first_line)]
        numbers = [(first_line + i, j) for i, line in enumerate(parts) for j in range(len(line))]
        flat = [part for line in parts for part in line]
        done = iter(self._translate_parts(flat, numbers, n_best, decode))
        return [_join([next(done) for _ in line], n_best, decode) for line in parts]

    def _split(self, line: str, ids: list[int]) -> list[list[int]]:
        """Returns the ids of each part of a line: none if it is empty, usually one."""
        special = self._tokenizer.special
        if not line.strip() or len(ids) == len(special.source_prefix + special.source_suffix):
            return []
        if len(ids) <= self.max_length:
            return [ids]
        self.num_split += 1
        language = self._tokenizer.language(line)
        start = language and language + " "  # of every part

        def encode(text: str) -> list[int]:
            return self._tokenizer.encode_source([start + text.strip()])[0]

        parts = split_line(line[len(language) :], lambda text: len(encode(text)), self.max_length)
        return [encode(part) for part in parts if part.strip()]

    def _cut(self, frames: Any, where: str) -> list[Any]:
        """Returns the frames in parts of about the same length: none if there are none, usually one."""
        frames_SC = checked(frames, self._model.config.source_features, where)
        parts = -(-len(frames_SC) // self.max_length)
        self.num_split += parts > 1
        return np.array_split(frames_SC, parts) if parts else []

    def _beginnings(self, lines: Sequence[str], first_line: int) -> list[list[int]]:
        """Returns the ids of each line, without the end mark."""
        encoded = [ids[:-1] for ids in self._tokenizer.encode_target(lines)]
        for number, ids in enumerate(encoded, first_line + 1):
            if len(ids) >= self.max_length:
                raise DataError(
                    f"line {number}: has {len(ids)} tokens to go on with, the model was trained for "
                    f"{self.max_length} in all (model.max_length); shorten the line"
                )
        return encoded

    def _read_first(self, ids: Any) -> Any:
        """Returns all that the model reads before it writes: of a decoder alone with the start mark."""
        if self._model.config.kind == "encoder_decoder":
            return ids
        start = [self._model.start_id]
        return [*ids, *start] if self._model.config.reads_source else [*start, *ids]

    def _translate_parts(
        self,
        sentences: Sequence[Any],
        numbers: Sequence[tuple[int, int]],
        n_best: int,
        decode: DecodeConfig,
    ) -> list[list[Translation]]:
        """Translates ids or frames that fit, in batches of like length; `numbers` are of line and part."""
        results: list[list[Translation]] = [[] for _ in sentences]

        reads_source = self._model.config.reads_source

        def run(chosen: Sequence[int]) -> Hypotheses:
            read = [self._read_first(sentences[i]) for i in chosen]
            return self._run(read, [numbers[i] for i in chosen], n_best, decode)

        all_chosen = list(batches([len(ids) for ids in sentences], decode.batch_size))
        for chosen, found in zip(all_chosen, self._map(run, all_chosen), strict=True):
            for row, i in enumerate(chosen):
                ids_WT = found.ids_BWT[row, :n_best]
                ends_WT = ids_WT == self._tokenizer.special.end
                begun = [] if reads_source else sentences[i]
                outputs = zip(
                    self._tokenizer.decode_target([[*begun, *ids_T] for ids_T in ids_WT.tolist()]),
                    found.score_BW[row, :n_best].tolist(),
                    found.log_prob_BW[row, :n_best].tolist(),
                    np.where(ends_WT.any(axis=1), ends_WT.argmax(axis=1) + 1, 0).tolist(),
                    strict=True,
                )
                results[i] = [Translation(*output) for output in outputs]
        return results

    def _map(
        self, run: Callable[[Sequence[int]], Hypotheses], all_chosen: Sequence[Sequence[int]]
    ) -> Iterable[Hypotheses]:
        """Returns what `run` gives for each batch; on one CPU device two are decoded at a time."""
        alone = self._mesh is None or self._mesh.size == 1
        if len(all_chosen) < 2 or not alone or jax.default_backend() != "cpu":
            return map(run, all_chosen)
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            return list(pool.map(run, all_chosen))

    def _run(
        self,
        sentences: Sequence[Any],
        numbers: Sequence[tuple[int, int]],
        n_best: int,
        decode: DecodeConfig,
    ) -> Hypotheses:
        rows, special = num_rows(len(sentences), self._mesh), self._tokenizer.special
        width = bucket(max(map(len, sentences)))
        inputs = on_mesh(
            self._mesh,
            padded(sentences, rows, width, special.pad),
            segments(sentences, rows, width),
            padded(numbers, rows, 2, 0),
        )
        key = jax.random.key(decode.seed)
        search = dataclasses.replace(decode, seed=0, batch_size=1)  # compiled anew only where it must be
        with self._compiling.once((inputs[0].shape, search)):
            found = _decode_batch(self._params, *inputs, key, n_best, self._model, special, search)
            return jax.device_get(found)


@partial(jax.jit, static_argnames=("model", "special", "decode"))
def _decode_batch(
    params: Any,
    src_BS: jax.Array,
    seg_BS: jax.Array,
    number_B2: jax.Array,
    key: jax.Array,
    n_best: int,
    model: Transformer,
    special: SpecialIds,
    decode: DecodeConfig,
) -> Hypotheses:
    """Reads all that comes first at once, then searches; one compiled function for each shape."""
    c, (B, S) = model.config, seg_BS.shape
    pos_BS = jnp.broadcast_to(jnp.arange(S), seg_BS.shape)
    real_B, start_B1 = seg_BS.any(axis=1), jnp.full((B, 1), model.start_id)
    if c.kind == "decoder_only":  # the last token is what the first step is given
        seg_BS, start_B1 = _last_apart(src_BS, seg_BS)
    source = model.apply({"params": params}, src_BS, seg_BS, pos_BS, method="read")
    longest_B, max_length = _longest(c, decode, seg_BS)
    limit_B = jnp.where(real_B, longest_B, 1)
    greedy = decode.beam_size == 1 or decode.temperature > 0
    lengths = min(S + _MOSTLY_LONGER, max_length), max_length
    W = 1 if greedy else decode.beam_size
    cache = empty_cache(c, B, W, lengths[0])

    def step_fn(
        token_BW: jax.Array, t: jax.Array, cache: Any, ancestor_BWT: jax.Array, context: Any
    ) -> tuple[jax.Array, Any]:
        start_B1, *read = context
        token_BW = jnp.where(t == 0, start_B1, token_BW)
        inputs = token_BW, t, cache, ancestor_BWT, *read
        return model.apply({"params": params}, *inputs, method="decode_step")

    context = start_B1, source, seg_BS
    rules = decode.min_length, decode.no_repeat_ngram_size
    allowed = Allowed(model.start_id, special.end, special.forbidden, special.target_prefix, *rules)
    shared: dict[str, Any] = dict(
        lengths=lengths,
        longer=partial(longer_cache, config=c, width=W, length=max_length),
        alpha=decode.length_penalty,
        allowed=allowed,
        rules=decode.rules,
    )
    if greedy:
        key_B = jax.vmap(lambda n_2: jax.random.fold_in(jax.random.fold_in(key, n_2[0]), n_2[1]))(number_B2)
        choice: dict[str, Any] = dict(temperature=decode.temperature, top_k=decode.top_k, top_p=decode.top_p)
        found = sample(step_fn, cache, context, limit_B, key_B, **choice, **shared)
    else:
        found = beam_search(
            step_fn, cache, context, limit_B, beam_size=decode.beam_size, n_best=n_best, **shared
        )
    # Every process reads all rows, also those that other processes decoded.
    return jax.tree.map(lambda x: shard(x, "_" * x.ndim), found)


def _longest(c: ModelConfig, decode: DecodeConfig, seg_BS: jax.Array) -> tuple[jax.Array, int]:
    """Returns the most tokens that the output of each row may have, and that of any."""
    length_B, S = seg_BS.sum(axis=1), seg_BS.shape[1]
    longest_B = decode.max_extra_length + length_B * c.reads_source
    max_length = decode.max_extra_length + S * c.reads_source
    if decode.length_limit:
        longest_B = jnp.minimum(longest_B, decode.length_limit)
        max_length = min(max_length, decode.length_limit)
    if c.positions == "learned":
        longest_B = jnp.minimum(longest_B, c.max_length - (0 if c.reads_source else length_B))
        max_length = min(max_length, c.max_length)
    return longest_B, max_length


def _last_apart(src_BS: jax.Array, seg_BS: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (seg_BS without the last token of each row, that token_B1)."""
    last_B1 = jnp.maximum(seg_BS.sum(axis=1, keepdims=True) - 1, 0)
    before_BS = jnp.arange(src_BS.shape[1]) < last_B1
    return seg_BS * before_BS, jnp.take_along_axis(src_BS, last_B1, axis=1)


def _join(parts: list[list[Translation]], n_best: int, decode: DecodeConfig) -> list[Translation]:
    """Joins the outputs of a line's parts, rank by rank."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return [Translation("", 0.0, 0.0, 0)] * n_best
    joined = []
    for rank in zip(*parts, strict=True):
        log_prob, length = sum(t.log_prob for t in rank), sum(t.length for t in rank)
        score = log_prob / float(length_penalty(length, decode.length_penalty, decode.rules))
        joined.append(Translation(" ".join(t.text for t in rank), score, log_prob, length))
    return sorted(joined, key=lambda t: -t.score)
