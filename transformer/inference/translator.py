"""Text in, translations out; and of a language model, text that goes on."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from transformer.config import DecodeConfig
from transformer.config_mapping import replace_decode
from transformer.data.frames import checked
from transformer.data.tokenizer import Tokenizer
from transformer.decoding.scores import NEVER, Hypotheses, length_penalty
from transformer.errors import ConfigError, DataError
from transformer.inference.batches import OneAtATime, batches, bucket, num_rows, on_mesh, padded, segments
from transformer.inference.model_directory import LoadedModel, check_kind, load_model
from transformer.inference.searching import decode_batch, trees_of
from transformer.inference.splitting import split_line
from transformer.model.transformer import Transformer, unrolled, unstack_layers
from transformer.parsing.trees import words_of
from transformer.parsing.well_formed import TreeSymbols

_AT_A_TIME = 2  # batches on a CPU: what of one runs on a single core goes beside products of the other


class Translation(NamedTuple):
    """One output of one input line.

    Attributes:
      text: the translation, or of text alone the input and what follows it; a piece that the tokenizer
        does not know is " ⁇ ".
      score: log-probability over the length penalty, ((5 + length) / 6) ** alpha by the paper's rules.
      log_prob: log-probability in nats, end mark included.
      ids: its tokens, end mark included; of a line that was split those of all parts.
    """

    text: str
    score: float
    log_prob: float
    ids: tuple[int, ...]

    @property
    def length(self) -> int:
        """Number of tokens, end mark included."""
        return len(self.ids)


class _Part(NamedTuple):
    """What is read at once: a line of the input, or a part of one that is too long.

    Attributes:
      read: ids, or frames.
      line: its number, from 0.
      part: number of the part in its line.
      words: in it, which is how many a tree stands over.
    """

    read: Any
    line: int
    part: int
    words: int


class Translator:
    """Translates lines of text with one model.

    A language model of text alone (`model.prefix` "none") goes on with lines instead: each is the
    beginning of an output, and may be empty. Where sources are frames (`model.source_features`), a line is
    an array of them, float32 [frames, features]. A model of trees writes symbols of a whole tree over the
    words of its line, and nothing else.

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
        trees: TreeSymbols | None = None,
    ):
        """Takes a model with its parameters and tokenizer.

        Args:
          model, params, tokenizer: that belong together.
          decode: the defaults.
          mesh: divides rows; None: one device has all.
          trees: what they are written with (`trees_of`), if the model writes trees.
        """
        check_kind(model.config, "encoder_decoder", "decoder_only")
        self._model = unrolled(model)
        self._params = unstack_layers(params)
        self._tokenizer = tokenizer
        self._decode = decode
        self._mesh = mesh
        self._trees = trees
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
        trees = trees_of(loaded.config, loaded.tokenizer)
        return cls(loaded.model, loaded.params, loaded.tokenizer, loaded.config.decode, trees=trees)

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

    def settings(self, n_best: int, options: Mapping[str, Any]) -> DecodeConfig:
        """Returns how `translate_n_best` searches with these arguments.

        Raises:
          ConfigError: if an option is unknown or cannot be used.
        """
        decode = replace_decode(self._decode, options)
        if not 1 <= n_best <= decode.beam_size or (n_best > 1 and decode.temperature > 0):
            raise ConfigError(
                f"n_best: got {n_best}, expected 1 to beam_size, and 1 when sampling; "
                f"beam_size is {decode.beam_size}, temperature {decode.temperature}"
            )
        if self._trees and (decode.min_length or decode.no_repeat_ngram_size):
            key = "min_length" if decode.min_length else "no_repeat_ngram_size"
            raise ConfigError(f"{key}: a tree ends where it is whole, and repeats symbols; leave it out")
        return decode

    def translate_n_best(
        self, lines: Sequence[Any], n_best: int, first_line: int = 0, **options: Any
    ) -> list[list[Translation]]:
        """Returns the `n_best` translations of each line, the best first, or fewer where there are no more.

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
        decode, c = self.settings(n_best, options), self._model.config
        if c.source_features:
            parts = [self._cut(frames, f"input {n}") for n, frames in enumerate(lines, first_line + 1)]
        elif c.reads_source:
            encoded = self._tokenizer.encode_source(lines)
            parts = [self._split(line, ids) for line, ids in zip(lines, encoded, strict=True)]
        else:
            parts = [[(ids, 0)] for ids in self._beginnings(lines, first_line)]
        flat = [
            _Part(read, first_line + i, j, words)
            for i, line in enumerate(parts)
            for j, (read, words) in enumerate(line)
        ]
        done = iter(self._translate_parts(flat, n_best, decode))
        return [_join([next(done) for _ in line], decode) for line in parts]

    def _split(self, line: str, ids: list[int]) -> list[tuple[Any, int]]:
        """Returns (ids, number of words) of each part of a line: none if it is empty, usually one."""
        special = self._tokenizer.special
        if not line.strip() or len(ids) == len(special.source_prefix + special.source_suffix):
            return []
        if len(ids) <= self.max_length:
            return [(ids, len(words_of(line)))]
        self.num_split += 1
        language = self._tokenizer.language(line)
        start = language and language + " "  # of every part

        def encode(text: str) -> list[int]:
            return self._tokenizer.encode_source([start + text.strip()])[0]

        parts = split_line(line[len(language) :], lambda text: len(encode(text)), self.max_length)
        return [(encode(part), len(words_of(part))) for part in parts if part.strip()]

    def _cut(self, frames: Any, where: str) -> list[tuple[Any, int]]:
        """Returns the frames in parts of about the same length: none if there are none, usually one."""
        frames_SC = checked(frames, self._model.config.source_features, where)
        parts = -(-len(frames_SC) // self.max_length)
        self.num_split += parts > 1
        return [(part, 0) for part in np.array_split(frames_SC, parts)] if parts else []

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
        self, parts: Sequence[_Part], n_best: int, decode: DecodeConfig
    ) -> list[list[Translation]]:
        """Translates parts that fit, in batches of like length."""
        results: list[list[Translation]] = [[] for _ in parts]
        reads_source = self._model.config.reads_source

        def run(chosen: Sequence[int]) -> Hypotheses:
            read = [self._read_first(parts[i].read) for i in chosen]
            return self._run(read, [parts[i][1:] for i in chosen], n_best, decode)

        all_chosen = list(batches([len(part.read) for part in parts], decode.batch_size))
        for chosen, found in zip(all_chosen, self._map(run, all_chosen), strict=True):
            for row, i in enumerate(chosen):
                ids_WT = found.ids_BWT[row, :n_best]
                ends_WT = ids_WT == self._tokenizer.special.end
                lengths_W = np.where(ends_WT.any(axis=1), ends_WT.argmax(axis=1) + 1, 0)
                begun = [] if reads_source else parts[i].read
                outputs = zip(
                    self._tokenizer.decode_target([[*begun, *ids_T] for ids_T in ids_WT.tolist()]),
                    found.score_BW[row, :n_best].tolist(),
                    found.log_prob_BW[row, :n_best].tolist(),
                    [tuple(ids_T[:length].tolist()) for ids_T, length in zip(ids_WT, lengths_W, strict=True)],
                    strict=True,
                )
                best, *others = (Translation(*output) for output in outputs)
                results[i] = [best, *(other for other in others if other.log_prob > NEVER / 2)]
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
        numbers: Sequence[tuple[int, int, int]],
        n_best: int,
        decode: DecodeConfig,
    ) -> Hypotheses:
        rows, special = num_rows(len(sentences), self._mesh), self._tokenizer.special
        width = bucket(max(map(len, sentences)))
        inputs = on_mesh(
            self._mesh,
            padded(sentences, rows, width, special.pad),
            segments(sentences, rows, width),
            padded(numbers, rows, 3, 0),
        )
        key = jax.random.key(decode.seed)
        search = dataclasses.replace(decode, seed=0, batch_size=1)  # compiled anew only where it must be
        fixed = self._model, special, self._trees, search
        with self._compiling.once((inputs[0].shape, search)):
            found = decode_batch(self._params, *inputs, key, n_best, *fixed)
            return jax.device_get(found)


def _join(parts: list[list[Translation]], decode: DecodeConfig) -> list[Translation]:
    """Joins the outputs of a line's parts, rank by rank."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return [Translation("", 0.0, 0.0, ())]
    joined = []
    for place in range(max(map(len, parts))):
        rank = [part[min(place, len(part) - 1)] for part in parts]
        log_prob, ids = sum(t.log_prob for t in rank), tuple(i for t in rank for i in t.ids)
        score = log_prob / float(length_penalty(len(ids), decode.length_penalty, decode.rules))
        joined.append(Translation(" ".join(t.text for t in rank), score, log_prob, ids))
    return sorted(joined, key=lambda t: -t.score)
