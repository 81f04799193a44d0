"""Files that are read piece by piece, digests that are remembered, files that are whole or not there."""

import contextlib
import dataclasses
import difflib
import hashlib
import json
import os
import secrets
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from transformer.errors import DataError, did_you_mean

_CHUNK = 1 << 20  # bytes read together when all are read
_SETTLED = 2 * 10**9  # ns; file systems tell times to a second or two at worst


@dataclasses.dataclass(frozen=True)
class FileFact:
    """What a file was when it was read: enough to notice that it changed."""

    path: str  # as the configuration gives it, so that moving `data.root` changes nothing
    size: int  # bytes
    sha256: str  # of the bytes as they lie on disk; hexadecimal


class PieceFile:
    """A file of which any piece can be read; it stays readable if it is removed.

    Not mapped into memory: where a mapped file has been cut, or its disk fails, the system ends the
    process without a word; reading gives an error. It is also faster for pieces of a sentence's length.
    """

    def __init__(self, path: Path):
        """Opens the file; raises OSError if it cannot be opened, or is a folder."""
        self.path = path
        with path.open("rb") as file:
            self._descriptor = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size  # bytes

    def read_bytes(self, start: int, count: int) -> bytes:
        """Returns `count` bytes from `start` on; raises DataError if they are not there."""
        try:
            content = os.pread(self._descriptor, count, start)
        except OSError as error:
            raise self.spoilt(f"cannot be read: {error.strerror}") from None
        if len(content) != count:
            raise self.spoilt("is shorter than it was")
        return content

    def chunks(self) -> Iterator[bytes]:
        """Yields the whole content, a mebibyte at a time."""
        for start in range(0, self.size, _CHUNK):
            yield self.read_bytes(start, min(_CHUNK, self.size - start))

    def sha256(self, memory: Path) -> str:
        """Returns the digest, from `memory` if the file is the one that it was computed for.

        As git does, a file is taken for that if its stat is the same, and this only where its time of
        change had clearly passed when it was read: a later change has another time then.

        Args:
          memory: folder where digests are remembered, if it can be written.
        """
        identity = self._identity()
        record = memory / f"sha256-{_digest(identity)[:32]}"
        with contextlib.suppress(OSError):
            text = record.read_text("ascii", "replace")
            if text == _record(identity, text[:64]):
                return text[:64]
        stat, began = os.fstat(self._descriptor), time.time_ns()
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        if max(stat.st_mtime_ns, stat.st_ctime_ns) + _SETTLED < began and self._identity() == identity:
            with contextlib.suppress(OSError), replacing(record) as file:
                file.write(_record(identity, digest.hexdigest()).encode())
        return digest.hexdigest()

    def spoilt(self, why: str) -> DataError:
        """Returns the error that tells that the file is not what it was when it was opened."""
        return DataError(f"{self.path}: {why}; restore it")

    def _identity(self) -> str:
        stat = os.fstat(self._descriptor)
        times = stat.st_mtime_ns, stat.st_ctime_ns
        return json.dumps([str(self.path.absolute()), stat.st_ino, stat.st_size, *times])


def _record(identity: str, sha256: str) -> str:
    """Returns what is remembered of a file; it covers itself."""
    return f"{sha256} {_digest(identity + sha256)}\n"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def open_file(path: Path, what: str) -> PieceFile:
    """Opens a file that the user has named.

    Raises:
      DataError: saying what was expected, and which name may have been meant.
    """
    try:
        return PieceFile(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file{_nearby(path)}") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder, expected a {what}") from None
    except OSError as error:
        reason = error.strerror
        raise DataError(f"{path}: cannot be read ({reason}); expected a readable {what}") from None


def _nearby(path: Path) -> str:
    """Says which file of the folder may have been meant."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return f"; nor is there a folder {path.parent}"
    few = names if len(names) <= 20 else difflib.get_close_matches(path.name, names)
    return did_you_mean(path.name, few) if few else f"; the folder holds {len(names)} others"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Gives a file to write, which gets the name `path` when it lies whole on the disk, else none.

    Several processes may do so at once: one of the files stays.

    Raises:
      OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
