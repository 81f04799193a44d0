"""Products with sharded parameters and look-ups in sharded tables, their communication said outright.

Left to itself XLA sums a weight's gradient over all devices before each throws away all but its
share, sums an input's gradient once for every product that reads it, and copies a table whole to
look up a few rows. Where there is no mesh, each function here is a plain JAX expression.
"""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from transformer.axes import AXES, GATHERED_AXES, ROW_AXES, SEQUENCE, present, product_axes, spec


def _rows_are_divided(x: jax.Array) -> bool:
    """Returns whether the mesh divides the rows of `x`; those of initialisation (one row) it does not."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and x.shape[0] % math.prod(mesh.shape[axis] for axis in ROW_AXES) == 0


def _vary(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """Lets `x` differ along mesh `axes`: its gradient is summed over them here, all uses together."""
    return jax.lax.pcast(x, axes, to="varying") if axes else x


def _ends(kernels: Sequence[jax.Array]) -> list[int]:
    """Returns where each of the kernels but the last one ends, side by side."""
    return list(itertools.accumulate(k.shape[1] for k in kernels))[:-1]


def products(
    x: jax.Array,
    kernels: Sequence[jax.Array],
    letters: str,
    together: bool = False,
    rows: str = "BT",
) -> tuple[jax.Array, ...]:
    """Returns `x` times each kernel.

    On a mesh a kernel is gathered over `fsdp` and its gradient leaves scattered in the same way;
    results, or else the gradient of `x`, are summed over `tensor` once for all kernels.

    Args:
      x: [B, ..., inputs].
      kernels: [inputs, outputs] each, by the same letters.
      letters: the axes of inputs and outputs, as in "D->HK".
      together: as one product with all kernels side by side, which for the few rows of a step of decoding
        takes two thirds of the time of three.
      rows: the axes of `x` before its inputs.
    """
    inputs, outputs = letters.split("->")

    def multiply(x: jax.Array, kernels: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        # As products of plain matrices: for the gradients of an einsum over more axes XLA transposes
        # what it multiplies, which on the CPU takes longer than the product itself.
        sizes = x.shape[: x.ndim - len(inputs)]
        x_NI = x.reshape(math.prod(sizes), -1)
        flat = [k.reshape(x_NI.shape[-1], -1) for k in kernels]
        if together:
            ys = jnp.split(x_NI @ jnp.concatenate(flat, axis=1), _ends(flat), axis=1)
        else:
            ys = [x_NI @ kernel for kernel in flat]
        return tuple(y.reshape(*sizes, *k.shape[len(inputs) :]) for y, k in zip(ys, kernels, strict=True))

    if not _rows_are_divided(x):
        return multiply(x, kernels)

    def local(x: jax.Array, *kernels: jax.Array) -> tuple[jax.Array, ...]:
        axis = (inputs + outputs).index("D")
        x = _vary(x, product_axes(outputs))
        whole = [
            jax.lax.all_gather(_vary(k, AXES["R"]), GATHERED_AXES, axis=axis, tiled=True) for k in kernels
        ]
        return jax.lax.psum(multiply(x, whole), product_axes(inputs))

    rows = present(rows, x.shape)
    kernel = spec(inputs + outputs)
    return jax.shard_map(
        local,
        in_specs=(spec(rows + inputs), *(kernel for _ in kernels)),
        out_specs=tuple(spec(rows + outputs) for _ in kernels),
    )(x, *kernels)


def look_up(table_RXD: jax.Array, ids_BT: jax.Array, letters: str, dtype: str, rows: str = "BT") -> jax.Array:
    """Returns the rows `ids_BT` of a table, [B, T, D].

    On a mesh the table stays where it is: a device looks up its share of D for the ids of its whole
    `fsdp` group, and the group exchanges rows for columns.

    Args:
      table_RXD: what `axes.copies` makes of the table; X is its rows.
      ids_BT: int32 row numbers.
      letters: the axes of the table, "VD" or "_D".
      dtype: of the result; gradients are added up in the table's own.
      rows: the axes of the ids.
    """
    if not _rows_are_divided(ids_BT):
        return table_RXD[0, ids_BT].astype(dtype)
    split = product_axes(letters[0])

    def local(table_RXD: jax.Array, ids_BT: jax.Array) -> jax.Array:
        table_XD = table_RXD[0]
        X = table_XD.shape[0]
        ids_BT = jax.lax.all_gather(ids_BT, GATHERED_AXES, axis=0, tiled=True)
        ids_BT = ids_BT - (jax.lax.axis_index(split) * X if split else 0)
        here_BT1 = ((ids_BT >= 0) & (ids_BT < X))[..., None]
        found_BTD = jnp.where(here_BT1, table_XD[jnp.clip(ids_BT, 0, X - 1)].astype(dtype), 0)
        found_BTD = jax.lax.psum(found_BTD, split)
        return jax.lax.all_to_all(found_BTD, GATHERED_AXES, split_axis=0, concat_axis=2, tiled=True)

    rows = present(rows, ids_BT.shape)
    return jax.shard_map(local, in_specs=(spec("R" + letters), spec(rows)), out_specs=spec(rows + "_"))(
        table_RXD, ids_BT
    )


def neighbour(x_BHSXY: jax.Array, step: int, fill: int) -> jax.Array:
    """Returns for each block of positions the one `step` (-1 or 1) after it, `fill` where there is none.

    On a mesh that divides the blocks, each device sends the one at its edge to the next device.

    Args:
      x_BHSXY: S blocks of X positions.
      step: see there.
      fill: a number.
    """

    def moved(x_BHSXY: jax.Array, edge_BH1XY: jax.Array) -> jax.Array:
        parts = (x_BHSXY[:, :, 1:], edge_BH1XY) if step > 0 else (edge_BH1XY, x_BHSXY[:, :, :-1])
        return jnp.concatenate(parts, axis=2)

    letters = present("BHS__", x_BHSXY.shape)
    if "S" not in letters or not _rows_are_divided(x_BHSXY):
        return moved(x_BHSXY, jnp.full_like(x_BHSXY[:, :, :1], fill))
    mesh = jax.sharding.get_abstract_mesh()
    size = mesh.shape[SEQUENCE]
    if x_BHSXY.shape[1] % math.prod(mesh.shape[axis] for axis in AXES["H"]):
        letters = letters.replace("H", "_")  # what all heads share

    def local(x_BHSXY: jax.Array) -> jax.Array:
        own = x_BHSXY[:, :, :1] if step > 0 else x_BHSXY[:, :, -1:]
        pairs = [(i, i - step) for i in range(size) if 0 <= i - step < size]
        edge = jax.lax.ppermute(own, SEQUENCE, pairs)
        last = jax.lax.axis_index(SEQUENCE) == (size - 1 if step > 0 else 0)
        return moved(x_BHSXY, jnp.where(last, jnp.array(fill, edge.dtype), edge))

    return jax.shard_map(local, in_specs=spec(letters), out_specs=spec(letters))(x_BHSXY)
