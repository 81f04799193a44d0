"""What a run would be, without running it."""

import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from transformer.axes import SEQUENCE
from transformer.config import Config
from transformer.config_mapping import to_dict
from transformer.data.pipeline import row_lengths, side_lengths
from transformer.io.devices import check_attention, check_lengths, check_sizes, make_mesh, row_shards
from transformer.io.standard_error import say
from transformer.io.workdir import Workdir
from transformer.model.size import count_parameters, flops_per_token, memory_estimate
from transformer.model.traffic import parameter_bytes
from transformer.model.transformer import Transformer
from transformer.run.prepare import PreparedData, describe, prepare_data
from transformer.steps.collectives import Collective, collectives, compile_step
from transformer.steps.state import TrainState, init_state, state_shardings, trained_part
from transformer.training.optimizer import make_optimizer


def dry_run(config: Config, root: str | None) -> None:
    """Prints the resolved configuration, what each device holds and sends, FLOPs and data counts.

    Reads all data, and trains a tokenizer if the run has none, in a temporary folder: nothing is
    left behind. On several devices it compiles a training step, without allocating anything.

    Raises:
      ConfigError: if the mesh does not fit the devices or the model; or as `prepare_data`.
    """
    changes = Workdir(root).check_config(config) if root else []
    mesh = make_mesh(config.mesh)
    check_attention(mesh, config.model)
    check_lengths(mesh.shape, config.model, row_lengths(config.data, config.row_length))
    with tempfile.TemporaryDirectory() as scratch:
        workdir = Workdir(scratch)
        if root and Workdir(root).tokenizer.exists():
            shutil.copytree(Workdir(root).tokenizer, workdir.tokenizer)
        data = prepare_data(config, workdir, say)
    vocabularies = data.tokenizer.vocabularies
    check_sizes(mesh.shape, config.model, vocabularies)
    model = Transformer(config.model, *vocabularies.values())
    print(json.dumps(to_dict(config), indent=2, ensure_ascii=False))
    for line in changes:
        print(f"changed: {line}")
    print("\nparameters")
    for part, number in count_parameters(model).items():
        print(f"  {part:<12} {number:>14,}")
    mean = mean_lengths(data)
    if config.is_masked:
        mean[1] *= config.data.mask_rate
    asked = "place that is asked for" if config.model.kind == "encoder_only" else "target token"
    print(
        f"\ntraining FLOPs per {asked}: {flops_per_token(model, *mean):,.0f} "
        f"(mean lengths {mean[0]:.1f} and {mean[1]:.1f} tokens)"
    )
    row_length = config.row_length
    rows = rows_of_a_step(config, mesh, row_length)
    found: list[Collective] = []
    if mesh.size > 1:
        found = collectives(compile_step(model, config, mesh, rows, row_length).as_text() or "")
    for line in (
        *state_lines(model, config, mesh, rows, row_length),
        *collective_lines(found),
        *data_lines(data),
    ):
        print(line)


def rows_of_a_step(config: Config, mesh: Mesh, row_length: int) -> int:
    """Returns the rows of a packed batch, with those of padding that the mesh and its parts need."""
    rows = config.data.batch_tokens // row_length
    return rows + -rows % (row_shards(mesh) * config.optim.accumulation_steps)


def mean_lengths(data: PreparedData) -> list[float]:
    """Returns the mean source and target length of the training pairs, in tokens."""
    train = [count for name, count in data.counts.items() if name.startswith("train")]
    kept = max(sum(count["kept"] for count in train), 1)
    return [sum(count[f"{side}_tokens"] for count in train) / kept for side in ("source", "target")]


def state_lines(model: Transformer, config: Config, mesh: Mesh, rows: int, row_length: int) -> Iterator[str]:
    """Yields a line for each parameter, and the memory that a device needs: exact but for activations."""
    tx = make_optimizer(config.model, config.optim, config.run.num_steps)
    state: TrainState = jax.eval_shape(lambda: init_state(model, tx, config))
    shardings = state_shardings(state, mesh)
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    lines = [("parameter", "shape", "spec", "bytes per device")]
    for (path, x), sharding in zip(leaves, jax.tree.leaves(shardings.params), strict=True):
        name = "/".join(key.key for key in path)
        lines.append((name, str(x.shape), _spec_text(sharding), f"{_bytes(x, sharding):,}"))
    yield "\nstate, mesh " + " x ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    yield from _table(lines)

    optim, own = config.optim, rows // row_shards(mesh) // config.optim.accumulation_steps
    lengths = side_lengths(config.data, row_length)
    held_lengths = lengths[0] // mesh.shape.get(SEQUENCE, 1), lengths[1]
    whole = memory_estimate(model, optim.name, own, *held_lengths, optim.ema_decay > 0, optim.loss_chunk)
    held = {
        "parameters": _tree_bytes(state.params, shardings.params),
        "parameters that stay": _tree_bytes(state.fixed, shardings.fixed),
        "optimizer": _tree_bytes(state.opt_state, shardings.opt_state),
        "moving average": _tree_bytes(state.ema, shardings.ema),
    }
    needed = {
        "whole state": sum(held.values()),
        "gradients": _tree_bytes(*(trained_part(t.params, optim.freeze) for t in (state, shardings))),
        "gathered parameters": round(parameter_bytes(model, mesh.shape)[0]) if mesh.shape["fsdp"] > 1 else 0,
        "activations, about": whole["activations"],  # counted as if tensor were 1
    }
    total = {"total, about": sum(needed.values())}
    positions = " and ".join(str(length) for length in dict.fromkeys(lengths) if length)
    yield f"\nmemory on each device; {own} rows of {positions} positions at a time"
    yield from _table([("", "bytes"), *((k, f"{n:,}") for k, n in (held | needed | total).items())])


def collective_lines(found: Sequence[Collective]) -> Iterator[str]:
    """Yields a line for each kind and group size of collective, and their sum."""
    yield "\ncollectives of one training step"
    if not found:
        yield "  none: there is one device"
        return
    table = [("kind", "devices", "count", "bytes of results", "bytes sent per device")]
    for c in found:
        more = "" if c.known else " or more: in a loop of unknown length"
        table.append((c.kind, f"{c.group_size}", f"{c.count:,}", f"{c.bytes:,}", f"{c.sent:,.0f}{more}"))
    sums = f"{sum(c.bytes for c in found):,}", f"{sum(c.sent for c in found):,.0f}"
    yield from _table([*table, ("all", "", f"{sum(c.count for c in found):,}", *sums)])


def data_lines(data: PreparedData) -> Iterator[str]:
    """Yields what was read, kept and left out."""
    yield "\ndata"
    for name, count in data.counts.items():
        yield f"  {describe(name, count)}"


def _bytes(x: Any, sharding: NamedSharding) -> int:
    return math.prod(sharding.shard_shape(x.shape)) * x.dtype.itemsize


def _tree_bytes(tree: Any, shardings: Any) -> int:
    return sum(jax.tree.leaves(jax.tree.map(_bytes, tree, shardings)))


def _spec_text(sharding: NamedSharding) -> str:
    """Returns the mesh axes of each array axis: "(tensor, fsdp)", "-" where it is not divided."""
    axes = (axis if isinstance(axis, tuple) else (axis,) for axis in sharding.spec)
    return f"({', '.join('+'.join(a or '-' for a in axis) for axis in axes)})"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yields aligned lines: words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield (
            "  "
            + "  ".join(cell.rjust(w) if cell[:1].isdigit() else cell.ljust(w) for cell, w in cells).rstrip()
        )
