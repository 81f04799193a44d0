"""Eight devices compute what one does: a program with simulated devices, in a process of its own."""

import functools
import json
import subprocess
from typing import Any

import pytest
from eight import run_on_eight

D_MODEL, VOCAB, HEADS = 16, 88, 8  # those of eight_devices.py

# All ways to write 8 as a product of three numbers.
EVERY_DAY = ("2x2x2",)
NOW_AND_THEN = ("1x1x8", "8x1x1", "1x8x1", "4x1x2", "4x2x1", "2x4x1", "2x1x4", "1x4x2", "1x2x4")
SLOW = (pytest.mark.slow, pytest.mark.timeout(1200))
MESHES = pytest.mark.parametrize("mesh", [*EVERY_DAY, *(pytest.param(m, marks=SLOW) for m in NOW_AND_THEN)])


@functools.cache
def train_on(*meshes: str, model: str = "paper") -> subprocess.CompletedProcess[str]:
    """Runs eight_devices.py once, whether it fails or not."""
    timeout = 1100 if meshes == NOW_AND_THEN else 280
    return run_on_eight("eight_devices.py", model, *meshes, timeout=timeout, TF_CPP_MIN_LOG_LEVEL="0")


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
def test_loss_and_gradients_with_dropout_equal_one_device(mesh: str) -> None:
    """Six uneven rows and ten of padding."""
    result = found(mesh)["parts_1"]
    assert result["metrics"] < 1e-5
    assert result["gradients"] < 1e-5


def test_accumulation_equals_that_on_one_device() -> None:
    result = found("2x2x2")["parts_2"]
    assert result["metrics"] < 1e-5
    assert result["gradients"] < 1e-5
    assert result["stays_sharded"]
    assert 8 * result["products"] == result["products_alone"]


@MESHES
def test_evaluation_equals_one_device(mesh: str) -> None:
    assert found(mesh)["eval"] < 1e-5


@MESHES
def test_of_two_likeliest_pieces_the_first_counts_also_from_another_device(mesh: str) -> None:
    assert found(mesh)["ties"] == [True] * (VOCAB // 2) + [False] * (VOCAB // 2)


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
    # The largest array of all, also while the program that makes the state runs, is a share.
    assert result["largest_born"] == VOCAB // tensor * D_MODEL // fsdp
    assert result["parts_1"]["stays_sharded"]


@MESHES
def test_each_product_is_computed_once(mesh: str) -> None:
    """Tokens and pieces, and all else that multiplies: eight devices together do what one does."""
    result = found(mesh)["parts_1"]
    assert 8 * result["products"] == result["products_alone"]


@MESHES
def test_devices_send_what_the_formulas_say(mesh: str) -> None:
    """All collectives of the compiled step against transformer/model/traffic.py, but for single numbers."""
    result = found(mesh)
    assert result["parts_1"]["sent"] == pytest.approx(result["formula"], rel=0.01)


@pytest.mark.slow
def test_parameters_of_other_families_too() -> None:
    """Biases of distances and logits, gates, shared keys, an output table: eight devices as one."""
    done = train_on("2x2x2", model="others")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["2x2x2"]
    assert result["params"] == 0
    assert result["eval"] < 1e-5
    for part in ("parts_1", "parts_2"):
        assert result[part]["metrics"] < 1e-5
        assert result[part]["gradients"] < 1e-5
        assert result[part]["stays_sharded"]
        assert 8 * result[part]["products"] == result[part]["products_alone"]
    assert result["parts_1"]["sent"] == pytest.approx(result["formula"], rel=0.01)
    expected = {
        "encoder/relative_bias": [1, 8, HEADS // 2],
        "decoder/layer_0/feed_forward/wi_linear/kernel": [D_MODEL // 2, 32 // 2],
        "logits_bias": [VOCAB // 2],
        "encoder/layer_0/self_attention/key/kernel": [D_MODEL // 2, 4 // 2, 4],
        "encoder/layer_0/self_attention/score": [HEADS // 2, 4, 4],
    }
    assert {path: result["shapes"][f"params/{path}"] for path in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize("model", ["local", "shaw"])
def test_blocks_and_distances_stay_on_their_devices(model: str) -> None:
    """Loss and gradients with dropout, and nothing is sent or computed for them twice."""
    done = train_on("2x2x2", model=model)
    assert done.returncode == 0, done.stderr
    assert "rematerialization" not in done.stderr.lower()
    result = json.loads(done.stdout)["2x2x2"]
    for part in ("parts_1", "parts_2"):
        assert result[part]["metrics"] < 1e-5
        assert result[part]["gradients"] < 1e-5
        assert 8 * result[part]["products"] == result[part]["products_alone"]
    assert result["parts_1"]["sent"] == pytest.approx(result["formula"], rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "mesh"),
    [
        ("additive", "2x2x2"),
        ("block", "2x2x2"),
        ("compressed", "2x2x2"),
        ("adaptive", "2x2x2"),
        ("alone", "2x2x2"),
        ("multi-query", "4x2x1"),
    ],
)
def test_other_mechanisms_compute_the_same(model: str, mesh: str) -> None:
    """Loss and gradients with dropout, sums of dev, and what is sent."""
    done = train_on(mesh, model=model)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)[mesh]
    assert result["params"] == 0 and result["eval"] < 1e-5
    assert result["parts_1"]["metrics"] < 1e-5
    assert result["parts_1"]["gradients"] < 1e-5
    assert result["parts_1"]["sent"] == pytest.approx(result["formula"], rel=0.01)


@pytest.mark.slow
def test_frames_are_divided_as_rows_are() -> None:
    """Loss, gradients and what is sent; the map of the frames lies divided over `fsdp`."""
    done = train_on("2x2x2", model="frames")
    assert done.returncode == 0, done.stderr
    assert "rematerialization" not in done.stderr.lower()
    result = json.loads(done.stdout)["2x2x2"]
    assert result["params"] == 0 and result["eval"] < 1e-5
    for part in ("parts_1", "parts_2"):
        assert result[part]["metrics"] < 1e-5
        assert result[part]["gradients"] < 1e-5
        assert result[part]["stays_sharded"]
    assert result["shapes"]["params/source/kernel"] == [5, D_MODEL // 2]
    assert result["parts_1"]["sent"] == pytest.approx(result["formula"], rel=0.01)


@pytest.mark.parametrize("meshes", [EVERY_DAY, pytest.param(NOW_AND_THEN, marks=SLOW)], ids="+".join)
def test_nothing_is_rematerialised_to_change_its_sharding(meshes: tuple[str, ...]) -> None:
    done = train_on(*meshes)
    assert done.returncode == 0, done.stderr
    assert "rematerialization" not in done.stderr.lower()
