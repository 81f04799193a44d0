"""metrics.jsonl: the numbers of a run, for programs.

One JSON object a line: `split` ("train", "dev", ...), `step` (optimizer steps done), then the values. A split
and step occur once. JSON has no number for NaN and the infinities; they are the strings "nan", "inf" and
"-inf", which `read_metrics` and `float()` turn back.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from transformer.errors import DataError

NAME = "metrics.jsonl"
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class MetricsFile:
    """The file, for the one process that writes it.

    Attributes:
      removed: lines that opening took out, by reason ("after step 100", "damaged"), where there were any.
    """

    def __init__(self, workdir: Path, resume_step: int) -> None:
        """Opens the file; steps that will be done again and damaged lines are taken out, in one atomic move.

        Args:
          workdir: the run's directory.
          resume_step: steps that the restored state has done; 0: a fresh run.
        """
        self.removed: dict[str, int] = {}
        self._path = workdir / NAME
        self._written: set[tuple[str, int]] = set()
        if self._path.exists():
            kept, later, damaged = _rewrite(self._path, lambda entry: entry["step"] <= resume_step)
            counts = {f"after step {resume_step:,}": later, "damaged": damaged}
            self.removed = {reason: count for reason, count in counts.items() if count}
            self._written = {(entry["split"], entry["step"]) for entry in kept}

    def go_back(self, step: int) -> None:
        """Takes out the lines after `step`, all but those that say why ("skipped")."""
        if self._path.exists():
            kept, _, _ = _rewrite(self._path, lambda e: e["step"] <= step or e["split"] == "skipped")
            self._written = {(entry["split"], entry["step"]) for entry in kept}

    def record(self, split: str, step: int, values: Mapping[str, Any]) -> None:
        """Appends one line, or replaces the line of this split and step.

        Args:
          split: what the values are about: "train", "dev", "data", ...
          step: steps done.
          values: numbers, text, lists and mappings of them; NumPy and JAX scalars too.

        Raises:
          ValueError: if `values` has a key "split" or "step", or something that is no JSON.
        """
        if not {"split", "step"}.isdisjoint(values):
            raise ValueError(f"the keys split and step are taken, got {sorted(values)}")
        entry = {"split": split, "step": step, **_jsonable(values)}
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False)
        if (split, step) in self._written:
            _rewrite(self._path, lambda entry: (entry["split"], entry["step"]) != (split, step))
        with self._path.open("ab") as file:
            file.write(line.encode() + b"\n")
        self._written.add((split, step))


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Reads a run's metrics.jsonl, also while the run is writing it.

    Returns:
      The lines in order; "nan", "inf" and "-inf" are floats again.

    Raises:
      DataError: if there is no such file, or a line other than an unfinished last one is damaged.
    """
    path = workdir / NAME
    if not path.exists():
        raise DataError(f"{path}: not found; give the directory of a run that has logged a step")
    *lines, unfinished = path.read_bytes().split(b"\n")
    entries = []
    for number, line in enumerate(lines, start=1):
        entry = _parse(line)
        if entry is None:
            raise DataError(
                f"{path}, line {number}: expected a JSON object with split and step, got {line[:60]!r}; "
                "remove the line, or resume the run, which does so"
            )
        entries.append(entry)
    last = _parse(unfinished)
    return entries if last is None else [*entries, last]


def _rewrite(path: Path, keep: Callable[[dict[str, Any]], bool]) -> tuple[list[dict[str, Any]], int, int]:
    """Drops lines; returns the entries kept and the counts of other lines dropped and of damaged ones.

    A last line without its line end is kept if it holds a whole object, which a torn one never does.
    """
    kept, lines, dropped, damaged = [], [], 0, 0
    content = path.read_bytes()
    for line in content.split(b"\n"):
        entry = _parse(line)
        if entry is None:
            damaged += bool(line)
        elif keep(entry):
            kept.append(entry)
            lines.append(line + b"\n")
        else:
            dropped += 1
    remaining = b"".join(lines)
    if remaining != content:
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("wb") as file:
            file.write(remaining)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    return kept, dropped, damaged


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
