"""What a person sees of long work, on standard error: a live line on a terminal, plain lines elsewhere."""

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

LIVE_EVERY = 0.1  # seconds between redrawings of the live line
PLAIN_EVERY = 10.0  # seconds between plain lines
TICK_EVERY = 1.0  # seconds between ticks while the program is busy
_ERASE = "\r\x1b[K"  # to the line's start, erase to its end


class Progress:
    """One live line on a terminal; anywhere else plain lines, ten seconds apart at least.

    Attributes:
      paused: seconds spent inside `busy`, which are no training time.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Makes a progress display.

        Args:
          stream: where to write; None: standard error.
          clock: returns seconds that only grow.
        """
        self.paused = 0.0
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._terminal = self._stream.isatty()
        self._lock = threading.RLock()  # the ticking thread writes too, and so may a signal handler
        self._line = ""
        self._busy: list[tuple[str, float]] = []  # innermost last: what, since when
        self._shown_at = -float("inf")

    def note(self, message: str) -> None:
        """Writes a line that stays, above the live line."""
        with self._lock:
            self._write(f"{_ERASE}{message}\n" if self._terminal else f"{message}\n")
            self._draw()

    def show(self, line: str, *, last: bool = False) -> None:
        """Shows how far the run is; skipped when the line before is too young, unless it is the last."""
        now = self._clock()
        if not last and now - self._shown_at < (LIVE_EVERY if self._terminal else PLAIN_EVERY):
            return
        with self._lock:
            self._shown_at, self._line = now, line
            if self._terminal:
                self._draw()
            else:
                self._write(line + "\n")

    @contextlib.contextmanager
    def busy(self, what: str) -> Iterator[None]:
        """Shows what keeps the program from training, and for how long already; may be nested.

        Args:
          what: a participle, such as "compiling".
        """
        start = self._clock()
        done = threading.Event()
        with self._lock:
            self._busy.append((what, start))
            if not self._terminal:
                self._write(f"{what} ...\n")
            self._draw()
        ticker = threading.Thread(target=self._tick, args=(done,), name="progress", daemon=True)
        if self._terminal:
            ticker.start()
        try:
            yield
        finally:
            done.set()
            if self._terminal:
                ticker.join()
            with self._lock:
                self._busy.pop()
                if not self._busy:
                    self.paused += self._clock() - start
                self._draw()

    def close(self) -> None:
        """Leaves the live line behind, complete."""
        with self._lock:
            if self._terminal and self._line:
                self._write("\n")
            self._line = ""

    def _tick(self, done: threading.Event) -> None:
        while not done.wait(TICK_EVERY):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        if not self._terminal:
            return
        if self._busy:
            what, start = self._busy[-1]
            text = f"{what} ... {duration(self._clock() - start)}"
        else:
            text = self._line
        # One column stays free: writing the last one makes some terminals start a new line.
        self._write(_ERASE + text[: self._columns() - 1])

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return shutil.get_terminal_size().columns

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Pace:
    """How far a file is: "translated 512 of 2,000 lines  40.1 lines/s  37 s left".

    Attributes:
      progress: where it is shown, for other notes.
      done: how many of the unit are done.
    """

    def __init__(self, done: str, total: int | None, unit: str = "lines") -> None:
        """Begins to measure.

        Args:
          done: a participle, such as "translated".
          total: of the unit; None: nobody knows.
          unit: what is counted, in the plural.
        """
        self.progress = Progress(clock=time.monotonic)
        self.done = 0
        self._names = done, unit
        self._total = total
        self._start = time.monotonic()

    def add(self, count: int) -> None:
        """Shows that `count` more are done."""
        self.done += count
        done, unit = self._names
        seconds = time.monotonic() - self._start
        whole = "" if self._total is None else f" of {self._total:,}"
        line = f"{done} {self.done:,}{whole} {unit}  {self.done / seconds:,.1f} {unit}/s"
        if self._total is not None and self.done:
            line += f"  {duration((self._total - self.done) * seconds / self.done)} left"
        self.progress.show(line, last=self.done == self._total)


def duration(seconds: float) -> str:
    """Returns "59 s", "3 min 20 s" or "1 h 02 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"
