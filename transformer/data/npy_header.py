"""The header of a NumPy array (.npy): matched, and never evaluated.

Format: a magic string, the length of the header, and a Python literal with dtype, order and shape before the
numbers (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html). So nothing of a file is
ever run, and arrays of Python objects, which are pickles, are arrays of a dtype that nobody here reads.
"""

import re
import struct
from typing import NamedTuple

LARGEST = 10 + (1 << 10)  # bytes; real headers have 128
_HEADER = re.compile(
    r"\{'descr': '([^']{1,20})', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,15}, ?)*\d{0,15})\),? ?\}\s*"
)


class Header(NamedTuple):
    """What a header says.

    Attributes:
      dtype: as NumPy writes it, for example "<f4".
      fortran: whether the first axis is the fastest one.
      shape: of the array.
      size: bytes before the numbers.
    """

    dtype: str
    fortran: bool
    shape: tuple[int, ...]
    size: int


def read_header(beginning: bytes) -> Header:
    """Returns what the header says that `beginning` starts with, `LARGEST` bytes of the file or all of them.

    Raises:
      ValueError: if there is none, or it is not understood; what follows the file's name in a message.
    """
    if beginning[:8] != b"\x93NUMPY\1\0" or len(beginning) < 10:
        raise ValueError("is no array of NumPy's format 1.0")
    (length,) = struct.unpack("<H", beginning[8:10])
    header = beginning[10 : 10 + length].decode("latin-1")
    if 10 + length > min(LARGEST, len(beginning)) or not (match := _HEADER.fullmatch(header)):
        raise ValueError(f"has a header that is not understood: {header[:80]!r}")
    shape = tuple(map(int, re.findall(r"\d+", match[3])))
    return Header(match[1], match[2] == "True", shape, 10 + length)
