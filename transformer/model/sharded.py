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

from transformer.axes import AXES, GATHERED_AXES, ROW_AXES, product_axes, spec


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
    x: jax.Array, kernels: Sequence[jax.Array], letters: str, together: bool = False
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
    """
    inputs, outputs = letters.split("->")

    def multiply(x: jax.Array, kernels: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        # As products of plain matrices: for the gradients of an einsum over more axes XLA transposes
        # what it multiplies, which on the CPU takes longer than the product itself.
        rows = x.shape[: x.ndim - len(inputs)]
        x_NI = x.reshape(math.prod(rows), -1)
        flat = [k.reshape(x_NI.shape[-1], -1) for k in kernels]
        if together:
            ys = jnp.split(x_NI @ jnp.concatenate(flat, axis=1), _ends(flat), axis=1)
        else:
            ys = [x_NI @ kernel for kernel in flat]
        return tuple(y.reshape(*rows, *k.shape[len(inputs) :]) for y, k in zip(ys, kernels, strict=True))

    if not _rows_are_divided(x):
        return multiply(x, kernels)

    def local(x: jax.Array, *kernels: jax.Array) -> tuple[jax.Array, ...]:
        axis = (inputs + outputs).index("D")
        x = _vary(x, product_axes(outputs))
        whole = [
            jax.lax.all_gather(_vary(k, AXES["R"]), GATHERED_AXES, axis=axis, tiled=True) for k in kernels
        ]
        return jax.lax.psum(multiply(x, whole), product_axes(inputs))

    rows = "B" + "_" * (x.ndim - 1 - len(inputs))
    kernel = spec(inputs + outputs)
    return jax.shard_map(
        local,
        in_specs=(spec(rows + inputs), *(kernel for _ in kernels)),
        out_specs=tuple(spec(rows + outputs) for _ in kernels),
    )(x, *kernels)


def look_up(table_RXD: jax.Array, ids_BT: jax.Array, letters: str, dtype: str) -> jax.Array:
    """Returns the rows `ids_BT` of a table, [B, T, D].

    On a mesh the table stays where it is: a device looks up its share of D for the ids of its whole
    `fsdp` group, and the group exchanges rows for columns.

    Args:
      table_RXD: what `axes.copies` makes of the table; X is its rows.
      ids_BT: int32 row numbers.
      letters: the axes of the table, "VD" or "_D".
      dtype: of the result; gradients are added up in the table's own.
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

    return jax.shard_map(local, in_specs=(spec("R" + letters), spec("B_")), out_specs=spec("B__"))(
        table_RXD, ids_BT
    )
