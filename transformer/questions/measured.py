"""What experiments find, and how it is written."""

import math
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

Place = Mapping[str, str | float]
_FEWEST, _MOST = 5, 100  # times that something is timed, so that one of them is not disturbed
_LONG_ENOUGH = 2.0  # seconds for all of them
_NOWHERE: Place = MappingProxyType({})


class Measured(NamedTuple):
    """A number with its name, or a remark, such as that a model lacks what is asked for.

    Attributes:
      key: of its name in each language, see `texts.py`.
      value: None for a remark.
      unit: the same in all languages: "nat", "%", "ms", or none.
      place: what the name leaves open, such as the layer.
    """

    key: str
    value: float | None = None
    unit: str = ""
    place: Place = _NOWHERE


def written(value: float) -> str:
    """Returns a number as people read it: whole ones whole, others with four digits that count."""
    if math.isfinite(value) and (value == int(value) or abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def milliseconds(*functions: Callable[[], Any]) -> list[float]:
    """Returns the shortest time of each function, taken in turn and equally often, once it is compiled."""
    for function in functions:
        jax.block_until_ready(function())
    rounds: list[list[float]] = []
    while len(rounds) < _FEWEST or (len(rounds) < _MOST and sum(map(sum, rounds)) < _LONG_ENOUGH):
        rounds.append([])
        for function in functions:
            start = time.perf_counter()
            jax.block_until_ready(function())
            rounds[-1].append(time.perf_counter() - start)
    return [1000 * min(times) for times in zip(*rounds, strict=True)]
