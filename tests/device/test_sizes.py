"""Meshes that do not fit, what a dry run says of those that do, and the tables of docs/scaling.md."""

import dataclasses
import pathlib
import re
import runpy

import pytest
from jax.sharding import AbstractMesh

from transformer.config import Config, MeshConfig, ModelConfig, OptimConfig
from transformer.errors import ConfigError
from transformer.io.devices import check_attention, check_lengths, check_sizes, make_mesh
from transformer.model.transformer import Transformer
from transformer.run.dry_run import collective_lines, rows_of_a_step, state_lines
from transformer.steps.collectives import Collective

DOCS = pathlib.Path(__file__).parents[2] / "docs"
MODEL = ModelConfig(d_model=16, d_ff=32, num_heads=4, num_encoder_layers=1, num_decoder_layers=1)
SHAPE = {"data": 2, "fsdp": 4, "tensor": 2}


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((-1, 3, 1), "config.mesh: fsdp x tensor = 3 x 1 = 3 do not divide the 1 devices"),
        ((2, -1, 2), "config.mesh: data x tensor = 2 x 2 = 4 do not divide the 1 devices"),
        ((2, 1, 1), "config.mesh: data x fsdp x tensor = 2 x 1 x 1 = 2 do not make up the 1 devices"),
    ],
)
def test_meshes_that_the_devices_cannot_fill(sizes: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_mesh(MeshConfig(*sizes))


def test_cudnn_is_refused_without_an_nvidia_gpu() -> None:
    mesh, model = make_mesh(MeshConfig()), ModelConfig(attention_implementation="cudnn")
    with pytest.raises(ConfigError, match="'cudnn' needs NVIDIA GPUs, the devices are cpu; choose 'xla'"):
        check_attention(mesh, model)
    check_attention(mesh, ModelConfig())


def test_rows_that_devices_cannot_share() -> None:
    model = dataclasses.replace(MODEL, attention="alternating", attention_radius=64, compression=3)
    mesh = {"data": 1, "fsdp": 1, "tensor": 1, "sequence": 8}
    message = "8 devices cannot share rows of 65536 positions .* choose multiples of 1536, for example 66048"
    with pytest.raises(ConfigError, match=message):
        check_lengths(mesh, model, [3072, 65536])
    check_lengths(mesh, model, [66048])
    check_lengths({"data": 8, "fsdp": 1, "tensor": 1}, model, [65537])


def test_one_size_may_be_what_remains() -> None:
    assert dict(make_mesh(MeshConfig(1, -1, 1)).shape) == {"data": 1, "fsdp": 1, "tensor": 1}


def test_sizes_that_divide() -> None:
    check_sizes(SHAPE, MODEL, {"source": 40, "target": 42})
    check_sizes({"data": 7, "fsdp": 1, "tensor": 1}, MODEL, {"source": 41, "target": 43})


@pytest.mark.parametrize(
    ("model", "pieces", "expected"),
    [
        (
            {"d_model": 18},
            (40, 40),
            ["config.model.d_model: 18 is not divided by config.mesh.fsdp=4; the nearest size that is: 16"],
        ),
        (
            {},
            (8001, 8001),
            [
                "config.tokenizer.vocab_size: source and target vocabulary: 8001 is not divided by "
                "config.mesh.tensor=2; the nearest size that is: 8000"
            ],
        ),
        (
            {"num_heads": 1, "d_ff": 33},
            (40, 41),
            ["num_heads: 1 .* is: 2", "d_ff: 33 .* is: 32", "target .* 41"],
        ),
        # What is advised may be what other sizes allow.
        ({"num_heads": 6, "num_kv_heads": 3, "d_model": 48}, (40, 40), ["num_kv_heads: 3 .* is: 2"]),
        ({"num_heads": 5, "d_model": 20}, (40, 40), ["num_heads: 5 .* is: 4"]),
        (
            {"num_heads": 3, "num_kv_heads": 3, "head_size": 4},
            (40, 40),
            ["num_heads: 3", "kv_heads: 3 .*no size"],
        ),
    ],
)
def test_sizes_that_do_not(model: dict[str, int], pieces: tuple[int, int], expected: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        vocabularies = {"source": pieces[0], "target": pieces[1]}
        check_sizes(SHAPE, dataclasses.replace(MODEL, **model), vocabularies)
    lines = str(error.value).splitlines()
    assert len(lines) == len(expected)
    for line, text in zip(lines, expected, strict=True):
        assert text == line or re.search(text, line)


def test_rows_of_a_step_are_padded_for_mesh_and_parts() -> None:
    mesh = AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"))
    config = Config(optim=OptimConfig(accumulation_steps=3))
    assert rows_of_a_step(config, mesh, 128) == 48  # 4096 positions are 32 rows; 2 x 4 x 3 = 24


def test_a_dry_run_says_what_a_device_holds() -> None:
    """Against the sizes of the paper's layers, divided by hand: kernels by 4 x 2, norms not at all."""
    mesh = AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"))
    config = Config(model=MODEL, optim=OptimConfig(ema_decay=0.9))
    lines = list(state_lines(Transformer(MODEL, 40, 40), config, mesh, 8, 32))
    kernels = 4 * 16 * 16 + 2 * 16 * 32 + 8 * 16 * 16 + 2 * 16 * 32 + 40 * 16
    others = 2 * (32 / 2 + 16) + 5 * 2 * 16
    params = int(4 * (kernels / 8 + others))
    found = {line.rsplit(None, 1)[0].strip(): line.split()[-1] for line in lines if line.strip()}
    assert found["shared/embedding                              (40, 16)    (tensor, fsdp)"] == "320"
    assert found["encoder/layer_0/feed_forward/wi/bias          (32,)       (tensor)"] == "64"
    each = [int(n.replace(",", "")) for name, n in found.items() if "layer_0/" in name or "shared/" in name]
    assert sum(each) == params
    assert found["parameters"] == found["gradients"] == found["moving average"] == f"{params:,}"
    assert found["optimizer"] == f"{2 * params + 8:,}"  # and two counts of steps
    assert found["whole state"] == f"{4 * params + 8:,}"
    assert found["gathered parameters"] == f"{4 * (kernels - 40 * 16) // 2:,}"


def test_a_dry_run_lists_collectives() -> None:
    assert [line.strip() for line in collective_lines([])][1:] == ["none: there is one device"]
    found = [Collective("all-gather", 8, 19, 8000, True), Collective("all-reduce", 2, 3, 1500, False)]
    lines = [line.split() for line in collective_lines(found)]
    assert lines[2] == ["all-gather", "8", "19", "8,000", "7,000"]
    assert lines[3][:6] == ["all-reduce", "2", "3", "1,500", "1,500", "or"]
    assert lines[4] == ["all", "22", "9,500", "8,500"]


def test_predictions_are_those_of_the_document() -> None:
    script = runpy.run_path(str(DOCS / "scaling.py"))
    text = (DOCS / "scaling.md").read_text()
    for kind in ("growing", "fixed"):
        for row in script["predictions"](kind):
            assert f"| {' | '.join(row)} |" in text
    # By hand: 211.8 million parameters, those of kernels sent in bfloat16; 8 devices and NVLink.
    V, D, F = 37_000, 1024, 4096
    kernels, small = 6 * (4 * D * D + 2 * D * F) + 6 * (8 * D * D + 2 * D * F), 6 * 2 * (F + D) + 30 * 2 * D
    sent = 2 * 7 / 8 * (2 * kernels + 4 * V * D + 4 * small)
    assert script["seconds"](script["H100"], {"data": 8, "fsdp": 1, "tensor": 1}, 256)[1] == pytest.approx(
        sent / 450e9
    )
