"""Lines of text in and out of a command: split on "\\n" alone, in order, as they come."""

import contextlib
import errno
import gzip
import io
import os
import queue
import sys
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from transformer.errors import DataError, did_you_mean
from transformer.io.standard_error import forget_standard_output


def read_lines(path: str | None) -> list[str]:
    """Returns all lines of a file or of standard input for None, plain or of gzip."""
    return [line for block in stream_blocks(path, 4096) for line in block]


def stream_blocks(path: str | None, size: int) -> Iterator[list[str]]:
    """Yields lists of at most `size` lines, each as soon as there is something to yield.

    A thread reads ahead, so that a pipe which sends one line and waits gets its answer, and a file
    is still read in full blocks.

    Args:
      path: a file, plain or of gzip; None reads standard input.
      size: most lines in a block.

    Raises:
      DataError: if the file cannot be read, or a line is not UTF-8 (file, line, byte).
    """
    name = path or "standard input"
    lines: queue.Queue[bytes | OSError | None] = queue.Queue(maxsize=4 * size)
    threading.Thread(target=_read, args=(_open(path), lines), daemon=True).start()
    number, done = 0, False
    while not done:
        block: list[str] = []
        while len(block) < size and not (block and lines.empty()):
            raw = lines.get()
            if raw is None:
                done = True
                break
            if isinstance(raw, OSError):
                raise DataError(f"{name}: cannot be read after line {number}: {raw}")
            number += 1
            block.append(_decode(raw, name, number))
        if block:
            yield block


def is_stream(path: str | None) -> bool:
    """Returns whether what is there can be read but once: standard input, or a pipe."""
    return path is None or (Path(path).exists() and not Path(path).is_file())


def count_lines(path: str | None) -> int | None:
    """Returns how many lines a file has; None for a stream.

    Raises:
      DataError: as `stream_blocks`, and here before any work was done.
    """
    return None if is_stream(path) else sum(map(len, stream_blocks(path, 4096)))


def _read(file: io.BufferedReader, lines: "queue.Queue[bytes | OSError | None]") -> None:
    try:
        with file:
            zipped = file.peek(2)[:2] == b"\x1f\x8b"
            for raw in gzip.GzipFile(fileobj=file) if zipped else file:
                lines.put(raw)
        lines.put(None)
    except (OSError, EOFError, zlib.error) as error:
        lines.put(OSError(str(error)))


def _open(path: str | None) -> io.BufferedReader:
    if path is None:  # Python waits at its end for one who reads from sys.stdin, for us it does not
        return open(sys.stdin.fileno(), "rb", closefd=False)
    file = Path(path)
    try:
        return file.open("rb")
    except FileNotFoundError:
        names = [p.name for p in file.parent.iterdir()] if file.parent.is_dir() else []
        raise DataError(f"{path}: no such file{did_you_mean(file.name, names)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a file of lines") from None


def _decode(raw: bytes, name: str, number: int) -> str:
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    if number == 1:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: line {number} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start} "
            "of the line; convert the file to UTF-8"
        ) from None


def check_output(path: str | None, reading: Sequence[str | None] = ()) -> None:
    """Finds out before any work is done whether a file can be written; it is not touched.

    Args:
      path: of the file; None is standard output.
      reading: files that were or are read, and must not be lost.

    Raises:
      DataError: if it cannot, or is one of those that are read.
    """
    if path is None:
        return
    file = Path(path)
    for other in reading:
        # A terminal may be both.
        if other and file.is_file() and Path(other).is_file() and file.samefile(other):
            raise DataError(f"{path}: is a file that is read; write to another one")
    if file.is_dir():
        raise DataError(f"{path}: is a folder; give the name of a file")
    if not file.parent.is_dir():
        raise DataError(f"{path}: there is no folder {file.parent}; make it first")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise DataError(f"{path}: cannot be written ({os.strerror(errno.EACCES)})")


@contextlib.contextmanager
def line_writer(
    path: str | None, append: bool = False, reading: Sequence[str | None] = ()
) -> Iterator[Callable[[Iterable[str]], None]]:
    """Gives the function that writes lines to a file, or to standard output for None.

    With `append` they come after what the file has already. Else the file is emptied before the first lines,
    or at the end if there are none; not if an error comes first. Every call ends in a flush. A line end
    inside a line would shift all that follow: it becomes a space.

    Args:
      path: of the file.
      append: leaves what it has.
      reading: files that were or are read, and must not be lost.

    Raises:
      DataError: if the file cannot be written, or is one that is read.
    """

    check_output(path, reading)
    held = contextlib.ExitStack()
    files: list[Any] = []

    def write(lines: Iterable[str]) -> None:
        content = "".join(line.replace("\n", " ") + "\n" for line in lines).encode()
        try:
            if not files and path is None:
                files.append(sys.stdout.buffer)
            elif not files:
                opened = Path(str(path)).open("ab" if append else "wb", buffering=0)  # noqa: SIM115 - `held` closes it
                files.append(held.enter_context(opened))
            rest = memoryview(content)
            while rest:  # without a buffer it may take several calls
                rest = rest[files[0].write(rest) :]
            files[0].flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            if path is None:
                forget_standard_output()
            raise DataError(f"{path or 'standard output'}: cannot be written ({error.strerror})") from None

    with held:
        yield write
        write([])
