"""Every second of a run is counted once, under the innermost name."""

import pytest

from transformer.io.goodput import Goodput


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_inner_time_is_not_counted_twice(clock):
    goodput = Goodput(clock)
    clock.now += 10
    with goodput.spent("training"):
        clock.now += 60
        with goodput.spent("saving"):
            clock.now += 5
        clock.now += 20
        with goodput.spent("waiting for data"):
            clock.now += 5
    assert goodput.line() == (
        "goodput of 1 min 40 s: training 80.0%, saving 5.0%, waiting for data 5.0%, other 10.0%"
    )


def test_an_error_inside_is_counted_too(clock):
    goodput = Goodput(clock)
    with pytest.raises(OSError), goodput.spent("saving"):
        clock.now += 5
        raise OSError
    with goodput.spent("training"):
        clock.now += 5
    assert goodput.line() == "goodput of 10 s: training 50.0%, saving 50.0%"
