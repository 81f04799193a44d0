"""SIGTERM and Ctrl-C as requests to stop after the current step."""

import contextlib
import os
import signal
import threading
import types
from collections.abc import Callable, Iterator
from typing import NoReturn

from transformer.errors import Interrupted, Preempted, UserError
from transformer.io.standard_error import say

_GRACE = 3.0  # seconds that Python code gets to react where a stop takes effect at once


class StopRequest:
    """While entered, the first SIGTERM or SIGINT is remembered; a second one acts as it always does.

    Attributes:
      signal: the signal that arrived, or None.
    """

    def __init__(self, leave: Callable[[UserError], NoReturn] | None = None) -> None:
        """Makes a request that nobody has made yet.

        Args:
          leave: ends this process and the others of its run, from any thread; None: there are no others.
        """
        self._leave = leave
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}
        self._at_once = threading.Event()
        self._handled = threading.Event()

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._remember)
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="signals", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._write)  # ends the watch

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Lets a signal end the program here and now: for work that may be cut short at any point.

        With several processes they all end, whatever they do.

        Raises:
          Preempted, Interrupted: when the signal arrives.
        """
        if self._leave is not None and self.signal:  # in the last step; the others do not know yet
            self._leave(self.error("between steps"))
        self._at_once.set()
        try:
            yield
        finally:
            self._at_once.clear()

    def error(self, where: str) -> UserError:
        """Returns the exception for the signal that arrived; for a peer's, that of SIGTERM."""
        kind = Interrupted if self.signal == signal.SIGINT else Preempted
        name = self.signal.name if self.signal else "a signal to another process"
        return kind(f"stopped by {name} {where}; everything is saved, run the same command again to continue")

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._handled.set()
        self._restore()
        if self._at_once.is_set() and self._leave is None:
            self._at_once.clear()
            raise self.error("between steps")

    def _watch(self) -> None:
        """Ends the program where a signal should, but its handler cannot run: inside a long compilation.

        The system writes the signal's number to the pipe when it arrives; Python calls the handler
        only when the main thread is back from C++.
        """
        while number := os.read(self._read, 1):
            if number[0] not in (signal.SIGTERM, signal.SIGINT):
                continue
            # Of several processes this thread does it: the others must be told, which is nothing for a
            # handler that may have interrupted the main thread while it spoke to them.
            if self._leave is None and self._handled.wait(_GRACE):
                continue
            if self._at_once.is_set():
                self.signal = signal.Signals(number[0])
                error = self.error("between steps")
                if self._leave is not None:
                    self._leave(error)
                say(f"transformer: error: {error}")
                os._exit(error.exit_code)
        os.close(self._read)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
