"""Computes the tables of docs/scaling.md.

python docs/scaling.py            predicts step times; nothing is run
python docs/scaling.py measure    compiles a step for 8 simulated devices and reads its HLO; minutes
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence

import jax

from transformer.config import PRESETS, Config, MeshConfig, ModelConfig
from transformer.io.devices import make_mesh
from transformer.model.size import flops_per_token
from transformer.model.traffic import all_reduce, traffic
from transformer.model.transformer import Transformer
from transformer.steps.collectives import collectives, compile_step

ROW_LENGTH = 256
ROWS_A_DEVICE = 32
ROWS_OF_A_BATCH = 2048
MFU = 0.4
BIG = Transformer(ModelConfig(preset="big", **PRESETS["big"], dtype="bfloat16"), 37_000, 37_000)
Mesh = dict[str, int]


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device and its links; published figures, see docs/scaling.md.

    Attributes:
      name: of the chip.
      flops: dense bfloat16 operations a second.
      near: bytes a second that a device sends to the devices of its group of 8.
      far: the same beyond the group.
    """

    name: str
    flops: float
    near: float
    far: float


H100 = Chip("H100 SXM", flops=989e12, near=900e9 / 2, far=400e9 / 8)
V5P = Chip("TPU v5p", flops=459e12, near=4800e9 / 8 / 3, far=4800e9 / 8 / 3)


def layouts(devices: int) -> list[Mesh]:
    """Returns the meshes to compare: one axis for all, and two with a group of 8 inside."""
    groups = devices // 8
    return [
        {"data": devices, "fsdp": 1, "tensor": 1},
        {"data": groups, "fsdp": 8, "tensor": 1},
        {"data": groups, "fsdp": 1, "tensor": 8},
    ]


def seconds(chip: Chip, mesh: Mesh, rows: int) -> tuple[float, float]:
    """Returns (computing, communicating) of one step of the model `BIG`."""
    devices = mesh["data"] * mesh["fsdp"] * mesh["tensor"]
    computing = (
        flops_per_token(BIG, ROW_LENGTH, ROW_LENGTH) * rows * ROW_LENGTH / devices / (MFU * chip.flops)
    )
    sent = traffic(BIG, mesh, rows, ROW_LENGTH)
    if mesh["data"] == devices:  # first within groups of 8, then an eighth each between the groups
        gradients = sent["data"] / all_reduce(devices)
        data = gradients * (all_reduce(8) / chip.near + all_reduce(devices // 8) / 8 / chip.far)
    else:
        data = sent["data"] / chip.far
    return computing, data + (sent["fsdp"] + sent["tensor"]) / chip.near


def predictions(rows_of: str) -> Iterator[tuple[str, ...]]:
    """Yields the rows of a table: batches that grow with the devices ("growing"), or one ("fixed")."""
    yield "chip", "devices", "data x fsdp x tensor", "rows", "computing", "sending", "step", "share computing"
    for chip in (H100, V5P):
        for devices in (8, 64, 512, 4096):
            for mesh in layouts(devices):
                shards = mesh["data"] * mesh["fsdp"]
                rows = ROWS_A_DEVICE * devices if rows_of == "growing" else ROWS_OF_A_BATCH
                rows += -rows % shards
                computing, sending = seconds(chip, mesh, rows)
                low, high = max(computing, sending), computing + sending
                yield (
                    chip.name,
                    f"{devices:,}",
                    " x ".join(map(str, mesh.values())),
                    f"{rows:,}",
                    f"{1e3 * computing:.1f} ms",
                    f"{1e3 * sending:.1f} ms",
                    f"{1e3 * low:.1f} to {1e3 * high:.1f} ms",
                    f"{100 * computing / high:.0f} to {100 * computing / low:.0f} %",
                )


def measurements() -> Iterator[tuple[str, ...]]:
    """Yields the rows of the table of measured and computed traffic on 8 simulated devices."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    sizes = dict(d_model=256, d_ff=1024, num_heads=8, num_encoder_layers=2, num_decoder_layers=2)
    config = Config(model=ModelConfig(**sizes, max_length=128))
    model = Transformer(config.model, 4096, 4096)
    kinds = "all-reduce", "all-gather", "reduce-scatter", "all-to-all"
    yield "data x fsdp x tensor", *kinds, "measured", "formula", "measured / formula"
    for shape in ((8, 1, 1), (1, 8, 1), (2, 2, 2), (4, 1, 2), (1, 1, 8)):
        mesh = make_mesh(MeshConfig(*shape))
        text = compile_step(model, config, mesh, 64, 128).as_text() or ""
        sent = dict.fromkeys(kinds, 0.0)
        for found in collectives(text):
            sent[found.kind] += found.sent
        measured, formula = sum(sent.values()), sum(traffic(model, mesh.shape, 64, 128).values())
        megabytes = (f"{x / 1e6:.3f}" for x in (*sent.values(), measured, formula))
        yield " x ".join(map(str, shape)), *megabytes, f"{measured / formula:.4f}"


def show(table: Iterator[Sequence[str]]) -> None:
    """Prints a table in Markdown."""
    for i, row in enumerate(table):
        print(f"| {' | '.join(row)} |", flush=True)
        if i == 0:
            print("|" + " --- |" * len(row))


if __name__ == "__main__":
    if sys.argv[1:] == ["measure"]:
        show(measurements())
    else:
        for kind in ("growing", "fixed"):
            show(predictions(kind))
            print()
