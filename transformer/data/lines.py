"""Files of lines: any line in constant time, files larger than memory.

A line ends at "\\n" and nowhere else. `str.splitlines` also splits at U+2028, NEL, VT and FF, which
shifts one side of a parallel corpus against the other.
"""

import contextlib
import functools
import gzip
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from transformer.data.columns import Column, new_column
from transformer.data.files import FileFact, PieceFile, open_file, replacing
from transformer.errors import DataError

_LINES = 1 << 16  # lines whose bounds are read together when all lines are
_BLOCK = 1 << 20  # bytes decoded together when all lines are read
_BOM = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"


class UndecodableError(DataError):
    """A line that is not UTF-8."""


class LineFile:
    """One text file, plain or gzip, as a sequence of lines without their ends.

    A carriage return before the line feed and a byte order mark at the start are dropped; a
    missing last line feed is as good as one. Where the lines are is written into the cache once for
    each content, 8 bytes a line; next to nothing is held in memory.
    """

    unit = "line"

    def __init__(self, path: Path, cache_dir: Path):
        """Opens the file; reads it whole where the cache knows nothing of it.

        Args:
          path: the file; gzip is recognised by its first bytes, whatever the name.
          cache_dir: folder for the digest and the places of the lines (if it cannot be written, they are
            found anew each time), and where a gzip file is unpacked.

        Raises:
          DataError: if the file is missing, a folder, unreadable, or a damaged gzip file, or the
            cache cannot be written.
        """
        self.path = path
        text = given = open_file(path, "file of lines")
        self.size = given.size  # bytes on disk
        self.sha256 = given.sha256(cache_dir)  # of the file as given (of the gzip file, not of its content)
        if given.read_bytes(0, min(2, given.size)) == _GZIP_MAGIC:
            text = open_file(_unpacked(path, self.sha256, cache_dir), "file of lines")
        self._text = text
        self._bounds = _bounds(text, cache_dir / f"lines-{self.sha256[:32]}.bin")

    def facts(self, given: str) -> tuple[FileFact]:
        """Returns size and digest under the name that the configuration gives the file."""
        return (FileFact(given, self.size, self.sha256),)

    def __len__(self) -> int:
        return self._bounds.count - 1

    def __getitem__(self, index: int) -> str:
        """Returns line `index`, counted from 0.

        Raises:
          IndexError: if there is no such line.
          UndecodableError: if it is not UTF-8; names file, line (from 1) and byte offsets (from 0).
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: line {index} of {len(self)}")
        start, end = self._bounds.read(index, 2).tolist()
        raw = self._text.read_bytes(start, end - 1 - start).removesuffix(b"\r")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise UndecodableError(
                f"{self.path}: line {index + 1} is not UTF-8: byte 0x{raw[error.start]:02x} at offset "
                f"{error.start} of the line, {start + error.start} of the text; convert the file to "
                "UTF-8, or set config.data.invalid_utf8=skip to leave such pairs out"
            ) from None

    def scan(self, *, skip_undecodable: bool = False) -> Iterator[str | None]:
        """Yields all lines in order, several times faster than by index.

        Args:
          skip_undecodable: yield None for a line that is not UTF-8 instead of raising.

        Raises:
          UndecodableError: as `__getitem__`, unless they are skipped.
        """
        for first in range(0, len(self), _LINES):
            bounds = self._bounds.read(first, min(_LINES, len(self) - first) + 1)
            last = 0
            while last < len(bounds) - 1:
                start, begin = last, int(bounds[last])
                last = max(start + 1, int(np.searchsorted(bounds, begin + _BLOCK, "right")) - 1)
                raw = self._text.read_bytes(begin, int(bounds[last]) - 1 - begin)
                try:
                    lines = raw.decode().split("\n")
                except UnicodeDecodeError:
                    yield from self._one_by_one(first + start, first + last, skip_undecodable)
                    continue
                yield from [line.removesuffix("\r") for line in lines] if b"\r" in raw else lines

    def _one_by_one(self, first: int, last: int, skip_undecodable: bool) -> Iterator[str | None]:
        for index in range(first, last):
            try:
                yield self[index]
            except UndecodableError:
                if not skip_undecodable:
                    raise
                yield None


def _bounds(text: PieceFile, path: Path) -> Column:
    """Returns int64 [lines + 1]: line i is text[bounds[i] : bounds[i + 1] - 1]; writes them if need be."""
    with contextlib.suppress(DataError):
        found = Column(path, np.int64)
        if int(found.read(found.count - 1, 1)[0]) in (text.size, text.size + 1):
            return found
    with contextlib.suppress(OSError):
        return _find_lines(text, path)
    try:
        with tempfile.TemporaryDirectory() as scratch:  # an open file can be read after its removal
            return _find_lines(text, Path(scratch) / path.name)
    except OSError as error:
        folders = f"{path.parent} nor a temporary folder"
        raise DataError(f"{text.path}: neither {folders} can be written ({error.strerror})") from None


def _find_lines(text: PieceFile, path: Path) -> Column:
    end = start = len(_BOM) if text.read_bytes(0, min(len(_BOM), text.size)) == _BOM else 0
    position = 0
    with new_column(path, np.int64) as append:
        append(np.array([start]))
        for chunk in text.chunks():
            ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == 0x0A) + (position + 1)
            append(ends)
            end = int(ends[-1]) if len(ends) else end
            position += len(chunk)
        if end != text.size:
            append(np.array([text.size + 1]))
    return Column(path, np.int64)


def _unpacked(path: Path, sha256: str, cache_dir: Path) -> Path:
    """Returns the cached plain text of a gzip file; writes it if it is not there yet."""
    plain = cache_dir / f"unpacked-{sha256[:32]}.txt"
    if plain.exists():
        return plain
    try:
        with replacing(plain) as out, gzip.open(path, "rb") as packed:
            shutil.copyfileobj(packed, out, _BLOCK)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); fetch or pack it again") from None
    except OSError as error:
        try:
            scratch = Path(_scratch().name)
        except OSError:
            scratch = cache_dir
        if scratch != cache_dir:
            return _unpacked(path, sha256, scratch)
        folders = f"{cache_dir} nor a temporary folder"
        raise DataError(f"{path}: neither {folders} can be written ({error.strerror})") from None
    return plain


@functools.cache
def _scratch() -> "tempfile.TemporaryDirectory[str]":
    """Returns a folder that lasts as long as the process, for where a cache cannot be written."""
    return tempfile.TemporaryDirectory(prefix="transformer-")
