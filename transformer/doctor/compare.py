"""Two runs that should have done the same: where they first differ."""

import dataclasses
import itertools
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from transformer.data.pipeline import TrainingBatch

_SPLITS = {"train", "dev", "skipped"}  # of metrics.jsonl: what steps and evaluations did
_CLOCK = {"tokens_per_second", "data_wait"}  # how fast a step was, not what it did


class Difference(NamedTuple):
    """The first place where two runs differ.

    Attributes:
      step: finished optimizer steps.
      name: what differs.
      whole: its value in the run that was not stopped.
      stopped: its value in the run that was.
    """

    step: int
    name: str
    whole: str
    stopped: str

    def text(self) -> str:
        """Returns the difference in one line."""
        return f"step {self.step}: {self.name} is {self.whole} without a stop, {self.stopped} with one"


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far losses may be apart: by nothing at all, or from some step on by a share of their value.

    Attributes:
      after: the last step that must be the same in every bit.
      relative: largest difference of a later loss, as a share of the larger one.
    """

    after: int
    relative: float


def named_arrays(item: str, tree: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of a pytree by item and path, on the host."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"{item}{jax.tree_util.keystr(path)}": np.asarray(x) for path, x in leaves}


def first_array(
    step: int, whole: Mapping[str, np.ndarray], stopped: Mapping[str, np.ndarray]
) -> Difference | None:
    """Compares arrays bit by bit: NaN equals itself, and 0.0 is not -0.0."""
    for name in [*whole, *(name for name in stopped if name not in whole)]:
        a, b = whole.get(name), stopped.get(name)
        if a is None or b is None or a.dtype != b.dtype or a.shape != b.shape:
            return Difference(step, name, _kind(a), _kind(b))
        if not a.size:
            continue
        x, y = _bytes(a), _bytes(b)
        if np.array_equal(x, y):
            continue
        place = int(np.flatnonzero((x != y).any(1))[0])
        where = ", ".join(map(str, np.unravel_index(place, a.shape)))
        return Difference(step, f"{name}[{where}]", _value(a, place), _value(b, place))
    return None


def _kind(x: np.ndarray | None) -> str:
    return "absent" if x is None else f"{x.dtype} of shape {x.shape}"


def _bytes(x: np.ndarray) -> np.ndarray:
    """Returns uint8 [elements, bytes of one]."""
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8).reshape(x.size, -1)


def _value(x: np.ndarray, place: int) -> str:
    """Returns a value with its bits, which may differ where the decimals do not."""
    bits = _bytes(x)[place][:: -1 if sys.byteorder == "little" else 1].tobytes().hex()
    return f"{x.reshape(-1)[place].item()!r} (0x{bits})"


def first_metric(
    whole: Iterable[Mapping[str, Any]], stopped: Iterable[Mapping[str, Any]], loose: Tolerance | None = None
) -> Difference | None:
    """Compares the lines of two metrics.jsonl, without how long things took.

    Args:
      whole: lines of the run that was not stopped.
      stopped: lines of the other.
      loose: if given, only the loss of the training steps after `loose.after` is compared, by its
        measure; all before it exactly.
    """
    a, b = _by_step(whole), _by_step(stopped)
    for step, split in sorted(a.keys() | b.keys()):
        old, new = a.get((step, split)), b.get((step, split))
        if old is None or new is None:
            lines = ("absent" if values is None else "there" for values in (old, new))
            return Difference(step, f"the line of {split}", *lines)
        later = loose is not None and step > loose.after
        if later and split != "train":
            continue
        for key in ["loss"] if later else [*old, *(key for key in new if key not in old)]:
            x, y = old.get(key, "absent"), new.get(key, "absent")
            if loose is not None and later and math.isclose(x, y, rel_tol=loose.relative):
                continue
            if repr(x) != repr(y):  # nan is nan
                return Difference(step, f"{split} {key}", repr(x), repr(y))
    return None


def _by_step(lines: Iterable[Mapping[str, Any]]) -> dict[tuple[int, str], dict[str, Any]]:
    left_out = _CLOCK | {"split", "step"}
    return {
        (line["step"], line["split"]): {k: v for k, v in line.items() if k not in left_out}
        for line in lines
        if line["split"] in _SPLITS
    }


def first_batch(
    step: int, whole: Sequence[TrainingBatch], stopped: Sequence[TrainingBatch]
) -> Difference | None:
    """Compares batches: the numbers of their pairs (corpus, line), then all their arrays.

    Args:
      step: of the first batch.
      whole: as the data comes from the beginning.
      stopped: as it comes from a saved position.
    """
    for i, (a, b) in enumerate(zip(whole, stopped, strict=True), start=step):
        rows = a.pairs.tolist(), b.pairs.tolist()
        if rows[0] != rows[1]:
            n = next(n for n, (x, y) in enumerate(itertools.zip_longest(*rows)) if x != y)
            x, y = (str(pairs[n]) if n < len(pairs) else "absent" for pairs in rows)
            return Difference(i, f"pair {n} (corpus, number) of its batch", x, y)
        arrays = [dict(zip(x.batch._fields, map(np.asarray, x.batch), strict=True)) for x in (a, b)]
        if found := first_array(i, *arrays):
            return found._replace(name=f"its batch's {found.name}")
    return None


def first_position(step: int, whole: Mapping[str, Any], stopped: Mapping[str, Any]) -> Difference | None:
    """Compares the positions of two checkpoints: steps done, and the state of the data's iterator."""
    for key in ("step", "data"):
        a, b = _leaves(whole.get(key)), _leaves(stopped.get(key))
        for name in [*a, *(name for name in b if name not in a)]:
            x, y = a.get(name, "absent"), b.get(name, "absent")
            if x != y:
                return Difference(step, f"position {key}{name}", x, y)
    return None


def _leaves(value: Any) -> dict[str, str]:
    """Returns the JSON values in a tree of JSON by their paths."""
    leaves = jax.tree_util.tree_leaves_with_path(value)
    return {jax.tree_util.keystr(path): json.dumps(leaf) for path, leaf in leaves}
