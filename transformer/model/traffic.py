"""How much a training step sends between devices: formulas, derived in docs/scaling.md."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from transformer.axes import param_letters, product_axes
from transformer.model.size import FLOAT32, parameter_shapes
from transformer.model.transformer import Transformer


def all_reduce(devices: int) -> float:
    """Returns the bytes that a device sends for each byte of an array that is summed (ring)."""
    return 2 * (devices - 1) / devices


def one_way(devices: int) -> float:
    """Returns the same for each byte of the whole array in an all-gather, reduce-scatter or all-to-all."""
    return (devices - 1) / devices


def traffic(
    model: Transformer, mesh_shape: Mapping[str, int], rows: int, row_length: int
) -> dict[str, float]:
    """Returns the bytes that one device sends in one training step, by mesh axis.

    Left out are single numbers (the loss, norms of gradients). Neither `remat` nor
    `accumulation_steps` is counted: with k parts all but `tensor` is sent k times.

    Args:
      model: the model.
      mesh_shape: size of each mesh axis, `Mesh.shape`.
      rows: rows of the global batch, real or padding.
      row_length: positions of a row, on both sides if there are sources.

    Returns:
      `data` (gradients), `fsdp` (parameters, gradients, embedded rows), `tensor` (activations).
    """
    c = model.config
    data, fsdp, tensor = (mesh_shape[axis] for axis in ("data", "fsdp", "tensor"))
    item = jnp.dtype(c.dtype).itemsize
    kernels, tables, _ = parameter_bytes(model, mesh_shape)
    # Of a layer that recurs XLA sums the gradient of each step over devices, and then those of the steps.
    gradients, _, small = parameter_bytes(model, mesh_shape, each_step=True)
    tokens = rows / (data * fsdp) * row_length
    activations = tokens * c.d_model * item
    output = model.target_vocab * c.d_model / tensor
    sides = 1 if c.kind == "encoder_only" else 1 + c.reads_source  # of a row, that are looked up
    decoder = 4 * sides if c.kind == "decoder_only" else 7
    sums = sum(depth * {"encoder": 4, "decoder": decoder}[stack] for stack, depth in c.stacks.items())
    sent = {
        "data": all_reduce(data) * (gradients + tables) / fsdp,
        # Kernels and the output table are gathered, their gradients scattered (the table's in float32).
        "fsdp": one_way(fsdp) * (kernels + gradients + output * (item + FLOAT32)),
        "tensor": all_reduce(tensor) * (activations * sums + activations + 16 * tokens),
    }
    # Source and target rows: ids gathered, rows exchanged forward and back, summed over pieces.
    looked_up = sides - bool(c.source_features)
    sent["fsdp"] += looked_up * one_way(fsdp) * (FLOAT32 * tokens * fsdp + 2 * activations)
    sent["tensor"] += looked_up * all_reduce(tensor) * activations
    if c.positions == "learned":
        sent["fsdp"] += sides * one_way(fsdp) * (FLOAT32 * tokens * fsdp + 2 * activations)
    # XLA sums gradients of the biases on scores, not those of their table, where all rows have the same.
    if c.positions == "relative" and c.prefix == "none":
        layers = sum(c.stacks.values())
        small += layers * c.num_heads / tensor * row_length**2 * FLOAT32
    sent["data" if data > 1 else "fsdp"] += all_reduce(data * fsdp) * small
    return sent


def parameter_bytes(
    model: Transformer, mesh_shape: Mapping[str, int], each_step: bool = False
) -> tuple[float, float, float]:
    """Returns the bytes of (kernels as computed with, tables, all else), divided over `tensor` alone.

    So much a device holds of kernels that are gathered over `fsdp`. With `each_step` what recurs is counted
    at each of its steps.
    """
    kernels = tables = small = 0.0
    times = model.config.stacks if each_step and model.config.recurrence != "none" else {}
    for path, x in jax.tree_util.tree_leaves_with_path(parameter_shapes(model)):
        name = "/".join(key.key for key in path)
        letters = param_letters(name, x.ndim)
        size = x.size / math.prod(mesh_shape[axis] for axis in product_axes(letters))
        size *= times.get(path[0].key, 1)
        if name.endswith("kernel"):
            kernels += size * jnp.dtype(model.config.dtype).itemsize
        elif "D" in letters:
            tables += size * x.dtype.itemsize
        else:
            small += size * x.dtype.itemsize
    return kernels, tables, small
