"""Saves that fail: warned of at once, tolerated twice in a row."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from transformer.errors import CheckpointError
from transformer.io.checkpoint_folder import complete_steps

_MOST = 3  # saves in a row


class SaveFailures:
    """The saves that failed since the last one that did not."""

    def __init__(self, folder: Path, note: Callable[[str], None]):
        self._folder, self._note = folder, note
        self._reasons: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def warn(self, step: int, reason: str) -> None:
        """Tells the user, from whatever thread finds out."""
        self._note(f"warning: step {step} could not be saved: {reason}; the next save tries again")

    def add(self, step: int, reason: str) -> None:
        """Counts a failure.

        Raises:
          CheckpointError: if it is the third in a row.
        """
        self._reasons.append(reason)
        if len(self._reasons) == _MOST:
            raise CheckpointError(
                f"{self._folder}: {_MOST} saves in a row failed, the last after step {step}: {self._rest()}"
            )

    def clear(self) -> None:
        """Counts from nothing again, after a success."""
        self._reasons.clear()

    def close(self) -> None:
        """Ends the count.

        Raises:
          CheckpointError: if the last save failed, and `add` has not raised already.
        """
        if 0 < len(self._reasons) < _MOST:
            raise CheckpointError(f"{self._folder}: the last state could not be saved: {self._rest()}")

    def _rest(self) -> str:
        kept = complete_steps(self._folder)
        last = f"the checkpoint of step {kept[-1]} is kept" if kept else "there is no checkpoint yet"
        return f"{self._reasons[-1]}; {last}; make room or give write access, then run the same command again"


def in_one_line(error: Exception) -> str:
    """Returns what went wrong, in one short line."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    if found := re.search(r"os_error_code='(\d+)'", text):  # TensorStore's way to say so
        return os.strerror(int(found[1]))
    return f"{type(error).__name__}: {text[:300]}"
