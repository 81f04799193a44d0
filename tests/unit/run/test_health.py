"""When a run must go back, and how often it may."""

import json
import math

import pytest

from transformer.config import RunConfig
from transformer.errors import DivergedError
from transformer.run.health import Health


def test_skipped_updates_in_a_row():
    health = Health(RunConfig(max_skipped=3))
    course = [True, True, False, True, True, True, True]
    found = [health.observe(math.nan if skipped else 2.0, skipped) for skipped in course]
    assert [f is not None for f in found] == [False] * 5 + [True] * 2
    assert found[5] == "3 updates in a row were not finite"
    assert health.skipped == 6


def test_a_spike_is_measured_against_the_mean_of_the_last_100():
    health = Health(RunConfig(spike_factor=2.0))
    assert all(health.observe(loss, False) is None for loss in [3.0] * 99)
    assert health.observe(9.0, False) is None  # too few to know what is usual
    assert all(health.observe(3.0, False) is None for _ in range(100))
    assert health.observe(5.9, False) is None
    assert health.observe(6.2, False) == "the loss 6.200 is more than 2 times the mean 3.029"
    assert health.observe(3.0, False) is None


def test_spikes_are_let_pass_by_default():
    health = Health(RunConfig())
    assert all(health.observe(loss, False) is None for loss in [1.0] * 200 + [1e9])


def test_the_last_rollback_ends_the_run():
    health = Health(RunConfig(max_skipped=2, max_rollbacks=2))
    for _ in range(2):
        assert health.observe(math.nan, True) is None
        why = health.observe(math.nan, True)
        assert why is not None
        health.go_back(70, why)
    assert health.rollbacks == 2
    with pytest.raises(DivergedError, match=r"step 90: 2 updates .* gone back 2 times already; lower config"):
        health.go_back(90, "2 updates in a row were not finite")


def test_a_stop_forgets_nothing():
    sound, bad = (2.0, False), (math.nan, True)
    course = [sound] * 98 + [bad] * 2 + [(9.0, False)] + [bad] * 3 + [sound]
    run = RunConfig(spike_factor=2.0, max_skipped=3)
    for cut in (0, 50, 99, 100, 102, 103):
        health, whole = Health(run), Health(run)
        for i, step in enumerate([sound] * 60 + course):
            if i == cut + 60:
                saved, health = json.loads(json.dumps(health.state())), Health(run)
                health.resume(1, saved)
            assert health.observe(*step) == whole.observe(*step)
        assert (health.skipped, health.rollbacks) == (whole.skipped, 1)


def test_what_was_usual_before_a_rollback_is_forgotten():
    health = Health(RunConfig(spike_factor=2.0))
    for _ in range(100):
        health.observe(1.0, False)
    health.go_back(100, "why")
    assert health.observe(5.0, False) is None
