"""A file that is appended to while a run lasts, and whose disk may fail without ending the run."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

MOST_WAITING = 10_000  # records kept in memory, a few megabytes
RETRY_EVERY = 10.0  # seconds; a failing network disk may take long to say no


class PatientFile:
    """Records on their way to a file: what cannot be written waits, and is tried again.

    The file never holds a part of a record, but for the moment in which it is written.

    Attributes:
      path: the file; nobody else writes it.
      error: why the last attempt failed; None if all is written.
      waiting: records that are not in the file, oldest first.
      lost: records given up because more than `MOST_WAITING` would have waited.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic, head: bytes = b"") -> None:
        """Names the file, which is made when something is written.

        Args:
          path: the file, new or old.
          clock: returns seconds that only grow.
          head: what an empty file begins with.
        """
        self.path = path
        self.error: OSError | None = None
        self.waiting: deque[bytes] = deque()
        self.lost = 0
        self._clock = clock
        self._head = head
        self._retry_at = -float("inf")
        self._sound: int | None = None  # bytes of whole records, where a torn one may follow

    def append(self, record: bytes) -> None:
        """Writes a record, or lets it wait."""
        if len(self.waiting) == MOST_WAITING:
            self.waiting.popleft()
            self.lost += 1
        self.waiting.append(record)
        self.write_out()

    def write_out(self, at_once: bool = False) -> None:
        """Writes what waits; after a failure only every `RETRY_EVERY` seconds, or `at_once`."""
        now = self._clock()
        if self.error is not None and now < self._retry_at and not at_once:
            return
        try:
            self._write(b"".join(self.waiting))
        except OSError as error:
            self.error, self._retry_at = error, now + RETRY_EVERY
        else:
            self.waiting.clear()
            self.error = None

    def _write(self, data: bytes) -> None:
        """Appends all of `data` or nothing of it; raises OSError."""
        try:
            with self.path.open("ab", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                if self._sound is not None and end > self._sound:
                    end = file.truncate(self._sound)
                self._sound = end
                left = memoryview(data if end else self._head + data)
                while left:
                    left = left[file.write(left) :]
            self._sound = None  # not before it is closed: some file systems fail only then
        except OSError:
            if self._sound is not None:
                with contextlib.suppress(OSError):
                    os.truncate(self.path, self._sound)
            raise
