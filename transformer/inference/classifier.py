"""Text in, labels out."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transformer.config import Labels
from transformer.data.labels import asked
from transformer.data.tokenizer import Tokenizer
from transformer.errors import ConfigError
from transformer.inference.batches import batches, bucket, num_rows, padded
from transformer.inference.model_directory import LoadedModel, check_kind, load_model
from transformer.inference.scorer import check_positions
from transformer.model.transformer import Transformer, unrolled, unstack_layers
from transformer.parsing.trees import words_of
from transformer.special_ids import SpecialIds


class Answer(NamedTuple):
    """A label and its probability."""

    label: str
    probability: float


class Classifier:
    """Labels lines of text, or their words, with one model.

    Example:
      >>> classifier = Classifier.load("runs/gum_genre")
      >>> classifier.classify(["The court finds for the plaintiff ."])
      [[Answer(label='court', probability=0.97)]]

    Attributes:
      labels: "line" or "word": what has a label.
      num_cut: lines so far that were too long to be read at once.
    """

    def __init__(self, model: Transformer, params: Any, tokenizer: Tokenizer, labels: Labels):
        """Takes a model with its parameters and tokenizer, and what it labels.

        Raises:
          ConfigError: if it is no classifier.
        """
        check_kind(model.config, "encoder_only")
        if labels == "none":
            raise ConfigError(
                "--model: knows masked pieces and no labels; train a classifier from it with "
                "--config.init.model and config.data.labels"
            )
        self.labels, self.num_cut = labels, 0
        self._model, self._params, self._tokenizer = unrolled(model), unstack_layers(params), tokenizer

    @classmethod
    def load(cls, path: str | Path, checkpoint: str = "best") -> "Classifier":
        """Loads a run or an averaged model; arguments and errors as `Translator.load`."""
        return cls.of(load_model(path, checkpoint))

    @classmethod
    def of(cls, loaded: LoadedModel) -> "Classifier":
        """Returns a classifier of a model that is loaded already."""
        return cls(loaded.model, loaded.params, loaded.tokenizer, loaded.config.data.labels)

    @property
    def max_length(self) -> int:
        """Longest line, in tokens with the end mark, that is read at once."""
        return self._model.config.max_length

    def classify(self, lines: Sequence[str], batch_size: int = 64, first_line: int = 0) -> list[list[Answer]]:
        """Returns the likeliest label of each line, or of each of its words; none of an empty line."""
        return [[best[0] for best in line] for line in self.n_best(lines, 1, batch_size, first_line)]

    def n_best(
        self, lines: Sequence[str], count: int, batch_size: int = 64, first_line: int = 0
    ) -> list[list[list[Answer]]]:
        """Returns the `count` likeliest labels, the best first, of each line or of each of its words.

        A line longer than the model was trained for is cut between words. Its words have the labels that
        they have in their parts; the probabilities of its own labels are the mean of its parts'.

        Args:
          lines: text.
          count: 1 to the number of labels.
          batch_size: lines, or parts of lines, read together.
          first_line: number of `lines[0]` in its file, for messages.

        Raises:
          ConfigError: if a number is not possible.
          DataError: if a word has more tokens than the model has learned positions.
        """
        names = self._tokenizer.labels
        if not 1 <= count <= len(names):
            raise ConfigError(f"--n_best: there are 1 to {len(names)} labels, got {count}")
        if batch_size < 1:
            raise ConfigError(f"--batch_size: must be at least 1, got {batch_size}")
        owners, parts = [], []
        for i, line in enumerate(lines):
            for part in self._parts(line):
                check_positions(self._model.config, [(part[0], ())], first_line + i)
                owners.append(i)
                parts.append(part)
        found: list[list[np.ndarray]] = [[] for _ in lines]
        for i, p_TC in zip(owners, self._probabilities(parts, batch_size), strict=True):
            found[i].append(p_TC)

        def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
            return np.concatenate(parts) if self.labels == "word" else np.stack(parts).mean(axis=0)

        return [_best(joined(parts), names, count) if parts else [] for parts in found]

    def _parts(self, line: str) -> list[tuple[list[int], list[int]]]:
        """Returns (ids, places that are asked) of a line, or of its parts; nothing of an empty one."""
        words = words_of(line)
        if not words:
            return []
        (whole,) = asked(self._tokenizer, [line], self.labels)
        if len(whole[0]) <= self.max_length:
            return [whole]
        self.num_cut += 1
        return asked(self._tokenizer, [" ".join(part) for part in self._cut(words)], self.labels)

    def _cut(self, words: Sequence[str]) -> Iterator[Sequence[str]]:
        """Yields words in parts as long as the model reads them at once; a word is never cut."""
        (whole, places), (around, _) = self._tokenizer.encode_words([words, []])
        ends = *places[1:], len(whole) - len(self._tokenizer.special.source_suffix)
        first, used = 0, len(around)
        for i, (start, end) in enumerate(zip(places, ends, strict=True)):
            length = end - start
            if i > first and used + length > self.max_length:
                yield words[first:i]
                first, used = i, len(around)
            used += length
        yield words[first:]

    def _probabilities(
        self, parts: Sequence[tuple[list[int], list[int]]], batch_size: int
    ) -> list[np.ndarray]:
        """Returns p_TC of all labels, float32, at the places of each part that are asked."""
        found: list[np.ndarray] = [np.empty(0)] * len(parts)
        special, lengths = self._tokenizer.special, [len(ids) for ids, _ in parts]
        for chosen in batches(lengths, batch_size):
            rows, width = num_rows(len(chosen), None), bucket(max(lengths[i] for i in chosen))
            places = [parts[i][1] for i in chosen]
            most = 1 if self.labels == "line" else width
            src_BS = padded([parts[i][0] for i in chosen], rows, width, special.pad)
            given = _answers(self._params, src_BS, padded(places, rows, most, 0), self._model, special)
            for i, p_TC in zip(chosen, np.asarray(given), strict=False):
                found[i] = p_TC[: len(parts[i][1])]
        return found


def _best(p_TC: np.ndarray, names: Sequence[str], count: int) -> list[list[Answer]]:
    order_TC = np.argsort(-p_TC, axis=-1, kind="stable")[:, :count]
    return [
        [Answer(names[i], float(p_C[i])) for i in order_C]
        for p_C, order_C in zip(p_TC, order_TC, strict=True)
    ]


@partial(jax.jit, static_argnames=("model", "special"))
def _answers(
    params: Any, src_BS: jax.Array, at_BT: jax.Array, model: Transformer, special: SpecialIds
) -> jax.Array:
    """Returns p_BTC, float32: the probability of each label at places of the source."""
    seg_BS = (src_BS != special.pad).astype(jnp.int32)
    pos_BS = jnp.broadcast_to(jnp.arange(src_BS.shape[1]), src_BS.shape)
    encoded_BSD: Any = model.apply({"params": params}, src_BS, seg_BS, pos_BS, method="encode")
    y_BTD = jnp.take_along_axis(encoded_BSD, at_BT[..., None], axis=1)
    logits_BTC: Any = model.apply({"params": params}, y_BTD, method="logits")
    return jax.nn.softmax(logits_BTC.astype(jnp.float32), axis=-1)
