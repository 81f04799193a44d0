"""Files of lines, mapped into memory: any line in constant time, files larger than memory.

A line ends at "\\n" and nowhere else. `str.splitlines` also splits at U+2028, NEL, VT and FF, which
shifts one side of a parallel corpus against the other.
"""

import dataclasses
import difflib
import functools
import gzip
import hashlib
import mmap
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from transformer.errors import DataError, did_you_mean

_CHUNK = 1 << 24  # bytes looked at together when lines are counted
_BLOCK = 1 << 20  # bytes decoded together when all lines are read
_BOM = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"


class UndecodableError(DataError):
    """A line that is not UTF-8."""


@dataclasses.dataclass(frozen=True)
class FileFact:
    """What a file was when it was read: enough to notice that it changed."""

    path: str  # as the configuration gives it, so that moving `data.root` changes nothing
    size: int  # bytes
    sha256: str  # of the bytes as they lie on disk; hexadecimal


class LineFile:
    """One text file, plain or gzip, as a sequence of lines without their ends.

    A carriage return before the line feed and a byte order mark at the start are dropped; a
    missing last line feed is as good as one. Memory: 8 bytes a line.
    """

    def __init__(self, path: Path, cache_dir: Path):
        """Maps the file and finds its lines in one pass.

        Args:
          path: the file; gzip is recognised by its first bytes, whatever the name.
          cache_dir: folder where a gzip file is unpacked, once for each content.

        Raises:
          DataError: if the file is missing, a folder, unreadable, or a damaged gzip file, or the
            cache cannot be written.
        """
        self.path = path
        self._data = _open(path)
        self.size = len(self._data)  # bytes on disk
        if self._data[:2] == _GZIP_MAGIC:
            self._data = _open(_unpacked(path, self.sha256, cache_dir))
        self._bounds = _line_bounds(self._data)

    @functools.cached_property
    def sha256(self) -> str:
        """Digest of the file as given (of the gzip file, not of its content)."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def fact(self, given: str) -> FileFact:
        """Returns size and digest under the name that the configuration gives the file."""
        return FileFact(given, self.size, self.sha256)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: int) -> str:
        """Returns line `index`, counted from 0.

        Raises:
          IndexError: if there is no such line.
          UndecodableError: if it is not UTF-8; names file, line (from 1) and byte offsets (from 0).
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: line {index} of {len(self)}")
        start, end = int(self._bounds[index]), int(self._bounds[index + 1]) - 1
        raw = self._data[start:end].removesuffix(b"\r")
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
        last = 0
        while last < len(self):
            first, start = last, int(self._bounds[last])
            last = max(first + 1, int(np.searchsorted(self._bounds, start + _BLOCK, "right")) - 1)
            raw = self._data[start : int(self._bounds[last]) - 1]
            try:
                lines = raw.decode().split("\n")
            except UnicodeDecodeError:
                yield from self._one_by_one(first, last, skip_undecodable)
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


def _open(path: Path) -> mmap.mmap | bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return b""  # an empty file cannot be mapped
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file{_nearby(path)}") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, expected a file of lines") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); expected a readable file of lines") from None


def _nearby(path: Path) -> str:
    """Says which file of the folder may have been meant."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return f"; nor is there a folder {path.parent}"
    few = names if len(names) <= 20 else difflib.get_close_matches(path.name, names)
    return did_you_mean(path.name, few) if few else f"; the folder holds {len(names)} others"


def _line_bounds(data: mmap.mmap | bytes) -> np.ndarray:
    """Returns int64 [lines + 1]: line i is data[bounds[i] : bounds[i + 1] - 1]."""
    size, start = len(data), len(_BOM) if data[:3] == _BOM else 0
    parts = [np.array([start], np.int64)]
    for first in range(0, size, _CHUNK):
        chunk = np.frombuffer(data, np.uint8, min(_CHUNK, size - first), first)
        parts.append(np.flatnonzero(chunk == 0x0A).astype(np.int64) + (first + 1))
    bounds = np.concatenate(parts)
    return bounds if bounds[-1] == size else np.append(bounds, size + 1)


def _unpacked(path: Path, sha256: str, cache_dir: Path) -> Path:
    """Returns the cached plain text of a gzip file; writes it if it is not there yet."""
    plain = cache_dir / f"unpacked-{sha256[:32]}.txt"
    if plain.exists():
        return plain
    temporary = None
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache_dir, prefix=plain.stem, delete=False) as out:
            temporary = Path(out.name)
            with gzip.open(path, "rb") as packed:
                shutil.copyfileobj(packed, out, _CHUNK)
        os.replace(temporary, plain)
        temporary = None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); fetch or pack it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be unpacked into {cache_dir} ({error.strerror})") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return plain
