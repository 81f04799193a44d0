"""Eight devices write what one does, a token at a time: simulated devices, in a process of their own."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).with_name("search_on_eight.py")
MODELS = "window", "compressed", "additive", "rotary", "shaw", "adaptive", "alone"


@pytest.mark.parametrize("name", ["paper", *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS)])
def test_outputs_are_those_of_one_device(name: str) -> None:
    """Texts of beams and of samples are equal, their log-probabilities up to rounding."""
    root = SCRIPT.parents[2]
    path = os.pathsep.join(filter(None, (str(root), str(root / "tests"), os.environ.get("PYTHONPATH"))))
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), name],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report.pop("devices") == 8
    for found in report.values():
        assert found["outputs"] > 1  # there was something to compare
        assert found["others"] == 0
        assert found["apart"] < 1e-4
