"""The source's positions divided over a mesh: a program with simulated devices, in a process of its own."""

import functools
from typing import Any

import pytest
from eight import report_of_eight

# data x fsdp x tensor x sequence: positions beside every other way to divide the work, and alone.
EVERY_DAY, NOW_AND_THEN = ("1x2x2x2",), ("1x1x1x8", "2x1x1x4")


@functools.cache
def found(*words: str) -> dict[str, Any]:
    return report_of_eight("sequence_sharding.py", *words)


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
