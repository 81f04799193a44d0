"""Axis letters, and the one table that maps them to the mesh.

B rows of a batch, S source or key positions, T target or query positions, D d_model, H heads, G heads of
keys and values, K head size, F d_ff, V vocabulary, C numbers of a source's frame, W beam width, L stacked
layers, N flat tokens, R copies of a parameter; "_" is an axis that is never sharded, and so is C.

S is divided over the mesh axis `sequence`, which a mesh has only if it is asked for: see `present`. P is
rows of a batch times their parts there.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from transformer.paths import by_path, nested

MESH_AXES = ("data", "fsdp", "tensor")
SEQUENCE = "sequence"

AXES: dict[str, tuple[str, ...]] = {
    "B": ("data", "fsdp"),
    "S": (SEQUENCE,),
    "P": ("data", "fsdp", SEQUENCE),
    "D": ("fsdp",),
    "H": ("tensor",),
    "G": ("tensor",),
    "F": ("tensor",),
    "V": ("tensor",),
    "R": ("data",),
}

# A parameter meets rows: it is gathered over the mesh axes that it shares with them, and lies in
# copies along the others. Axes that are no rows' divide the products.
ROW_AXES = AXES["B"]
GATHERED_AXES = tuple(axis for axis in AXES["D"] if axis in ROW_AXES)

# Parameter path -> letters. A stack of scanned layers has one more axis, L, in front.
PARAM_AXES: tuple[tuple[str, str], ...] = (
    (r"embedding$", "VD"),
    (r"source/kernel$", "CD"),
    (r"source/bias$", "_"),
    (r"positions$", "_D"),
    (r"relative_bias$", "__H"),
    (r"logits_bias$", "V"),
    (r"query/kernel$", "DHK"),
    (r"query/bias$", "HK"),
    (r"(key|value)/kernel$", "DGK"),
    (r"(key|value)/bias$", "GK"),
    (r"attention/score$", "H__"),
    (r"distance_(key|value)$", "_HK"),
    (r"compress_(key|value)$", "_GK_"),
    (r"out/kernel$", "HKD"),
    (r"wi(_linear)?/kernel$", "DF"),
    (r"wi(_linear)?/bias$", "F"),
    (r"wo/kernel$", "FD"),
    (r"(wo|out)/bias$", "_"),
    (r"norm/(scale|bias)$", "_"),
    (r"halting/kernel$", "_"),
    (r"halting/bias$", ""),
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
    whole, adapter, factor = path.rpartition("/lora_")
    found = [letters for pattern, letters in PARAM_AXES if re.search(pattern, whole if adapter else path)]
    if len(found) != 1:
        raise ValueError(f"{path}: {len(found)} rules of axes.PARAM_AXES match, expected exactly 1")
    letters = "L" + found[0] if "/layers/" in path else found[0]
    if adapter:
        stack, inputs, outputs = factor_letters(letters)
        letters = f"{stack}{inputs}_" if factor == "a" else f"{stack}_{outputs}"
    if len(letters) != ndim:
        raise ValueError(f"{path}: rank {ndim}, but axes.PARAM_AXES says {letters}")
    return letters


def factor_letters(letters: str) -> tuple[str, str, str]:
    """Returns the letters of a matrix in three parts: of stacked layers, of its inputs, of its outputs."""
    stack, rest = ("L", letters[1:]) if letters.startswith("L") else ("", letters)
    cut = 2 if rest.startswith("HK") else 1
    return stack, rest[:cut], rest[cut:]


def param_specs(params: Any) -> Any:
    """Returns a tree of PartitionSpec of the same structure as `params` (arrays or their shapes)."""

    return nested({path: spec(param_letters(path, x.ndim)) for path, x in by_path(params).items()})


def shard(x: jax.Array, letters: str) -> jax.Array:
    """Constrains `x` to the sharding of `letters`; does nothing outside `jax.set_mesh`.

    Raises:
      ValueError: if the rank differs from the number of letters.
    """
    if x.ndim != len(letters):
        raise ValueError(f"array of rank {x.ndim} named {letters!r}")
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(present(letters, x.shape)))


def present(letters: str, shape: Sequence[int]) -> str:
    """Returns `letters` with "_" for S where the mesh does not divide so many positions.

    That is without an axis `sequence`, and where its size does not divide them, as in initialisation.
    """
    return letters if "S" in letters and sequence_shards(letters, shape) > 1 else letters.replace("S", "_")


def sequence_shards(letters: str, shape: Sequence[int]) -> int:
    """Returns the number of parts that the mesh divides the axis S of an array into; 1: none."""
    size = jax.sharding.get_abstract_mesh().shape.get(SEQUENCE, 1)
    at = letters.find("S")
    return size if at >= 0 and shape[at] % size == 0 else 1


def product_axes(letters: str) -> tuple[str, ...]:
    """Returns the mesh axes of `letters` that no rows are divided over."""
    return tuple(axis for letter in letters for axis in AXES.get(letter, ()) if axis not in ROW_AXES)


def copies(x: jax.Array, letters: str) -> jax.Array:
    """Returns the parameter `x` with an axis R in front: a copy for each part of the rows that has one.

    No device holds more than without it. Its use is in the backward pass: gradients of a copy are
    added up where they arise, however often it is used, and only then summed over the mesh.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x[None]

    def local(x: jax.Array) -> jax.Array:
        return jax.lax.pcast(x[None], AXES["R"], to="varying")

    return jax.shard_map(local, in_specs=spec(letters), out_specs=spec("R" + letters))(x)
