"""Sources that are no text: vectors, such as pieces of pictures or moments of sound, in files of NumPy.

`NAME.npy` holds float32 numbers [frames, features], all samples one after the other, and `NAME.lengths.npy`
how many frames each sample has, integers [samples]. Where all are equally long, `NAME.npy` alone holds
[samples, frames, features].
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from transformer.data.files import FileFact, PieceFile, open_file
from transformer.data.npy_header import LARGEST, Header, read_header
from transformer.errors import DataError

_FRAMES, _LENGTHS = ("<f4",), ("<i4", "<i8")
_MOST = 1 << 31  # frames of a file: their numbers are kept as int32, as ids are


@dataclasses.dataclass(frozen=True, eq=False)
class Frames:
    """One sample of a file; `numpy.asarray` of it reads float32 [frames, features].

    Attributes:
      file: that it lies in.
      index: of the sample there.
      start: its first frame there.
      length: how many frames it has.
    """

    file: "FrameFile"
    index: int
    start: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.file.read(self.start, self.length).astype(dtype or np.float32, copy=bool(copy))

    def __str__(self) -> str:
        return f"{self.file.path}: sample {self.index + 1} ({self.length} frames)"


class FrameFile:
    """Samples of frames in a file, as `LineFile` is lines: none is read before it is asked for."""

    unit = "sample"

    def __init__(self, path: Path, cache_dir: Path | None = None):
        """Opens the file, and the one with the lengths if there is one.

        Args:
          path: of the frames.
          cache_dir: folder for digests; None: nobody will ask for them.

        Raises:
          DataError: if a file is missing, or holds something else.
        """
        self.path, self._cache_dir, beside = path, cache_dir, lengths_beside(path)
        self._file, header = _open(path, _FRAMES, (2, 3), "float32 [frames, features]")
        self._offset, self._features = header.size, header.shape[-1]
        self._files: tuple[PieceFile, ...] = (self._file,)
        if len(header.shape) == 3 and beside.exists():
            raise DataError(
                f"{beside}: tells lengths, and {path} holds [samples, frames, features], all equally long; "
                "remove one, or save [frames, features]"
            )
        if len(header.shape) == 3:
            samples, each = header.shape[:2]
            lengths = np.full(samples, each)
        elif not beside.exists():
            raise DataError(
                f"{path}: holds [frames, features], and {beside.name} beside it is missing; save there how "
                "many frames each sample has, or save [samples, frames, features]"
            )
        else:
            file, told = _open(beside, _LENGTHS, (1,), "integers [samples]")
            self._files = self._file, file
            lengths = np.frombuffer(file.read_bytes(told.size, file.size - told.size), told.dtype)
            _check_lengths(beside, lengths.astype(np.int64), path, header.shape[0])
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        if self._starts[-1] >= _MOST:
            raise DataError(
                f"{path}: has {self._starts[-1]:,} frames; divide it into files of less than 2^31"
            )

    def __reduce__(self) -> tuple[type["FrameFile"], tuple[Path, Path | None]]:
        """Lets a worker process open the same file."""
        return FrameFile, (self.path, self._cache_dir)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Frames:
        """Returns sample `index`, counted from 0."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: sample {index} of {len(self)}")
        start, end = self._starts[index : index + 2].tolist()
        return Frames(self, index, start, end - start)

    def scan(self, *, skip_undecodable: bool = False) -> Iterator[Frames]:
        """Yields all samples in order; none of them is text that could be no UTF-8."""
        return iter(self)

    def __iter__(self) -> Iterator[Frames]:
        return (self[i] for i in range(len(self)))

    def read(self, start: int, count: int) -> np.ndarray:
        """Returns float32 [count, features] from frame `start` on; raises DataError if they are not there."""
        size = self._features * np.dtype(np.float32).itemsize  # of a frame, in bytes
        content = self._file.read_bytes(self._offset + start * size, count * size)
        return np.frombuffer(content, "<f4").reshape(count, self._features)

    def facts(self, given: str) -> tuple[FileFact, ...]:
        """Returns size and digest of its files under the name that the configuration gives the first one."""
        assert self._cache_dir is not None
        names = given, str(lengths_beside(Path(given)))
        return tuple(
            FileFact(name, file.size, file.sha256(self._cache_dir))
            for name, file in zip(names, self._files, strict=False)
        )


def lengths_beside(path: Path) -> Path:
    """Returns where the lengths of the samples of a file are."""
    return path.with_suffix(".lengths.npy")


def checked(source: Any, features: int, where: str) -> np.ndarray:
    """Returns a source as float32 [frames, features].

    Args:
      source: `Frames`, or an array.
      features: of a frame, as the model has them.
      where: what the source is, for messages.

    Raises:
      DataError: if it is something else, or has a number that is not finite.
    """
    if isinstance(source, str):
        raise DataError(f"{where}: is text, and the model reads frames of {features} numbers; give an array")
    try:
        with np.errstate(over="ignore"):  # infinities are told of below
            frames_SC = np.asarray(source, np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: is no array of numbers: {error}") from None
    if frames_SC.ndim != 2 or frames_SC.shape[1] != features:
        raise DataError(
            f"{where}: is an array {list(frames_SC.shape)}, expected [frames, {features}]: "
            f"config.model.source_features is {features}"
        )
    if not np.isfinite(frames_SC).all():
        row = int(np.flatnonzero(~np.isfinite(frames_SC).all(axis=1))[0])
        raise DataError(f"{where}: frame {row + 1} has a number that is not finite; mend the array")
    return frames_SC


def _open(path: Path, dtypes: tuple[str, ...], ranks: tuple[int, ...], what: str) -> tuple[PieceFile, Header]:
    """Opens an array of one of these dtypes and ranks; raises DataError if it is another."""
    file = open_file(path, f"NumPy file, {what}")
    try:
        header = read_header(file.read_bytes(0, min(file.size, LARGEST)))
    except ValueError as error:
        raise DataError(f"{path}: {error}; save {what} with numpy.save") from None
    if header.dtype not in dtypes or header.fortran or len(header.shape) not in ranks:
        order = ", in Fortran's order" if header.fortran else ""
        raise DataError(
            f"{path}: is an array {list(header.shape)} of dtype {header.dtype}{order}; expected {what}, "
            f"dtype {' or '.join(dtypes)} in C order"
        )
    size = header.size + int(np.prod(header.shape, dtype=object)) * np.dtype(header.dtype).itemsize
    if size != file.size:
        raise DataError(f"{path}: has {file.size:,} bytes, its shape needs {size:,}; get or save it anew")
    return file, header


def _check_lengths(path: Path, lengths: np.ndarray, frames: Path, count: int) -> None:
    """Checks that the samples are all of the frames; raises DataError if not."""
    if len(lengths) and lengths.min() < 0:
        sample = int(lengths.argmin())
        raise DataError(f"{path}: sample {sample + 1} has {lengths[sample]} frames; lengths are 0 or more")
    # A sum of lengths that are too large may come round to the right number.
    if lengths.max(initial=0) > count or lengths.sum() != count:
        raise DataError(
            f"{path}: its samples have {lengths.astype(object).sum():,} frames, {frames} has {count:,}; "
            "save the two together"
        )
