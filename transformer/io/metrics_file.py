"""metrics.jsonl: the numbers of a run, for programs.

One JSON object a line: `split` ("train", "dev", ...), `step` (optimizer steps done), then the values. Where a
split and step occur twice the later line counts. JSON has no number for NaN and the infinities; they are the
strings "nan", "inf" and "-inf", which `read_metrics` and `float()` turn back.
"""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transformer.errors import DataError
from transformer.io.patient_file import PatientFile
from transformer.io.workdir import replace_content

NAME = "metrics.jsonl"
Key = tuple[str, int]  # split and step
Keep = Callable[[str, int], bool]
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class MetricsFile(PatientFile):
    """The file, for the one process that takes lines out of it; `add_metrics` adds some beside it.

    Attributes:
      removed: lines that opening took out, by reason ("after step 100", "damaged"), where there were any.
      reached: the last training step that had a line when it was opened; 0: none.
    """

    def __init__(self, workdir: Path, resume_step: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Opens the file; steps that will be done again and damaged lines are taken out, in one atomic move.

        Args:
          workdir: the run's directory.
          resume_step: steps that the restored state has done; 0: a fresh run.
          clock: returns seconds that only grow.
        """
        super().__init__(workdir / NAME, clock)
        self.removed: dict[str, int] = {}
        self.reached = 0
        self._written: set[Key] = set()  # or waiting
        self._kept: list[Keep] = []  # what the file's lines must meet, where that is still to be done
        if self.path.exists():
            content = self.path.read_bytes()
            every = _sift(content, lambda split, step: split == "train")
            self.reached = max((step for _, step in every.lines), default=0)

            def done(split: str, step: int) -> bool:
                # What was skipped stays known, also where the run went back behind it.
                return step <= resume_step or (resume_step > 0 and split == "skipped")

            found = _sift(content, done)
            counts = {f"after step {resume_step:,}": found.dropped, "damaged": found.damaged}
            self.removed = {reason: count for reason, count in counts.items() if count}
            self._written = set(found.lines)
            self._keep(done)
            self.write_out()

    def go_back(self, step: int) -> None:
        """Takes out the lines after `step`, all but those that say why ("skipped")."""
        self._keep(lambda split, n: n <= step or split == "skipped")
        self.write_out()

    def record(self, split: str, step: int, values: Mapping[str, Any]) -> None:
        """Appends one line, or replaces the line of this split and step.

        Args:
          split: what the values are about: "train", "dev", "data", ...
          step: steps done.
          values: numbers, text, lists and mappings of them; NumPy and JAX scalars too.

        Raises:
          ValueError: if `values` has a key "split" or "step", or something that is no JSON.
        """
        line = _line(split, step, values)
        if (split, step) in self._written:
            self._keep(lambda *key: key != (split, step))
        self._written.add((split, step))
        self.append(line)

    def _keep(self, keep: Keep) -> None:
        """Takes other lines out: of those that wait at once, of the file before the next is written."""
        self._kept.append(keep)
        waiting = _sift(b"".join(self.waiting), keep)
        self.waiting = deque(waiting.lines.values())
        self._written = {key for key in self._written if keep(*key)}

    def _write(self, data: bytes) -> None:
        if self._kept:
            _rewrite(self.path, lambda *key: all(keep(*key) for keep in self._kept))
            self._kept, self._sound = [], None
        super()._write(data)


def add_metrics(workdir: Path, split: str, step: int, values: Mapping[str, Any]) -> OSError | None:
    """Adds a line beside a run that may be writing: nothing is taken out, as `MetricsFile.record` has it.

    Returns:
      Why it could not be written; None if it was.
    """
    file, line = PatientFile(workdir / NAME), _line(split, step, values)
    content = file.path.read_bytes() if file.path.exists() else b""
    torn = bool(content) and not content.endswith(b"\n")
    file.append(b"\n" + line if torn else line)
    return file.error


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Reads a run's metrics.jsonl, also while the run is writing it.

    Returns:
      The lines in order, of a split and step the last one; "nan", "inf" and "-inf" are floats again.

    Raises:
      DataError: if there is no such file, or a line other than an unfinished last one is damaged.
    """
    path = workdir / NAME
    if not path.exists():
        raise DataError(f"{path}: not found; give the directory of a run that has logged a step")
    *lines, unfinished = path.read_bytes().split(b"\n")
    entries: dict[Key, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        entry = _parse(line)
        if entry is None:
            raise DataError(
                f"{path}, line {number}: expected a JSON object with split and step, got {line[:60]!r}; "
                "remove the line, or resume the run, which does so"
            )
        _put(entries, entry, entry)
    if (last := _parse(unfinished)) is not None:
        _put(entries, last, last)
    return list(entries.values())


class _Sifted(NamedTuple):
    """Lines to keep by what they are about, and how many others were dropped or damaged."""

    lines: dict[Key, bytes]
    dropped: int
    damaged: int


def _sift(content: bytes, keep: Keep) -> _Sifted:
    """Tells lines to keep from others.

    Of the same split and step the last is kept. A last line without its line end is kept if it holds a whole
    object, which a torn one never does.
    """
    lines: dict[Key, bytes] = {}
    dropped = damaged = 0
    for line in content.split(b"\n"):
        entry = _parse(line)
        if entry is None:
            damaged += bool(line)
        elif keep(entry["split"], entry["step"]):
            _put(lines, entry, line + b"\n")
        else:
            dropped += 1
    return _Sifted(lines, dropped, damaged)


def _put(found: dict[Key, Any], entry: Mapping[str, Any], what: Any) -> None:
    """Adds something about an entry behind all others, and takes out what there was about its like."""
    key = entry["split"], entry["step"]
    found.pop(key, None)
    found[key] = what


def _line(split: str, step: int, values: Mapping[str, Any]) -> bytes:
    if not {"split", "step"}.isdisjoint(values):
        raise ValueError(f"the keys split and step are taken, got {sorted(values)}")
    entry = {"split": split, "step": step, **_jsonable(values)}
    return json.dumps(entry, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _rewrite(path: Path, keep: Keep) -> None:
    """Takes lines out of a file, if there is one with such lines; raises OSError and leaves it then."""
    if not path.exists():
        return
    content = path.read_bytes()
    remaining = b"".join(_sift(content, keep).lines.values())
    if remaining != content:
        replace_content(path, remaining)


def _parse(line: bytes) -> dict[str, Any] | None:
    """Returns the entry that the line holds, or None if it holds none."""
    try:
        entry = json.loads(line, object_hook=_numbers_back)
    except ValueError:  # no JSON, or no UTF-8
        return None
    if isinstance(entry, dict) and isinstance(entry.get("split"), str) and type(entry.get("step")) is int:
        return entry
    return None


def _numbers_back(entry: dict[str, Any]) -> dict[str, Any]:
    return {k: _NOT_FINITE.get(v, v) if isinstance(v, str) else v for k, v in entry.items()}


def _jsonable(value: Any) -> Any:
    """Turns NumPy and JAX scalars into Python's, and numbers that JSON lacks into text."""
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    if isinstance(value, (str, int)) or value is None:
        return value
    number = float(value) if isinstance(value, float) else np.asarray(value).item()
    if isinstance(number, int):
        return number
    if not isinstance(number, float):
        raise ValueError(f"expected a number, text, list or mapping, got {value!r}")
    return number if math.isfinite(number) else str(number)
