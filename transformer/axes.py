"""Axis letters, and the one table that maps them to the mesh.

B rows of a batch, S source or key positions, T target or query positions, D d_model, H heads,
K head size, F d_ff, V vocabulary, W beam width, L stacked layers, N flat tokens; "_" is an axis
that is never sharded.
"""

import re
from typing import Any

import jax
from jax.sharding import PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")

AXES: dict[str, tuple[str, ...]] = {
    "B": ("data", "fsdp"),
    "D": ("fsdp",),
    "H": ("tensor",),
    "F": ("tensor",),
    "V": ("tensor",),
}

# Parameter path -> letters. A stack of scanned layers has one more axis, L, in front.
PARAM_AXES: tuple[tuple[str, str], ...] = (
    (r"embedding$", "VD"),
    (r"positions$", "_D"),
    (r"(query|key|value)/kernel$", "DHK"),
    (r"(query|key|value)/bias$", "HK"),
    (r"out/kernel$", "HKD"),
    (r"wi/kernel$", "DF"),
    (r"wi/bias$", "F"),
    (r"wo/kernel$", "FD"),
    (r"(wo|out)/bias$", "_"),
    (r"norm/(scale|bias)$", "_"),
)


def spec(letters: str) -> PartitionSpec:
    """Returns the PartitionSpec of an array whose axes are `letters`.

    Letters are read from left to right, and each mesh axis is used once.
    """
    used: set[str] = set()
    axes: list[tuple[str, ...] | None] = []
    for letter in letters:
        free = tuple(a for a in AXES.get(letter, ()) if a not in used)
        used.update(free)
        axes.append(free or None)
    return PartitionSpec(*axes)


def param_letters(path: str, ndim: int) -> str:
    """Returns the axis letters of the parameter at `path` ("encoder/layer_0/wi/kernel").

    Raises:
      ValueError: if not exactly one rule matches, or the rank is another.
    """
    found = [letters for pattern, letters in PARAM_AXES if re.search(pattern, path)]
    if len(found) != 1:
        raise ValueError(f"{path}: {len(found)} rules of axes.PARAM_AXES match, expected exactly 1")
    letters = "L" + found[0] if "/layers/" in path else found[0]
    if len(letters) != ndim:
        raise ValueError(f"{path}: rank {ndim}, but axes.PARAM_AXES says {letters}")
    return letters


def param_specs(params: Any) -> Any:
    """Returns a tree of PartitionSpec of the same structure as `params` (arrays or their shapes)."""

    def one(path: tuple[Any, ...], x: Any) -> PartitionSpec:
        return spec(param_letters("/".join(str(k.key) for k in path), x.ndim))

    return jax.tree_util.tree_map_with_path(one, params)


def shard(x: jax.Array, letters: str) -> jax.Array:
    """Constrains `x` to the sharding of `letters`; does nothing outside `jax.set_mesh`.

    Raises:
      ValueError: if the rank differs from the number of letters.
    """
    if x.ndim != len(letters):
        raise ValueError(f"array of rank {x.ndim} named {letters!r}")
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(letters))
