"""Sentence pairs from text files, TSV, TFDS, trees, frames or the built-in corpus, all read the same way.

`open_corpora` gives the named lists of pairs of a split. Each is random access (`corpus[i]`) and
fast in order (`for pair in corpus`). A pair is (source, target), or None where a side is not UTF-8
and `data.invalid_utf8` is "skip", so that whoever reads can count what is left out.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from transformer.config import DataConfig
from transformer.data.files import FileFact
from transformer.data.frames import FrameFile
from transformer.data.lines import LineFile
from transformer.data.pairs import (
    ListPairs,
    LonePairs,
    Pair,
    Pairs,
    SomePairs,
    TargetLines,
    TextPairs,
    TreePairs,
    TsvPairs,
)
from transformer.errors import ConfigError, DataError

Split = Literal["train", "dev", "test"]

_GOLDEN = (5**0.5 - 1) / 2


@dataclasses.dataclass(frozen=True)
class Corpus:
    """One named list of sentence pairs."""

    name: str  # for messages, for example "train.en|train.de"
    pairs: Pairs
    weight: float | None = None  # share of the training pairs; None: by its number of pairs
    frames: FrameFile | None = None  # that its sources lie in, if they are no text

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair | None:
        return self.pairs[index]

    def __iter__(self) -> Iterator[Pair | None]:
        return iter(self.pairs)

    def number(self, index: int) -> int:
        """Returns the number of a pair in its source, counted from 1: the line of a file, for example."""
        return 1 + (self.pairs.origin(index) if isinstance(self.pairs, SomePairs) else index)

    @functools.cached_property
    def files(self) -> tuple[FileFact, ...]:
        """Size and digest of its files: what a run remembers to notice that they changed."""
        return self.pairs.facts()


def open_corpora(data: DataConfig, split: Split, cache_dir: Path, alone: bool = False) -> list[Corpus]:
    """Opens the corpora of a split.

    Without a dev set, `holdout_lines` pairs are taken out of train to be one. Which ones depends on
    the sizes of the corpora alone: no seed moves a pair from one side to the other.

    Args:
      data: what to read.
      split: which part of it.
      cache_dir: folder for what is known of the files, and for unpacked ones.
      alone: text has no targets; its sources are both sides.

    Returns:
      The corpora in the order of the configuration; none if dev or test is not given.

    Raises:
      ConfigError: if no training data is named or a key cannot be used.
      DataError: if the data cannot be used.
    """
    held_out = split != "test" and data.holdout_lines > 0 and not _is_given(data, "dev")
    wanted: Split = "train" if held_out else split
    if not _is_given(data, wanted):
        if wanted != "train":
            return []
        keys = {"tsv": "train_tsv", "tfds": "tfds_splits", "lines": "train_target"}
        key = keys.get(data.kind, "train_source")
        other = ", or config.data.kind=cldr" if data.kind in ("text", "tsv", "tfds") and not alone else ""
        raise ConfigError(f"config.data.{key}: no training data is named; set it{other}")
    if alone:
        data = dataclasses.replace(data, tsv_columns=data.tsv_columns[:1] * 2)
    opener = _open_alone if alone and data.kind == "text" else _OPENERS[data.kind]
    corpora = opener(data, wanted, cache_dir)
    return _hold_out(corpora, data.holdout_lines, keep_train=split == "train") if held_out else corpora


def check_unchanged(recorded: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> None:
    """Checks that the files of a run are still what they were.

    Args:
      recorded: `dataclasses.asdict` of the `FileFact`s that the run began with.
      now: the same of today's files.

    Raises:
      DataError: at the first file that differs, is no longer read, or was not read before.
    """
    before, after = ({fact["path"]: fact for fact in facts} for facts in (recorded, now))
    remedy = "restore it, or start another run with another --workdir"
    for path in [*before, *(path for path in after if path not in before)]:
        old, new = before.get(path), after.get(path)
        if old is None or new is None:
            change = "was not part of it" if old is None else "is no longer part of it"
            raise DataError(f"corpus changed since the run began: {path} {change}; {remedy}")
        if (old["size"], old["sha256"]) != (new["size"], new["sha256"]):
            raise DataError(
                f"corpus changed since the run began: {path} had {old['size']} bytes, sha256 "
                f"{old['sha256'][:12]}, now {new['size']} bytes, sha256 {new['sha256'][:12]}; {remedy}"
            )


def _hold_out(corpora: list[Corpus], count: int, *, keep_train: bool) -> list[Corpus]:
    """Draws one pair from each of `count` equal stretches of all pairs; returns those or the rest."""
    total = sum(map(len, corpora))
    if count >= total:
        names = ", ".join(corpus.name for corpus in corpora)
        raise DataError(
            f"{names}: config.data.holdout_lines={count} would leave nothing of {total} pairs to train on; "
            f"set it below {total}, or give a dev set"
        )
    # The place inside a stretch wanders by the golden ratio: spread evenly, in step with no period of
    # the corpus, and the same with every version of every random generator.
    edges = np.arange(count + 1) * total // count
    drawn = edges[:-1] + (np.arange(count) * _GOLDEN % 1.0 * np.diff(edges)).astype(np.int64)
    result, end = [], 0
    for corpus in corpora:
        start, end = end, end + len(corpus)
        held = drawn[np.searchsorted(drawn, start) : np.searchsorted(drawn, end)] - start
        if keep_train:
            result.append(dataclasses.replace(corpus, pairs=SomePairs(corpus.pairs, held, rest=True)))
        elif len(held):
            name, pairs = f"{corpus.name} (held out)", SomePairs(corpus.pairs, held, rest=False)
            result.append(Corpus(name, pairs, frames=corpus.frames))
    return result


def _is_given(data: DataConfig, split: Split) -> bool:
    if data.kind in ("text", "lines", "trees", "frames"):
        return bool(getattr(data, f"{split}_source") or getattr(data, f"{split}_target"))
    if data.kind == "tsv":
        return bool(getattr(data, f"{split}_tsv"))
    return data.kind == "cldr" or bool(_tfds_split(data, split))


def _line_file(data: DataConfig, given: str, cache_dir: Path) -> LineFile:
    return LineFile(Path(data.root, given).expanduser(), cache_dir)


def _open_text(data: DataConfig, split: Split, cache_dir: Path) -> list[Corpus]:
    """Opens pairs of files: sources, as lines or as frames, and targets."""
    sources, targets = getattr(data, f"{split}_source"), getattr(data, f"{split}_target")
    skip = data.invalid_utf8 == "skip"
    if len(sources) != len(targets):
        raise ConfigError(
            f"config.data.{split}_source names {len(sources)} files but config.data.{split}_target "
            f"{len(targets)}; give as many of one as of the other, in the same order"
        )
    corpora = []
    for given, weight in zip(zip(sources, targets, strict=True), _weights(data, split), strict=True):
        frames = None
        if data.kind == "frames":
            frames = FrameFile(Path(data.root, given[0]).expanduser(), cache_dir)
        source = _line_file(data, given[0], cache_dir) if frames is None else frames
        files = source, _line_file(data, given[1], cache_dir)
        pairs = TextPairs(files, given, skip_undecodable=skip)
        corpora.append(Corpus("|".join(given), pairs, weight, frames))
    return corpora


def _open_alone(data: DataConfig, split: Split, cache_dir: Path) -> list[Corpus]:
    return _open_single(data, split, cache_dir, LonePairs)


def _open_trees(data: DataConfig, split: Split, cache_dir: Path) -> list[Corpus]:
    return _open_single(
        data, split, cache_dir, partial(TreePairs, keep_tags=data.tree_tags, tags_alone=data.labels == "word")
    )


def _open_lines(data: DataConfig, split: Split, cache_dir: Path) -> list[Corpus]:
    return _open_single(data, split, cache_dir, TargetLines)


def _open_single(
    data: DataConfig, split: Split, cache_dir: Path, pairs_of: Callable[..., Pairs]
) -> list[Corpus]:
    """Opens files that hold all of a pair."""
    corpora = []
    for given, weight in zip(_files(data, split), _weights(data, split), strict=True):
        file = _line_file(data, given, cache_dir)
        pairs = pairs_of(file, given, skip_undecodable=data.invalid_utf8 == "skip")
        corpora.append(Corpus(given, pairs, weight))
    return corpora


def _weights(data: DataConfig, split: Split) -> Sequence[float | None]:
    """Returns the share of each file, or pair of files, of a split."""
    if split == "train" and data.train_weights:
        return data.train_weights
    return [None] * len(_files(data, split))


def _files(data: DataConfig, split: Split) -> Sequence[str]:
    """Returns the files of a split: of a pair of them the source's."""
    return getattr(data, f"{split}_{'source' if data.has_sources else 'target'}")


def _open_tsv(data: DataConfig, split: Split, cache_dir: Path) -> list[Corpus]:
    if len(data.tsv_columns) != 2 or min(data.tsv_columns) < 0:
        raise ConfigError(
            f"config.data.tsv_columns: expected the columns of source and target, counted from 0, such "
            f"as 0,1; got {','.join(map(str, data.tsv_columns))}"
        )
    given = getattr(data, f"{split}_tsv")
    columns = data.tsv_columns[0], data.tsv_columns[1]
    file = _line_file(data, given, cache_dir)
    pairs = TsvPairs(file, given, columns, skip_undecodable=data.invalid_utf8 == "skip")
    return [Corpus(given, pairs)]


def _tfds_split(data: DataConfig, split: Split) -> str:
    if len(data.tfds_splits) > 3:
        raise ConfigError(
            f"config.data.tfds_splits: expected the splits for train, dev and test, such as "
            f"train,validation,test; got {','.join(data.tfds_splits)}"
        )
    return dict(zip(("train", "dev", "test"), data.tfds_splits, strict=False)).get(split, "")


def _open_tfds(data: DataConfig, split: Split, cache_dir: Path) -> list[Corpus]:
    from transformer.data.tfds_source import TfdsPairs

    pairs = TfdsPairs(
        data.tfds_name,
        _tfds_split(data, split),
        data.tfds_dir,
        cache_dir,
        languages=(data.source_language, data.target_language),
        skip_undecodable=data.invalid_utf8 == "skip",
    )
    return [Corpus(pairs.name, pairs)]


@functools.lru_cache(maxsize=1)
def _generated(source: str, target: str, num_pairs: int, seed: int) -> dict[str, list[Pair]]:
    from transformer.data.cldr import generate

    return generate(source, target, num_pairs, seed)


def _open_cldr(data: DataConfig, split: Split, cache_dir: Path) -> list[Corpus]:
    source, target = data.source_language, data.target_language
    name = f"cldr {source}-{target} {split}"
    pairs = _generated(source, target, data.cldr_pairs, data.cldr_seed)[split]
    return [Corpus(name, ListPairs(pairs, name))]


_OPENERS: Mapping[str, Callable[[DataConfig, Split, Path], list[Corpus]]] = {
    "text": _open_text,
    "frames": _open_text,
    "lines": _open_lines,
    "trees": _open_trees,
    "tsv": _open_tsv,
    "tfds": _open_tfds,
    "cldr": _open_cldr,
}
