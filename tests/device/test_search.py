"""Eight devices write what one does, a token at a time: simulated devices, in a process of their own."""

import pytest
from eight import report_of_eight

MODELS = "window", "compressed", "additive", "rotary", "shaw", "adaptive", "alone"


@pytest.mark.parametrize("name", ["paper", *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS)])
def test_outputs_are_those_of_one_device(name: str) -> None:
    """Texts of beams and of samples are equal, their log-probabilities up to rounding."""
    report = report_of_eight("search_on_eight.py", name)
    for found in report.values():
        assert found["outputs"] > 1  # there was something to compare
        assert found["others"] == 0
        assert found["apart"] < 1e-4
