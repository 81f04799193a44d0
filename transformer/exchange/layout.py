"""How tensors of transformers lie, and how ours do: linear maps are [outputs, inputs] there, with heads and
their sizes in one axis."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from transformer.axes import param_letters


def our_parameters(read: Callable[[str], np.ndarray], names: Mapping[str, list[str]], shapes: Any) -> Any:
    """Returns our parameter tree, one tensor after the other.

    Args:
      read: name of one of their tensors -> it, as float32.
      names: our paths -> their names; several are those of layers whose parameters are one here.
      shapes: of our parameters.
    """

    def one(path: tuple[Any, ...], wanted: jax.ShapeDtypeStruct) -> np.ndarray:
        ours = joined(path)
        first, *others = (read(name) for name in names[ours])
        array = np.stack([first, *others]) if others else first
        array = array.T if ours.endswith("kernel") else array
        return np.ascontiguousarray(array.reshape(wanted.shape), wanted.dtype)

    return jax.tree_util.tree_map_with_path(one, shapes)


def their_tensors(params: Any, names: Mapping[str, list[str]]) -> dict[str, np.ndarray]:
    """Returns their tensors by name: `our_parameters` the other way.

    Args:
      params: our parameter tree.
      names: our paths -> their names.
    """
    found: dict[str, np.ndarray] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(params):
        ours, array = joined(path), np.asarray(x)
        letters = param_letters(ours, array.ndim)
        if ours.endswith("kernel"):  # the inputs are D, F, or heads and their sizes
            array = array.reshape(-1, array.shape[-1]) if letters == "HKD" else array.reshape(len(array), -1)
            array = array.T
        elif ours == "logits_bias":
            array = array[None]
        elif letters == "HK":
            array = array.reshape(-1)
        parts = array if ours.endswith("relative_bias") else [array]
        found.update(zip(names[ours], map(np.ascontiguousarray, parts), strict=True))
    return found


def joined(path: tuple[Any, ...]) -> str:
    """Returns a path of keys as text, for example "encoder/layer_0/feed_forward/wi/kernel"."""
    return "/".join(str(key.key) for key in path)
