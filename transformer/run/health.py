"""Is the run still sound? Decides, from what every process knows alike, when to go back."""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from transformer.config import RunConfig
from transformer.errors import DivergedError

_WINDOW = 100  # steps whose mean loss a spike is measured against


class Health:
    """Follows the losses of a run.

    Attributes:
      skipped: updates left out so far because the loss or a gradient was not finite.
      rollbacks: returns to an earlier checkpoint so far.
    """

    def __init__(self, run: RunConfig):
        self._run = run
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._in_a_row = 0
        self.skipped = 0
        self.rollbacks = 0

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, as JSON, so that a run that stops goes on as if it had not."""
        return {"losses": list(self._losses), "in_a_row": self._in_a_row, "skipped": self.skipped}

    def resume(self, rollbacks: int, saved: Mapping[str, Any]) -> None:
        """Goes on from `state` of a checkpoint; of older ones it is empty."""
        self.rollbacks, self.skipped = rollbacks, saved.get("skipped", 0)
        self._in_a_row = saved.get("in_a_row", 0)
        self._losses.extend(saved.get("losses", ()))

    def observe(self, loss: float, skipped: bool) -> str | None:
        """Takes one step's loss (nats a target token) and whether its update was skipped.

        Returns:
          Why the run must go back to a checkpoint, or None if it may go on.
        """
        run = self._run
        if skipped:
            self.skipped += 1
            self._in_a_row += 1
            if self._in_a_row >= run.max_skipped:
                return f"{self._in_a_row} updates in a row were not finite"
            return None
        self._in_a_row = 0
        usual = math.fsum(self._losses) / len(self._losses) if len(self._losses) == _WINDOW else math.inf
        if run.spike_factor and loss > run.spike_factor * usual:
            return f"the loss {loss:.3f} is more than {run.spike_factor:g} times the mean {usual:.3f}"
        self._losses.append(loss)
        return None

    def go_back(self, step: int, why: str) -> None:
        """Counts a return to a checkpoint from `step`.

        Raises:
          DivergedError: if there were `run.max_rollbacks` already.
        """
        if self.rollbacks >= self._run.max_rollbacks:
            raise DivergedError(
                f"step {step}: {why}, and the run has gone back {self.rollbacks} times already; lower "
                "config.optim.learning_rate, raise warmup_steps or set clip_norm; the checkpoints of "
                "earlier steps are kept"
            )
        self.rollbacks += 1
        self._in_a_row = 0
        self._losses.clear()
