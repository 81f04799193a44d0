"""Which dev scores are better than others."""

import math
from collections.abc import Mapping

Metrics = dict[str, float]


def lower_is_better(metric: str) -> bool:
    """Returns whether a smaller value of a dev metric is the better one."""
    return metric == "nll"


def is_better(metric: str, value: float, than: float) -> bool:
    """Returns whether one value of a dev metric is truly better than another."""
    return value < than if lower_is_better(metric) else value > than


def ranked(scored: Mapping[int, Metrics], metric: str) -> list[int]:
    """Returns the steps that have a metric, the best first; of equals the newest."""
    sign = 1 if lower_is_better(metric) else -1
    known = {s: sign * m[metric] for s, m in scored.items() if not math.isnan(m.get(metric, math.nan))}
    return sorted(known, key=lambda s: (known[s], -s))
