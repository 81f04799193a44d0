"""Columns of numbers on disk: written piece by piece, each block checked when it is first read.

A column is one file: the numbers, then the CRC-32 of each 16 KiB of them, then the seal, which says how
many numbers there are and covers those sums and itself. So to open a column is to look at 28 bytes,
however long it is. A sum depends on the place of its block. It guards against damage, not against malice:
any 32 bits in a row that are changed are noticed, and of larger damage all but one case in 2^32. The digest
of the sums is not another CRC, which would be the same for a number changed here or likewise elsewhere.
"""

import contextlib
import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from transformer.data.files import PieceFile, replacing
from transformer.errors import DataError

_BLOCK = 1 << 14  # bytes checked together; it takes some 12 us, once
_SUM = 4  # bytes
_SEAL = struct.Struct("<Q16sI")  # count, BLAKE2b of all sums, CRC-32 of the two


class Damaged(DataError):
    """A file that is not as it was written, and can be made again."""

    def __init__(self, path: Path, why: str):
        super().__init__(f"{path}: {why}; run the same command again: it makes the file anew")
        self.path, self._why = path, why

    def __reduce__(self) -> tuple[type["Damaged"], tuple[Path, str]]:
        """Lets a worker process raise it in another one."""
        return Damaged, (self.path, self._why)


class Column(PieceFile):
    """Numbers in a file that `new_column` wrote.

    Attributes:
      count: how many there are.
      seal: 28 bytes; another column has others.
    """

    def __init__(self, path: Path, dtype: type[np.number]):
        """Opens the file; raises Damaged if it is missing, or not as long as its seal says."""
        try:
            super().__init__(path)
        except OSError as error:
            raise self.spoilt(f"cannot be read: {error.strerror}") from None
        self._dtype = np.dtype(dtype)
        if self.size < _SEAL.size:
            raise self.spoilt("is damaged")
        self.seal = self.read_bytes(self.size - _SEAL.size, _SEAL.size)
        self.count = _SEAL.unpack(self.seal)[0]
        self._itemsize = self._dtype.itemsize
        self._length = self.count * self._itemsize  # bytes of the numbers
        blocks = -(-self._length // _BLOCK)
        if self.seal != _seal(self.seal[:-_SUM]) or self.size != self._length + blocks * _SUM + _SEAL.size:
            raise self.spoilt("is damaged")
        self._sound = bytearray(blocks)  # 1 where a block has been checked

    def read(self, start: int, count: int) -> np.ndarray:
        """Returns `count` numbers from `start` on, all below `self.count`; raises Damaged if they changed."""
        size = self._itemsize
        first, last = start * size // _BLOCK, ((start + count) * size - 1) // _BLOCK
        for block in range(first, last + 1):
            if not self._sound[block]:
                self._check(block)
        return np.frombuffer(self.read_bytes(start * size, count * size), self._dtype)

    def spoilt(self, why: str) -> Damaged:
        """Returns the error, and removes the file: the next start must not take it for a sound one."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        return Damaged(self.path, why)

    def _check(self, block: int) -> None:
        start = block * _BLOCK
        content = self.read_bytes(start, min(_BLOCK, self._length - start))
        if self.read_bytes(self._length + block * _SUM, _SUM) != _sum(content, block):
            raise self.spoilt("is damaged")
        self._sound[block] = 1


@contextlib.contextmanager
def new_column(path: Path, dtype: type[np.number]) -> Iterator[Callable[[np.ndarray], None]]:
    """Gives a function that appends numbers to a column, which is at `path` when all is done, else not.

    Holds a block of numbers, and 4 bytes for each block written.

    Raises:
      OSError: if it cannot be written.
    """
    sums, rest, count = bytearray(), bytearray(), 0
    with replacing(path) as file:

        def write(end: int) -> None:
            for start in range(0, end, _BLOCK):
                sums.extend(_sum(rest[start : min(start + _BLOCK, end)], len(sums) // _SUM))
            file.write(rest[:end])
            del rest[:end]

        def append(numbers: np.ndarray) -> None:
            nonlocal count
            count += len(numbers)
            rest.extend(numbers.astype(dtype).tobytes())
            write(len(rest) - len(rest) % _BLOCK)

        yield append
        write(len(rest))
        file.write(sums + _seal(struct.pack("<Q16s", count, hashlib.blake2b(sums, digest_size=16).digest())))


def _sum(content: bytes | bytearray, block: int) -> bytes:
    return zlib.crc32(content, block).to_bytes(_SUM, "little")


def _seal(covered: bytes) -> bytes:
    return covered + zlib.crc32(covered).to_bytes(_SUM, "little")
