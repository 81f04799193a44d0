"""Sentence pairs as piece ids on disk: encoded once, mapped into memory, read in any order."""

import collections
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from transformer.config import Config
from transformer.data.corpus import Corpus
from transformer.data.tokenizer import UNK_ID, Tokenizer

_BLOCK = 8192  # pairs encoded together

Counts = dict[str, int]


class EncodedCorpus:
    """Pairs of int32 id arrays, end marks included; index or iterate.

    Attributes:
      counts: lines read, pairs `kept`, those left out by cause (`empty`, `too_long`, `ratio`,
        `undecodable`), and `source_tokens`, `target_tokens`, `unknown_tokens` of the kept ones.
    """

    def __init__(self, folder: Path):
        """Opens what `encode_corpus` wrote to `folder`."""
        self.counts: Counts = json.loads((folder / "counts.json").read_text())["counts"]
        self._bounds = np.load(folder / "bounds.npy", mmap_mode="r")
        self._numbers = np.load(folder / "numbers.npy", mmap_mode="r")
        tokens = folder / "tokens.bin"
        empty = tokens.stat().st_size == 0  # an empty file cannot be mapped
        self._tokens = np.zeros(0, np.int32) if empty else np.memmap(tokens, np.int32, mode="r")

    def __len__(self) -> int:
        return len(self._bounds) // 2

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, middle, end = self._bounds[2 * index : 2 * index + 3]
        return self._tokens[start:middle], self._tokens[middle:end]

    def number(self, index: int) -> int:
        """Returns the number of the pair in its source (line of a file, record of a dataset), from 1."""
        return int(self._numbers[index])

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self[i] for i in range(len(self)))


def encode_corpus(corpus: Corpus, tokenizer: Tokenizer, config: Config, folder: Path) -> EncodedCorpus:
    """Encodes and filters a corpus into `folder`, or reuses what lies there from the same input.

    A pair is left out, and counted, if a side is empty or not UTF-8, longer than
    `model.max_length`, or if the lengths differ by more than `data.max_ratio`.

    Raises:
      DataError: if a line is not UTF-8 and `data.invalid_utf8` is "error".
    """
    key = _key(corpus, tokenizer, config)
    if _is_complete(folder, key):
        return EncodedCorpus(folder)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "counts.json"
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
    temporary.write_text(json.dumps({"key": key, "counts": counts}, indent=2) + "\n")
    temporary.replace(manifest)
    return EncodedCorpus(folder)


def _is_complete(folder: Path, key: str) -> bool:
    """Returns whether `folder` holds whole encoded pairs of this key."""
    try:
        known = json.loads((folder / "counts.json").read_text())["key"] == key
        end = int(np.load(folder / "bounds.npy", mmap_mode="r")[-1])
        pairs = len(np.load(folder / "numbers.npy", mmap_mode="r"))
        whole = pairs == len(np.load(folder / "bounds.npy", mmap_mode="r")) // 2
        return known and whole and (folder / "tokens.bin").stat().st_size == 4 * end
    except (OSError, EOFError, ValueError, KeyError):
        return False


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
