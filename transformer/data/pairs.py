"""Where sentence pairs come from: two files, one of columns, trees or lines, memory, some of another source.

A pair is (source, target), the source empty where there is none and `Frames` where it is no text, or None
where a side is not UTF-8 and such pairs are to be skipped.
"""

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from transformer.data.files import FileFact
from transformer.data.frames import FrameFile
from transformer.data.lines import LineFile, UndecodableError
from transformer.errors import DataError
from transformer.parsing.linear import linearise
from transformer.parsing.trees import read_tree

Pair = tuple[Any, str]  # the source is text or `Frames`


class Pairs(Protocol):
    """A source of pairs: one of the classes below, or `tfds_source.TfdsPairs`."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Pair | None: ...
    def __iter__(self) -> Iterator[Pair | None]: ...
    def facts(self) -> tuple[FileFact, ...]:
        """Returns size and digest of every file behind it."""
        ...


class TextPairs:
    """Line n of one file, or sample n of frames, with line n of another."""

    def __init__(
        self, files: tuple[LineFile | FrameFile, LineFile], given: tuple[str, str], *, skip_undecodable: bool
    ):
        """Pairs two open files.

        Raises:
          DataError: if their numbers of lines differ.
        """
        self._source, self._target = files
        self._given = given
        self._skip = skip_undecodable
        if len(self._source) != len(self._target):
            unit = self._source.unit
            raise DataError(
                f"{self._source.path} has {len(self._source)} {unit}s but {self._target.path} has "
                f"{len(self._target)}; {unit} n of one must translate line n of the other (lines end "
                'at "\\n" only)'
            )

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Pair | None:
        try:
            return self._source[index], self._target[index]
        except UndecodableError:
            if not self._skip:
                raise
            return None

    def __iter__(self) -> Iterator[Pair | None]:
        sides = (file.scan(skip_undecodable=self._skip) for file in (self._source, self._target))
        for source, target in zip(*sides, strict=True):
            yield None if source is None or target is None else (source, target)

    def facts(self) -> tuple[FileFact, ...]:
        return *self._source.facts(self._given[0]), *self._target.facts(self._given[1])


class _PairedLines:
    """Pairs that are one line each of one file."""

    def __init__(self, file: LineFile, given: str, *, skip_undecodable: bool):
        self._file = file
        self._given = given
        self._skip = skip_undecodable

    def __len__(self) -> int:
        return len(self._file)

    def __getitem__(self, index: int) -> Pair | None:
        try:
            return self._pair(index, self._file[index])
        except UndecodableError:
            if not self._skip:
                raise
            return None

    def __iter__(self) -> Iterator[Pair | None]:
        for index, line in enumerate(self._file.scan(skip_undecodable=self._skip)):
            yield None if line is None else self._pair(index, line)

    def facts(self) -> tuple[FileFact, ...]:
        return self._file.facts(self._given)

    def _pair(self, index: int, line: str) -> Pair:
        raise NotImplementedError


class TsvPairs(_PairedLines):
    """Two columns of a file of tab-separated lines; quotes have no meaning."""

    def __init__(self, file: LineFile, given: str, columns: tuple[int, int], *, skip_undecodable: bool):
        super().__init__(file, given, skip_undecodable=skip_undecodable)
        self._columns = columns

    def _pair(self, index: int, line: str) -> Pair:
        cells = line.split("\t")
        source, target = self._columns
        try:
            return cells[source], cells[target]
        except IndexError:
            raise DataError(
                f"{self._file.path}: line {index + 1} has {len(cells)} tab-separated columns, expected at "
                f"least {max(self._columns) + 1}; mend the line, or config.data.tsv_columns"
            ) from None


class TargetLines(_PairedLines):
    """Each line a target, without a source: text as a language model reads it."""

    def _pair(self, index: int, line: str) -> Pair:
        return "", line


class TreePairs(_PairedLines):
    """The words of each tree of a file, and the tree as symbols, or the words' tags alone."""

    def __init__(
        self, file: LineFile, given: str, keep_tags: bool, *, skip_undecodable: bool, tags_alone: bool = False
    ):
        super().__init__(file, given, skip_undecodable=skip_undecodable)
        self._keep_tags, self._tags_alone = keep_tags, tags_alone

    def _pair(self, index: int, line: str) -> Pair:
        tree = read_tree(line, f"{self._file.path}: line {index + 1}", traces=False)
        tags = [leaf.tag for leaf in tree.leaves]
        return " ".join(tree.words), " ".join(tags if self._tags_alone else linearise(tree, self._keep_tags))


class LonePairs(_PairedLines):
    """Each line of a file, as source and as target, for models that read one side alone."""

    def _pair(self, index: int, line: str) -> Pair:
        return line, line


class ListPairs:
    """Pairs that lie in memory."""

    def __init__(self, pairs: list[Pair], name: str):
        self._pairs = pairs
        self._name = name

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Pair:
        return self._pairs[index]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    def facts(self) -> tuple[FileFact, ...]:
        text = "".join(f"{source}\t{target}\n" for source, target in self._pairs).encode()
        return (FileFact(self._name, len(text), hashlib.sha256(text).hexdigest()),)


class SomePairs:
    """Some of the pairs of a source, in its order."""

    def __init__(self, pairs: Pairs, drawn: np.ndarray, *, rest: bool):
        """Chooses pairs.

        Args:
          pairs: the source.
          drawn: int64 [pairs drawn], their indices in order.
          rest: choose all the others instead.
        """
        self._pairs = pairs
        self._drawn = drawn
        self._rest = rest
        self._before = drawn - np.arange(len(drawn))  # how many of the rest come before each of them

    def __len__(self) -> int:
        return len(self._pairs) - len(self._drawn) if self._rest else len(self._drawn)

    def __getitem__(self, index: int) -> Pair | None:
        return self._pairs[self.origin(index)]

    def __iter__(self) -> Iterator[Pair | None]:
        if 10 * len(self) > len(self._pairs):  # reading all in order is then the faster way
            chosen = np.full(len(self._pairs), self._rest)
            chosen[self._drawn] = not self._rest
            return itertools.compress(self._pairs, chosen)
        return map(self.__getitem__, range(len(self)))

    def origin(self, index: int) -> int:
        """Returns the pair's index in the source that it was chosen from."""
        if self._rest:
            return index + int(np.searchsorted(self._before, index, "right"))
        return int(self._drawn[index])

    def facts(self) -> tuple[FileFact, ...]:
        return self._pairs.facts()
