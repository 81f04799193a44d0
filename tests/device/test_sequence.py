"""The source's positions divided over a mesh: a program with simulated devices, in a process of its own."""

import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

# data x fsdp x tensor x sequence: positions beside every other way to divide the work, and alone.
EVERY_DAY, NOW_AND_THEN = ("1x2x2x2",), ("1x1x1x8", "2x1x1x4")
SCRIPT = pathlib.Path(__file__).with_name("sequence_sharding.py")


@functools.cache
def found(*words: str) -> dict[str, Any]:
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    path = os.pathsep.join(filter(None, (str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["devices"] == 8
    return report


@pytest.mark.parametrize(
    "mesh", [*EVERY_DAY, *(pytest.param(mesh, marks=pytest.mark.slow) for mesh in NOW_AND_THEN)]
)
def test_loss_and_gradients_with_dropout_equal_one_device(mesh: str) -> None:
    result = found(*(EVERY_DAY if mesh in EVERY_DAY else NOW_AND_THEN))[mesh]
    assert result["loss"] < 1e-5
    assert result["gradients"] < 1e-5


def test_eight_devices_hold_less_than_a_sixth_each() -> None:
    assert 6 * found("plan")["eight"]["bytes"] < found("plan")["alone"]["bytes"]


def test_neighbours_exchange_blocks_and_compressed_keys_are_gathered() -> None:
    kinds = found("plan")["eight"]["collectives"]
    assert kinds["collective-permute"] > 0
    assert kinds["all-gather"] > 0
