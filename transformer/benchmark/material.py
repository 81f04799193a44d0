"""What the measured steps read: the configuration's own data, or sentences made of random pieces."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transformer.config import Config
from transformer.data.augmentation import augmentation
from transformer.data.encoded import EncodedCorpus
from transformer.errors import ConfigError
from transformer.io.lock import locked
from transformer.io.workdir import Workdir
from transformer.run.prepare import prepare_data
from transformer.special_ids import EOS_ID

MEAN_LENGTH = 28.0  # source pieces of a synthetic pair; WMT'14 English-German has 27 to 30
SPREAD = 0.6  # standard deviation of the logarithm of the source's length
RATIO_SPREAD = 0.2  # of the logarithm of target length over source length
_PAIRS = 50_000
_POOL = 1 << 18  # random ids that the sentences are cut from
_SHIFT = 2.7  # of Zipf's law, after Mandelbrot: the most frequent piece is 3 % of 8,000 pieces' text


class Material(NamedTuple):
    """Encoded pairs, and the sizes of their vocabularies.

    Attributes:
      source_vocab: number of source pieces.
      target_vocab: number of target pieces.
      corpora: encoded pairs.
      weights: share of each corpus, None by length.
      augment: subword regularisation, or None.
      origin: what they are, for the report.
    """

    source_vocab: int
    target_vocab: int
    corpora: Sequence[EncodedCorpus]
    weights: Sequence[float] | None
    augment: Any
    origin: str


class SyntheticCorpus(EncodedCorpus):
    """Random pairs in memory that are read as encoded ones are.

    A source has exp(N(log m - SPREAD^2 / 2, SPREAD)) pieces, m on the mean, and its target
    exp(N(-RATIO_SPREAD^2 / 2, RATIO_SPREAD)) times as many; both are rounded and kept within 2 and
    the longest. The pieces are drawn one by one: the r-th is as frequent as 1 / (r + 2.7). Each
    sentence ends with the end mark.
    """

    def __init__(
        self,
        vocab: int,
        mean_length: float,
        longest: int,
        seed: int,
        pairs: int = _PAIRS,
        has_sources: bool = True,
        longest_target: int = 0,
    ):
        """Draws the pairs.

        Args:
          vocab: number of pieces, special ones included.
          mean_length: m, end mark included.
          longest: pieces of a sentence at most, end mark included.
          seed: of everything that is drawn.
          pairs: how many.
          has_sources: if not, sources are left empty, and all else is the same.
          longest_target: pieces of a target at most, where that is another number; 0: it is not.
        """
        rng = np.random.default_rng(seed)
        source = mean_length * np.exp(SPREAD * rng.standard_normal(pairs) - SPREAD**2 / 2)
        target = source * np.exp(RATIO_SPREAD * rng.standard_normal(pairs) - RATIO_SPREAD**2 / 2)
        most = [longest, longest_target or longest]
        self._lengths = np.clip(np.rint(np.stack([source, target], 1)), 2, most).astype(int)
        frequencies = 1 / (np.arange(vocab - EOS_ID - 1) + 1 + _SHIFT)
        drawn = rng.choice(len(frequencies), _POOL + longest, p=frequencies / frequencies.sum())
        self._pool = (EOS_ID + 1 + drawn).astype(np.int32)
        self._starts = rng.integers(_POOL, size=(pairs, 2))
        self._has_sources = has_sources
        self._lengths[:, 0] *= has_sources
        source_tokens, target_tokens = self._lengths.sum(0).tolist()
        self.counts = {"kept": pairs, "source_tokens": source_tokens, "target_tokens": target_tokens}

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        source, target = (
            np.append(self._pool[start : start + length - 1], np.int32(EOS_ID))
            for start, length in zip(self._starts[index], self._lengths[index], strict=True)
        )
        return source if self._has_sources else source[:0], target

    def number(self, index: int) -> int:
        """Returns the number of the pair, from 1."""
        return index + 1


def synthetic_material(config: Config, mean_length: float) -> Material:
    """Returns random pairs of `config.tokenizer.vocab_size` pieces on each side.

    Raises:
      ConfigError: if there are no pieces besides the special ones, or the sentences were too short.
    """
    vocab, longest = config.tokenizer.vocab_size, config.model.max_length
    if vocab <= EOS_ID + 1:
        raise ConfigError(
            f"config.tokenizer.vocab_size: {vocab} leaves no pieces beside {EOS_ID + 1} special ones"
        )
    if not 2 <= mean_length <= longest:
        raise ConfigError(
            f"--mean_length {mean_length:g}: must be from 2 to config.model.max_length, {longest}; "
            f"longer sentences need --config.model.max_length={2 * mean_length:.0f} or so"
        )
    has_sources = config.data.has_sources
    form: dict[str, Any] = dict(has_sources=has_sources, longest_target=config.data.target_length)
    corpus = SyntheticCorpus(vocab, mean_length, longest, config.data.seed, **form)
    side = "source" if has_sources else "target"
    origin = f"synthetic, lengths log-normal, {mean_length:g} {side} pieces on the mean"
    return Material(vocab, vocab, [corpus], None, None, origin)


def real_material(config: Config, root: str | None, note: Callable[[str], None]) -> Material:
    """Returns the configuration's own training pairs, prepared as `train` prepares them.

    Args:
      config: the run.
      root: folder that keeps tokenizer and encoded pairs; None: a temporary one.
      note: takes lines about the data.

    Raises:
      DataError: as `prepare_data`.
      CheckpointError: if a run trains in `root`.
    """
    with tempfile.TemporaryDirectory() as scratch:  # opened files can be read after their removal
        folder = Path(root or scratch)
        with locked(folder, note):
            data = prepare_data(config, Workdir(folder), note)
    tokenizer, augment = data.tokenizer, augmentation(config, data.tokenizer)
    origin = "real, " + ", ".join(name.removeprefix("train ") for name in data.counts if "train " in name)
    return Material(tokenizer.source_vocab, tokenizer.target_vocab, data.train, data.weights, augment, origin)
