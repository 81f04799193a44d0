"""Eight devices compute what one does: a program with simulated devices, in a process of its own."""

import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = pathlib.Path(__file__).with_name("eight_devices.py")
ROWS, LENGTH, D_MODEL, VOCAB, HEADS = 16, 12, 16, 88, 4  # those of eight_devices.py

EVERY_DAY = ("8x1x1", "2x2x2")
NOW_AND_THEN = ("1x8x1", "4x1x2")
MESHES = pytest.mark.parametrize(
    "mesh", [*EVERY_DAY, *(pytest.param(m, marks=pytest.mark.slow) for m in NOW_AND_THEN)]
)


@functools.cache
def train_on(*meshes: str) -> subprocess.CompletedProcess[str]:
    """Runs eight_devices.py once, whether it fails or not."""
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    path = os.pathsep.join(filter(None, (str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [sys.executable, str(SCRIPT), *meshes],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=280,
    )


def found(mesh: str) -> dict[str, Any]:
    done = train_on(*(EVERY_DAY if mesh in EVERY_DAY else NOW_AND_THEN))
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["devices"] == 8
    return data[mesh]


@MESHES
def test_initial_parameters_are_the_same_numbers(mesh: str) -> None:
    assert found(mesh)["params"] == 0


@MESHES
@pytest.mark.parametrize("parts", [1, 2])
def test_loss_and_gradients_with_dropout_equal_one_device(mesh: str, parts: int) -> None:
    """Six uneven rows and ten of padding, in one part and in two."""
    result = found(mesh)[f"parts_{parts}"]
    assert result["metrics"] < 1e-5
    assert result["gradients"] < 1e-5


@MESHES
def test_evaluation_equals_one_device(mesh: str) -> None:
    assert found(mesh)["eval"] < 1e-5


@MESHES
def test_state_is_born_sharded_and_stays_so(mesh: str) -> None:
    _, fsdp, tensor = map(int, mesh.split("x"))
    result = found(mesh)
    expected = {
        "shared/embedding": [VOCAB // tensor, D_MODEL // fsdp],
        "decoder/layer_0/cross_attention/key/kernel": [
            D_MODEL // fsdp,
            HEADS // tensor,
            D_MODEL // HEADS,
        ],
        "encoder/layer_0/self_attention_norm/scale": [D_MODEL],
    }
    for path, shape in expected.items():
        assert result["shapes"][f"params/{path}"] == shape
        assert result["shapes"][f"moments/{path}"] == shape
    assert result["parts_1"]["stays_sharded"]
    assert result["parts_2"]["stays_sharded"]


@MESHES
@pytest.mark.parametrize("parts", [1, 2])
def test_each_device_computes_its_own_tokens(mesh: str, parts: int) -> None:
    """The logits products of the compiled step hold this device's tokens; sums go over devices."""
    data, fsdp, _ = map(int, mesh.split("x"))
    result = found(mesh)[f"parts_{parts}"]
    assert result["logits_rows"] == [ROWS * LENGTH // (data * fsdp) // parts]
    assert result["all_reduces"] > 0


@pytest.mark.parametrize(
    "meshes", [EVERY_DAY, pytest.param(NOW_AND_THEN, marks=pytest.mark.slow)], ids="+".join
)
def test_nothing_is_rematerialised_to_change_its_sharding(meshes: tuple[str, ...]) -> None:
    done = train_on(*meshes)
    assert done.returncode == 0, done.stderr
    assert "rematerialization" not in done.stderr.lower()
