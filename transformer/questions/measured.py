"""What experiments find, and how it is written."""

import math
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

Place = Mapping[str, str | float]
_REPEATS = 100  # so that one of them is not disturbed on a busy machine
_LONG_ENOUGH = 1.0  # seconds for all of them
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


def milliseconds(function: Callable[..., Any], *args: Any) -> float:
    """Returns the shortest time of a function of arrays, once it is compiled."""
    jax.block_until_ready(function(*args))
    times: list[float] = []
    while not times or (len(times) < _REPEATS and sum(times) < _LONG_ENOUGH):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - start)
    return 1000 * min(times)
