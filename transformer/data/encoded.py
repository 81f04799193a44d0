"""Sentence pairs as piece ids on disk: encoded once, read in any order."""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from transformer.config import Config
from transformer.data.batch import NOT_ASKED
from transformer.data.columns import Column, Damaged, new_column
from transformer.data.corpus import Corpus
from transformer.data.files import replacing
from transformer.data.frames import FrameFile, Frames, checked
from transformer.data.labels import labelled
from transformer.data.tokenizer import Tokenizer

_BLOCK = 8192  # pairs encoded together
_MANIFEST = "manifest.json"
_FORMAT = 3  # of the folder: 1 had no digests, 2 digests of whole files

Counts = dict[str, int]
Ids = tuple[Sequence[int], Sequence[int]]  # of source and target

_COLUMNS: dict[str, type[np.number]] = {
    "bounds.bin": np.int64,  # [2 * pairs + 1]: pair i is tokens[bounds[2 * i] : bounds[2 * i + 2]]
    "numbers.bin": np.int64,  # [pairs]: of the pair in its source
    "tokens.bin": np.int32,
}


class EncodedCorpus:
    """Pairs of int32 id arrays, end marks included; index or iterate.

    Sources that are no text are float32 [frames, features]; on disk their ids are the numbers of the frames.

    Attributes:
      key: digest of everything that they depend on.
      counts: lines read, pairs `kept`, those left out by cause (`empty`, `too_long`, `ratio`,
        `undecodable`; `unknown_label` if there is any), and `source_tokens`, `target_tokens` (of an encoder
        alone what may be asked for), `unknown_tokens` of the kept ones.
    """

    def __init__(self, folder: Path, frames: FrameFile | None = None):
        """Opens what `encode_corpus` wrote to `folder`; raises Damaged if a file is not of the others.

        Args:
          folder: where it lies.
          frames: that the sources are part of, if they are no text.
        """
        self._folder, self._frames = folder, frames
        self.key, self.counts, seals = _read_manifest(folder / _MANIFEST)
        columns = [Column(folder / name, dtype) for name, dtype in _COLUMNS.items()]
        for column in columns:
            if column.seal.hex() != seals[column.path.name]:
                raise column.spoilt("is of another encoding")
        self._bounds, self._numbers, self._tokens = columns

    def __reduce__(self) -> tuple[type["EncodedCorpus"], tuple[Path, FrameFile | None]]:
        """Lets a worker process open the same files."""
        return EncodedCorpus, (self._folder, self._frames)

    def __len__(self) -> int:
        return self._numbers.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns source and target of a pair; raises Damaged if the files are not as they were written."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, middle, end = self._bounds.read(2 * index, 3).tolist()
        if not 0 <= start <= middle < end <= self._tokens.count:
            raise self._bounds.spoilt("has been changed")
        ids = self._tokens.read(start, end - start)
        source, target = ids[: middle - start], ids[middle - start :]
        if self._frames is not None:
            source = self._frames.read(int(source[0]), len(source))
        return source, target

    def number(self, index: int) -> int:
        """Returns the number of the pair in its source (line of a file, record of a dataset), from 1."""
        return int(self._numbers.read(index, 1)[0])

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return (self[i] for i in range(len(self)))


def encode_corpus(
    corpus: Corpus,
    tokenizer: Tokenizer,
    config: Config,
    folder: Path,
    note: Callable[[str], None] = lambda line: None,
) -> EncodedCorpus:
    """Encodes and filters a corpus into `folder`, or reuses what lies there from the same input.

    A pair is left out, and counted, if a side is empty or not UTF-8, longer than
    `model.max_length` (or `data.target_length`), or if the lengths differ by more than `data.max_ratio`.
    A frame of a source that is no text counts as a token.

    Args:
      corpus: the pairs.
      tokenizer: makes ids of text.
      config: the filters.
      folder: where the ids are kept.
      note: told when what lies there is seen to be damaged; most of it is looked at when it is read.

    Raises:
      DataError: if a line is not UTF-8 and `data.invalid_utf8` is "error", or a frame has not as many
        finite numbers as the model reads.
    """
    key = _key(corpus, tokenizer, config)
    if (found := _reusable(folder, key, corpus.frames, note)) is not None:
        return found
    shutil.rmtree(folder, ignore_errors=True)  # whoever reads it can go on
    folder.mkdir(parents=True, exist_ok=True)
    counts: Counts = collections.Counter(dict.fromkeys(("lines", "kept", *_CAUSES, *_TOKENS), 0))
    end = 0  # tokens written
    with contextlib.ExitStack() as stack:
        bounds, numbers, tokens = (
            stack.enter_context(new_column(folder / name, dtype)) for name, dtype in _COLUMNS.items()
        )
        bounds(np.array([end]))
        for block in _blocks(corpus):
            kept = _filtered(block, corpus, tokenizer, config, counts)
            numbers(np.array([corpus.number(i) for i in kept], np.int64))
            pairs = [ids for pair in kept.values() for ids in pair]
            bounds(end + np.cumsum([len(ids) for ids in pairs], dtype=np.int64))
            flat = np.fromiter(itertools.chain.from_iterable(pairs), np.int32)
            end += len(flat)
            tokens(flat)
    # Last and in one move, so that it vouches for the others.
    seals = {name: Column(folder / name, dtype).seal.hex() for name, dtype in _COLUMNS.items()}
    with replacing(folder / _MANIFEST) as file:
        file.write(_manifest(key, counts, seals))
    return EncodedCorpus(folder, corpus.frames)


def _reusable(
    folder: Path, key: str, frames: FrameFile | None, note: Callable[[str], None]
) -> EncodedCorpus | None:
    """Returns what lies in `folder` if it is of this key and looks whole; notes what is damaged."""
    if not (folder / _MANIFEST).exists():
        return None
    try:
        found = EncodedCorpus(folder, frames)
    except Damaged as error:
        note(f"{error.path}: damaged; encoding the corpus anew")
        return None
    return found if found.key == key else None


def _manifest(key: str, counts: Counts, seals: dict[str, str]) -> bytes:
    """Returns the text of the manifest, which covers itself."""
    covered = {"key": key, "counts": counts, "seals": seals}
    digest = hashlib.sha256(json.dumps(covered).encode()).hexdigest()
    return json.dumps({**covered, "self": digest}, indent=2).encode() + b"\n"


def _read_manifest(path: Path) -> tuple[str, Counts, dict[str, str]]:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        text = path.read_bytes()
        found = json.loads(text)
        parts = found["key"], found["counts"], found["seals"]
        if text == _manifest(*parts):
            return parts
    raise Damaged(path, "is damaged")


_CAUSES = ("empty", "too_long", "ratio", "undecodable")
_UNKNOWN_LABEL = "unknown_label"
_TOKENS = ("source_tokens", "target_tokens", "unknown_tokens")


def left_out(counts: Counts) -> str:
    """Returns the causes for which pairs were left out, as text: "12 too_long, 3 empty", or "none"."""
    causes = (*_CAUSES, _UNKNOWN_LABEL)
    return ", ".join(f"{counts[c]:,} {c}" for c in causes if counts.get(c)) or "none"


def _blocks(corpus: Corpus) -> Iterator[tuple]:
    pairs = enumerate(corpus)
    while block := tuple(itertools.islice(pairs, _BLOCK)):
        yield block


def _filtered(
    block: tuple, corpus: Corpus, tokenizer: Tokenizer, config: Config, counts: Counts
) -> dict[int, Ids]:
    """Returns source and target ids of the pairs that stay, by place in the corpus; counts all."""
    counts["lines"] += len(block)
    counts["undecodable"] += sum(pair is None for _, pair in block)
    pairs = [(i, pair) for i, pair in block if pair is not None]
    read, asked = config.data.has_sources, not config.is_masked
    pieces = not config.model.source_features, config.model.kind != "encoder_only"  # are the two sides?
    whole = [
        (i, s, t) for i, (s, t) in pairs if (_is_something(s) or not read) and (_is_something(t) or not asked)
    ]
    counts["empty"] += len(pairs) - len(whole)
    longest, longest_target, ratio = config.model.max_length, config.target_length, config.data.max_ratio
    kept: dict[int, Ids] = {}
    for (i, _, _), sides in zip(whole, _sides(whole, corpus, tokenizer, config), strict=True):
        if sides is None:
            counts[_UNKNOWN_LABEL] = counts.get(_UNKNOWN_LABEL, 0) + 1
            continue
        source, target = sides
        a, b = len(source), len(target)
        if a > longest or b > longest_target:
            counts["too_long"] += 1
        elif ratio and max(a, b) > ratio * min(a, b):
            counts["ratio"] += 1
        else:
            kept[i] = source, target
            counts["source_tokens"] += a
            counts["target_tokens"] += b - target.count(NOT_ASKED)
            texts = itertools.compress(sides, pieces)
            counts["unknown_tokens"] += sum(ids.count(tokenizer.special.unk) for ids in texts)
    counts["kept"] += len(kept)
    return kept


def _is_something(side: str | Frames) -> bool:
    return bool(side.strip() if isinstance(side, str) else len(side))


def _sides(
    whole: list[tuple[int, Any, str]], corpus: Corpus, tokenizer: Tokenizer, config: Config
) -> Iterator[Ids | None]:
    """Yields source and target ids of (place, source, target); None where a label is unknown."""
    sources, targets = [s for _, s, _ in whole], [t for _, _, t in whole]
    if features := config.model.source_features:
        for frames, target in zip(sources, tokenizer.encode_target(targets), strict=True):
            checked(frames, features, f"{frames.file.path}: sample {frames.index + 1}")
            yield range(frames.start, frames.start + frames.length), target
    elif config.data.labels != "none":
        where = [f"{corpus.name}: pair {corpus.number(i)}" for i, _, _ in whole]
        yield from labelled(tokenizer, sources, targets, config.data.labels, where)
    elif config.is_masked:
        yield from ((ids, ids) for ids in tokenizer.encode_source(sources))
    else:
        read = config.data.has_sources
        ids = tokenizer.encode_source(sources) if read else [[]] * len(whole)
        yield from zip(ids, tokenizer.encode_target(targets), strict=True)


def _key(corpus: Corpus, tokenizer: Tokenizer, config: Config) -> str:
    """Returns a digest of everything that the encoded pairs depend on."""
    parts = [
        _FORMAT,
        corpus.name,
        len(corpus),
        [dataclasses.asdict(fact) for fact in corpus.files],
        tokenizer.digest,
        config.model.max_length,
        config.target_length,
        config.data.max_ratio,
        config.data.invalid_utf8,
        config.data.holdout_lines,
        config.data.tsv_columns,
        config.data.source_language,
        config.data.target_language,
        config.model.kind,
        config.data.labels,
        *([config.data.tree_tags] if config.data.kind == "trees" else []),
        *([features] if (features := config.model.source_features) else []),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
