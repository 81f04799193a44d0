"""Standard error that may fail without anybody noticing: a run goes on when nobody listens any more."""

import io
import os
import sys
from typing import Any


class _Forgiving(io.FileIO):
    """Writes what can be written, and drops the rest: the disk is full, the reader or the terminal gone."""

    def write(self, data: Any, /) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written


def say(message: str) -> None:
    """Writes a line to standard error, where it is seen at once."""
    print(message, file=sys.stderr, flush=True)


def forget_standard_output() -> None:
    """Lets what is left in standard output's buffer go nowhere: at the exit it would be tried once more."""
    os.dup2(nothing := os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os.close(nothing)


def forgive_standard_error() -> None:
    """Lets no write to standard error fail, whoever writes: prints, warnings, tracebacks, the exit itself.

    Descriptors 0 to 2 that were closed are opened on nothing. Else the next files opened would get
    these numbers, and be written to by whatever means to write to standard output or error.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(nothing := os.open(os.devnull, os.O_RDWR), descriptor)
            if nothing != descriptor:
                os.close(nothing)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for as long as the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is sys.__stderr__:  # else somebody, such as a test, listens by other means
        file = io.BufferedWriter(_Forgiving(2, "w", closefd=False))
        sys.stderr = io.TextIOWrapper(file, errors="backslashreplace", line_buffering=True)
