"""Learning rates against closed formulas, steps counted from 1."""

import math
from typing import Any

import numpy as np
import pytest

from transformer.config import ModelConfig, OptimConfig
from transformer.training.schedule import learning_rate

WARMUP, STEPS, PEAK = 40, 240, 0.02
SCHEDULES = ["inverse_sqrt", "cosine", "linear", "wsd", "constant"]


def rates(schedule: str, **changes: Any) -> np.ndarray:
    """Returns the rate of each step; entry 0 is step 1's."""
    optim = OptimConfig(schedule=schedule, learning_rate=PEAK, warmup_steps=WARMUP, **changes)
    return np.asarray(learning_rate(ModelConfig(), optim, STEPS)(np.arange(STEPS)))


@pytest.mark.parametrize(("d_model", "warmup"), [(512, 4000), (1024, 16_000)])
def test_paper_equation_3(d_model: int, warmup: int) -> None:
    rate = learning_rate(ModelConfig(d_model=d_model), OptimConfig(warmup_steps=warmup), 100_000)
    for step in (1, 2, 100, warmup - 1, warmup, warmup + 1, 50_000, 300_000):
        expected = d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert float(rate(step - 1)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warmup_is_linear_and_reaches_the_peak(schedule: str) -> None:
    found = rates(schedule)
    np.testing.assert_allclose(found[:WARMUP], PEAK * np.arange(1, WARMUP + 1) / WARMUP, rtol=1e-6)
    assert found.max() == pytest.approx(PEAK)
    # No step changes the rate by more than a step of the warm-up, whatever follows.
    assert np.abs(np.diff(found)).max() <= PEAK / WARMUP * (1 + 1e-4)
    assert np.all(np.diff(found[WARMUP - 1 :]) <= 1e-9)


def decay(schedule: str, step: int, end: float) -> float:
    """Returns rate over peak after warm-up."""
    done = (step - WARMUP) / (STEPS - WARMUP)
    last = 0.25 * STEPS
    return {
        "inverse_sqrt": math.sqrt(WARMUP / step),
        "cosine": end + (1 - end) * (1 + math.cos(math.pi * done)) / 2,
        "linear": 1 + (end - 1) * done,
        "wsd": 1.0 if step <= STEPS - last else end + (1 - end) * (STEPS - step) / last,
        "constant": 1.0,
    }[schedule]


@pytest.mark.parametrize("end", [0.0, 0.1])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_after_warmup(schedule: str, end: float) -> None:
    found = rates(schedule, end_ratio=end, decay_fraction=0.25)
    expected = [PEAK * decay(schedule, step, end) for step in range(WARMUP, STEPS + 1)]
    np.testing.assert_allclose(found[WARMUP - 1 :], expected, rtol=2e-6, atol=1e-8)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_ends_at_end_ratio_and_stays_there(schedule: str) -> None:
    optim = OptimConfig(schedule=schedule, learning_rate=PEAK, warmup_steps=WARMUP, end_ratio=0.1)
    rate = learning_rate(ModelConfig(), optim, STEPS)
    assert float(rate(STEPS - 1)) == pytest.approx(0.1 * PEAK, rel=1e-5)
    assert float(rate(STEPS + 50)) == pytest.approx(0.1 * PEAK, rel=1e-5)
