"""Sentence pairs as piece ids on disk: encoded once, read in any order."""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from transformer.config import Config
from transformer.data.corpus import Corpus
from transformer.data.tokenizer import UNK_ID, Tokenizer
from transformer.errors import DataError

_BLOCK = 8192  # pairs encoded together
_FILES = ("bounds.npy", "numbers.npy", "tokens.bin")
_MANIFEST = "counts.json"
_FORMAT = 2  # of these files; 1 had no digests

Counts = dict[str, int]


class _Column:
    """Numbers in a file, raw or as NumPy saves them, read piece by piece.

    Not mapped into memory: where a mapped file has been cut, or its disk fails, the system ends the
    process without a word; reading gives an error. It is also faster for pieces of a sentence's length.
    """

    def __init__(self, path: Path, dtype: type[np.number]):
        """Opens the file, which stays readable if it is removed."""
        self.path, self._dtype = path, np.dtype(dtype)
        # The length of NumPy's header is NumPy's to know.
        self._offset = np.load(path, mmap_mode="r").offset if path.suffix == ".npy" else 0
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self.size = (os.fstat(self._descriptor).st_size - self._offset) // self._dtype.itemsize

    def read(self, start: int, count: int) -> np.ndarray:
        """Returns `count` numbers from `start` on; raises DataError if they are not there."""
        size = self._dtype.itemsize
        try:
            content = os.pread(self._descriptor, count * size, self._offset + start * size)
        except OSError as error:
            raise _damaged(self.path, f"cannot be read: {error.strerror}") from None
        if len(content) != count * size:
            raise _damaged(self.path, "is shorter than it was")
        return np.frombuffer(content, self._dtype)


class EncodedCorpus:
    """Pairs of int32 id arrays, end marks included; index or iterate.

    Attributes:
      counts: lines read, pairs `kept`, those left out by cause (`empty`, `too_long`, `ratio`,
        `undecodable`), and `source_tokens`, `target_tokens`, `unknown_tokens` of the kept ones.
    """

    def __init__(self, folder: Path):
        """Opens what `encode_corpus` wrote to `folder`."""
        self.counts: Counts = json.loads((folder / _MANIFEST).read_text())["counts"]
        self._bounds = _Column(folder / "bounds.npy", np.int64)
        self._numbers = _Column(folder / "numbers.npy", np.int64)
        self._tokens = _Column(folder / "tokens.bin", np.int32)

    def __len__(self) -> int:
        return self._numbers.size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of a pair; raises DataError if the files have changed since they were opened."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, middle, end = self._bounds.read(2 * index, 3).tolist()
        if not 0 <= start < middle < end <= self._tokens.size:
            raise _damaged(self._bounds.path, "has been changed")
        ids = self._tokens.read(start, end - start)
        return ids[: middle - start], ids[middle - start :]

    def number(self, index: int) -> int:
        """Returns the number of the pair in its source (line of a file, record of a dataset), from 1."""
        return int(self._numbers.read(index, 1)[0])

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self[i] for i in range(len(self)))


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path}: {why}; run the same command again: it encodes the corpus anew")


def encode_corpus(
    corpus: Corpus,
    tokenizer: Tokenizer,
    config: Config,
    folder: Path,
    note: Callable[[str], None] = lambda line: None,
) -> EncodedCorpus:
    """Encodes and filters a corpus into `folder`, or reuses what lies there whole from the same input.

    A pair is left out, and counted, if a side is empty or not UTF-8, longer than
    `model.max_length`, or if the lengths differ by more than `data.max_ratio`.

    Args:
      corpus: the pairs.
      tokenizer: makes ids of text.
      config: the filters.
      folder: where the ids are kept.
      note: told when what lies there is damaged.

    Raises:
      DataError: if a line is not UTF-8 and `data.invalid_utf8` is "error".
    """
    key = _key(corpus, tokenizer, config)
    if _is_whole(folder, key, note):
        return EncodedCorpus(folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / _MANIFEST
    manifest.unlink(missing_ok=True)
    counts: Counts = collections.Counter(dict.fromkeys(("lines", "kept", *_CAUSES, *_TOKENS), 0))
    lengths: list[int] = [0]
    numbers: list[int] = []
    with (folder / "tokens.bin").open("wb") as file:
        for block in _blocks(corpus):
            kept = _filtered(block, tokenizer, config, counts)
            numbers += (corpus.number(i) for i in kept)
            pairs = [ids for pair in kept.values() for ids in pair]
            lengths += map(len, pairs)
            flat = np.fromiter(itertools.chain.from_iterable(pairs), np.int32)
            counts["unknown_tokens"] += int((flat == UNK_ID).sum())
            flat.tofile(file)
    np.save(folder / "bounds.npy", np.cumsum(lengths, dtype=np.int64))
    np.save(folder / "numbers.npy", np.array(numbers, np.int64))
    # Last and in one move, so that it vouches for the others.
    temporary = manifest.with_suffix(".tmp")
    digests = {name: _digest(folder / name) for name in _FILES}
    temporary.write_text(json.dumps({"key": key, "counts": counts, "sha256": digests}, indent=2) + "\n")
    temporary.replace(manifest)
    return EncodedCorpus(folder)


def _is_whole(folder: Path, key: str, note: Callable[[str], None]) -> bool:
    """Returns whether `folder` holds encoded pairs of this key, to the bit; notes what is damaged."""
    manifest = folder / _MANIFEST
    if not manifest.exists():
        return False
    damaged = [_MANIFEST]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(manifest.read_text())
        if found["key"] != key:
            return False
        digests = found["sha256"]
        damaged = [name for name in _FILES if _digest(folder / name) != digests[name]]
    if damaged:
        note(f"{folder / damaged[0]}: damaged; encoding the corpus anew")
    return not damaged


def _digest(path: Path) -> str | None:
    """Returns the SHA-256 of a file; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


_CAUSES = ("empty", "too_long", "ratio", "undecodable")
_TOKENS = ("source_tokens", "target_tokens", "unknown_tokens")


def left_out(counts: Counts) -> str:
    """Returns the causes for which pairs were left out, as text: "12 too_long, 3 empty", or "none"."""
    return ", ".join(f"{counts[c]:,} {c}" for c in _CAUSES if counts[c]) or "none"


def _blocks(corpus: Corpus) -> Iterator[tuple]:
    pairs = enumerate(corpus)
    while block := tuple(itertools.islice(pairs, _BLOCK)):
        yield block


def _filtered(
    block: tuple, tokenizer: Tokenizer, config: Config, counts: Counts
) -> dict[int, tuple[list[int], list[int]]]:
    """Returns source and target ids of the pairs that stay, by place in the corpus; counts all."""
    counts["lines"] += len(block)
    counts["undecodable"] += sum(pair is None for _, pair in block)
    pairs = [(i, pair) for i, pair in block if pair is not None]
    whole = [(i, s, t) for i, (s, t) in pairs if s.strip() and t.strip()]
    counts["empty"] += len(pairs) - len(whole)
    sources = tokenizer.encode_source([s for _, s, _ in whole])
    targets = tokenizer.encode_target([t for _, _, t in whole])
    longest, ratio = config.model.max_length, config.data.max_ratio
    kept: dict[int, tuple[list[int], list[int]]] = {}
    for (i, _, _), source, target in zip(whole, sources, targets, strict=True):
        a, b = len(source), len(target)
        if max(a, b) > longest:
            counts["too_long"] += 1
        elif ratio and max(a, b) > ratio * min(a, b):
            counts["ratio"] += 1
        else:
            kept[i] = source, target
            counts["source_tokens"] += a
            counts["target_tokens"] += b
    counts["kept"] += len(kept)
    return kept


def _key(corpus: Corpus, tokenizer: Tokenizer, config: Config) -> str:
    """Returns a digest of everything that the encoded pairs depend on."""
    parts = [
        _FORMAT,
        corpus.name,
        len(corpus),
        [dataclasses.asdict(fact) for fact in corpus.files],
        tokenizer.digest,
        config.model.max_length,
        config.data.max_ratio,
        config.data.invalid_utf8,
        config.data.holdout_lines,
        config.data.tsv_columns,
        config.data.source_language,
        config.data.target_language,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
