"""What a safetensors file holds, by its header, which is believed in nothing that the file does not bear out.

Format: eight bytes, little-endian, the length of the header; the header, a JSON object of
{name: {"dtype", "shape", "data_offsets": [begin, end]}}, offsets from its end; the numbers, row by row,
without gaps (https://github.com/huggingface/safetensors).
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transformer.errors import CheckpointError

LARGEST_HEADER = 1 << 23  # bytes; a tensor takes some 120 of them
MOST_TENSORS = 1 << 16
_BLOCK = 1 << 20  # bytes
_SIZES = {  # bytes of a number
    **dict.fromkeys(("BOOL", "I8", "U8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64"), 8),
}
_READ_AS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class StoredTensor(NamedTuple):
    """Where a tensor lies.

    Attributes:
      path: of its file.
      dtype: as safetensors names it, for example "F16".
      shape: of the tensor.
      start: its first byte in the file.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in the file."""
        return math.prod(self.shape) * _SIZES[self.dtype]

    def read(self) -> np.ndarray:
        """Returns a tensor of F32, F16 or BF16 as float32, which holds them exactly."""
        array = np.fromfile(self.path, _READ_AS[self.dtype], math.prod(self.shape), offset=self.start)
        if self.dtype == "BF16":  # the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array.reshape(self.shape).astype(np.float32, copy=False)

    def same(self, other: "StoredTensor") -> bool:
        """Returns whether another tensor has the same numbers, to the bit."""
        if (self.dtype, self.shape) != (other.dtype, other.shape):
            return False
        with self.path.open("rb") as one, other.path.open("rb") as two:
            one.seek(self.start)
            two.seek(other.start)
            for place in range(0, self.nbytes, _BLOCK):
                count = min(_BLOCK, self.nbytes - place)
                if one.read(count) != two.read(count):
                    return False
        return True


def stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Returns what a file holds; only its header is read.

    Raises:
      CheckpointError: if header and file contradict each other, or it is larger than any real one.
    """
    try:
        return _checked(path)
    except (OSError, ValueError, RecursionError) as error:
        message = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: damaged: {message}; get it anew") from None


def _checked(path: Path) -> dict[str, StoredTensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(LARGEST_HEADER, size - 8):
            raise ValueError(
                f"header of {length:,} bytes in a file of {size:,}, at most {LARGEST_HEADER:,} are read"
            )
        content = file.read(length)
    # Before anything is made of them: each has one object and two lists.
    if max(content.count(b"{"), content.count(b"[") // 2, content.count(b",") // 16) > MOST_TENSORS + 1:
        raise ValueError(f"has more than {MOST_TENSORS:,} tensors")
    header = json.loads(content, object_pairs_hook=_once)
    if not isinstance(header, dict):
        raise ValueError("header is no JSON object")
    header.pop("__metadata__", None)
    begin = 8 + length
    spans: list[tuple[int, int, str]] = []
    found = {}
    for name, entry in header.items():
        stored, end = _entry(path, name, entry, begin)
        spans.append((stored.start, begin + end, name))
        found[name] = stored
    place = begin
    for start, end, name in sorted(spans):
        if start != place:
            raise ValueError(f"tensor '{name[:60]}' begins at byte {start}, expected {place}")
        place = end
    if place != size:
        raise ValueError(f"tensors end at byte {place}, the file at {size}")
    return found


def _entry(path: Path, name: str, entry: Any, begin: int) -> tuple[StoredTensor, int]:
    """Returns a tensor's place, and where it ends after the header."""
    told = f"tensor '{name[:60]}'"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise ValueError(f"{told} has no dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _SIZES:
        raise ValueError(f"{told} has dtype {dtype!r:.40}, known are {', '.join(_SIZES)}")
    if not _counts(shape, 8) or not _counts(offsets, 2) or len(offsets) != 2:
        raise ValueError(f"{told} has shape {shape!r:.60} and data_offsets {offsets!r:.60}")
    stored = StoredTensor(path, dtype, tuple(shape), begin + offsets[0])
    if offsets[1] - offsets[0] != stored.nbytes:
        raise ValueError(f"{told} has {offsets[1] - offsets[0]:,} bytes, its shape needs {stored.nbytes:,}")
    return stored, offsets[1]


def _counts(values: Any, most: int) -> bool:
    """Returns whether it is a list of whole numbers that a file's size can have."""
    return (
        isinstance(values, list)
        and len(values) <= most
        and all(isinstance(x, int) and not isinstance(x, bool) and 0 <= x < 1 << 48 for x in values)
    )


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object, in which no name may come twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice in the header")
    return found
