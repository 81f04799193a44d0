"""Where the wall time of a run went."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

from transformer.io.progress import duration

TRAINING = "training"
LOST = "lost to faults"
_ORDER = (
    TRAINING,
    "compiling",
    "saving",
    "restoring",
    "evaluating",
    "waiting for data",
    "preparing data",
    LOST,
)


class Goodput:
    """Adds up seconds by what they were spent on; every second is counted once.

    Time that nobody claims (imports, opening files) is "other".
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        """Starts to count; `clock` returns seconds."""
        self._clock = clock
        self._start = clock()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._inside: list[str] = []
        self._since = self._start

    @contextlib.contextmanager
    def spent(self, what: str) -> Iterator[None]:
        """Counts the time inside as `what`; may be nested, and the inner one counts."""
        self._settle()
        self._inside.append(what)
        try:
            yield
        finally:
            self._settle()
            self._inside.pop()

    def line(self) -> str:
        """Returns one line with each share of the wall time, training first."""
        self._settle()
        total = max(self._clock() - self._start, 1e-9)
        other = total - sum(self._seconds.values())
        shares = [(what, self._seconds[what] / total) for what in _ORDER] + [("other", other / total)]
        parts = ", ".join(f"{what} {share:.1%}" for what, share in shares if share >= 0.0005)
        return f"goodput of {duration(total)}: {parts}"

    def _settle(self) -> None:
        now = self._clock()
        if self._inside:
            self._seconds[self._inside[-1]] += now - self._since
        self._since = now
