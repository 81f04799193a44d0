"""What a NumPy zip (.npz) holds, by its directory and headers, which are believed in nothing that the file
does not bear out.

Format: a zip of .npy files, each a header with dtype and shape before the numbers (see `npy_header`). Members
are taken as they lie: what is compressed is refused, so that nothing can grow.
"""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from transformer.data.npy_header import LARGEST, read_header
from transformer.errors import CheckpointError
from transformer.exchange.safetensors_file import StoredTensor

_LARGEST_DIRECTORY = 1 << 22  # bytes; a member takes some 100 of them
_BLOCK = 1 << 20  # bytes
_END, _END_64 = b"PK\5\6", b"PK\6\7"
_DTYPES = {"<f4": "F32", "<f2": "F16", "<i1": "I8", "|i1": "I8"}  # Marian says <i1, NumPy |i1


def npz_tensors(path: Path) -> dict[str, StoredTensor]:
    """Returns what a file holds by name; numbers are read only to compare their checksums.

    Raises:
      CheckpointError: if the file contradicts itself, is compressed, or has more in it than any real one.
    """
    try:
        return _checked(path)
    except (OSError, ValueError, LookupError, zipfile.BadZipFile, struct.error, NotImplementedError) as error:
        message = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: damaged: {message}; get it anew") from None


def _checked(path: Path) -> dict[str, StoredTensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(size - 42, 0))
        end = file.read()
        if end[-22:-18] != _END or end[:4] == _END_64:
            raise ValueError("does not end as a zip file of less than 4 GiB does")
        (length,) = struct.unpack("<I", end[-10:-6])
        if length > _LARGEST_DIRECTORY:
            raise ValueError(f"has a directory of {length:,} bytes, at most {_LARGEST_DIRECTORY:,} are read")
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > size:
                raise ValueError("its members are larger than the file: they overlap")
            found = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in found or name == member.filename:
                    raise ValueError(f"member '{member.filename[:60]}' comes twice, or is no .npy")
                found[name] = _member(path, file, member)
    return found


def _member(path: Path, file: BinaryIO, member: zipfile.ZipInfo) -> StoredTensor:
    """Returns where a member's numbers lie."""
    told = f"member '{member.filename[:60]}'"
    file.seek(member.header_offset)
    local = file.read(30)
    signature, flags, method, name_length, extra_length = struct.unpack("<4s2xHH16xHH", local)
    if signature != b"PK\3\4" or flags & 1:
        raise ValueError(f"{told} is not where the directory says, or is encrypted")
    if method or member.compress_type or member.compress_size != member.file_size:
        raise ValueError(f"{told} is compressed, which Marian does not write")
    begin = file.seek(name_length + extra_length, 1)
    try:
        dtype, fortran, shape, size = read_header(file.read(LARGEST))
    except ValueError as error:
        raise ValueError(f"{told} {error}") from None
    if dtype not in _DTYPES or fortran or len(shape) > 8:
        raise ValueError(f"{told} has dtype {dtype}, known are {', '.join(_DTYPES)} in C order")
    stored = StoredTensor(path, _DTYPES[dtype], shape, begin + size)
    if size + stored.nbytes != member.file_size:
        raise ValueError(f"{told} has {member.file_size:,} bytes, its shape needs {stored.nbytes:,}")
    file.seek(begin)
    if _checksum(file, member.file_size) != member.CRC:
        raise ValueError(f"{told} has another checksum than its directory says")
    return stored


def _checksum(file: BinaryIO, size: int) -> int:
    """Returns the CRC-32 of the next bytes."""
    found = 0
    while size > 0:
        block = file.read(min(size, _BLOCK))
        if not block:
            raise ValueError("the file ends before its members do")
        found, size = zlib.crc32(block, found), size - len(block)
    return found
