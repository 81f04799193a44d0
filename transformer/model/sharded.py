"""Products with sharded parameters and look-ups in sharded tables, their communication said outright.

Left to itself XLA sums a weight's gradient over all devices before each throws away all but its
share, sums an input's gradient once for every product that reads it, and copies a table whole to
look up a few rows. Each function here is the plain JAX expression where there is no mesh.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from transformer.axes import AXES, spec

_ROWS = AXES["B"]
_GATHERED = tuple(axis for axis in AXES["D"] if axis in _ROWS)  # of a parameter, before it meets rows


def _rows_are_divided(x: jax.Array) -> bool:
    """Returns whether the mesh divides the rows of `x`; those of initialisation (one row) it does not."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and x.shape[0] % math.prod(mesh.shape[axis] for axis in _ROWS) == 0


def _vary(x: jax.Array, axes: Sequence[str]) -> jax.Array:
    """Lets `x` differ along mesh `axes`: here its gradient is summed over them, and nowhere later."""
    missing = tuple(axis for axis in axes if axis not in jax.typeof(x).vma)
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def _axes_of(letters: str) -> tuple[str, ...]:
    """Returns the mesh axes of `letters` that no row is divided over."""
    return tuple(axis for letter in letters for axis in AXES.get(letter, ()) if axis not in _ROWS)


def products(x: jax.Array, kernels: Sequence[jax.Array], letters: str) -> tuple[jax.Array, ...]:
    """Returns `x` times each kernel.

    On a mesh a kernel is gathered over `fsdp` and its gradient leaves scattered in the same way;
    results, or else the gradient of `x`, are summed over `tensor` once for all kernels.

    Args:
      x: [B, ..., inputs].
      kernels: [inputs, outputs] each, by the same letters.
      letters: the axes of inputs and outputs, as in "D->HK".
    """
    inputs, outputs = letters.split("->")

    def multiply(x: jax.Array, kernels: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        return tuple(jnp.einsum(f"...{inputs},{inputs}{outputs}->...{outputs}", x, k) for k in kernels)

    if not _rows_are_divided(x):
        return multiply(x, kernels)

    def local(x: jax.Array, *kernels: jax.Array) -> tuple[jax.Array, ...]:
        axis = (inputs + outputs).index("D")
        x = _vary(x, _axes_of(inputs + outputs))
        whole = [
            jax.lax.all_gather(_vary(k, _ROWS), _GATHERED, axis=axis, tiled=True) for k in kernels
        ]
        return jax.lax.psum(multiply(x, whole), _axes_of(inputs))

    rows = "B" + "_" * (x.ndim - 1 - len(inputs))
    kernel = spec(inputs + outputs)
    return jax.shard_map(
        local,
        in_specs=(spec(rows + inputs), *(kernel for _ in kernels)),
        out_specs=tuple(spec(rows + outputs) for _ in kernels),
    )(x, *kernels)


def look_up(table: jax.Array, ids_BT: jax.Array, letters: str) -> jax.Array:
    """Returns the rows `ids_BT` of `table`, [B, T, D].

    On a mesh the table stays where it is: a device looks up its share of D for the ids of its whole
    `fsdp` group, and the group exchanges rows for columns.

    Args:
      table: [rows, D].
      ids_BT: int32 row numbers.
      letters: the axes of the table, "VD" or "_D".
    """
    if not _rows_are_divided(ids_BT):
        return table[ids_BT]
    split = _axes_of(letters[0])

    def local(table: jax.Array, ids_BT: jax.Array) -> jax.Array:
        ids_BT = jax.lax.all_gather(ids_BT, _GATHERED, axis=0, tiled=True)
        ids_BT = ids_BT - (jax.lax.axis_index(split) * table.shape[0] if split else 0)
        here_BT1 = ((ids_BT >= 0) & (ids_BT < table.shape[0]))[..., None]
        found_BTD = _vary(table, _ROWS)[jnp.clip(ids_BT, 0, table.shape[0] - 1)]
        found_BTD = jax.lax.psum(jnp.where(here_BT1, found_BTD, 0), split)
        return jax.lax.all_to_all(found_BTD, _GATHERED, split_axis=0, concat_axis=2, tiled=True)

    rows = spec("B__")
    return jax.shard_map(local, in_specs=(spec(letters), spec("B_")), out_specs=rows)(table, ids_BT)
