"""How tensors of transformers lie, and how ours do: linear maps are [outputs, inputs] there, with heads and
their sizes in one axis."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from transformer.axes import param_letters

_STRIP = 64  # rows


def all_names(
    name: Callable[[str, Mapping[str, Any]], str], model: Mapping[str, Any], shapes: Any
) -> dict[str, list[str]]:
    """Returns {path of our parameter: its names}; several for layers whose parameters are one here.

    Args:
      name: a path and the fields of `ModelConfig` -> the name that a family has for it.
      model: those fields.
      shapes: of our parameters.
    """
    found = {}
    for path, x in jax.tree_util.tree_leaves_with_path(shapes):
        theirs = name(joined(path), model)
        found[joined(path)] = [
            theirs.format(layer=i) for i in range(x.shape[0] if "{layer}" in theirs else 1)
        ]
    return found


def our_parameters(
    read: Callable[[str], np.ndarray], names: Mapping[str, list[str]], shapes: Any
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Yields path and values of our parameters, one after the other: memory need not hold all of them.

    Args:
      read: name of one of their tensors -> it, as float32.
      names: our paths -> their names; several are those of layers whose parameters are one here, none
        says that it is zeros.
      shapes: of our parameters.
    """
    for path, wanted in jax.tree_util.tree_leaves_with_path(shapes):
        yield tuple(key.key for key in path), _parameter(read, names[joined(path)], joined(path), wanted)


def _parameter(
    read: Callable[[str], np.ndarray], names: list[str], ours: str, wanted: jax.ShapeDtypeStruct
) -> np.ndarray:
    if not names:
        return np.zeros(wanted.shape, wanted.dtype)
    first, *others = map(read, names)
    array = np.stack([first, *others]) if others else first
    array = _transposed(array) if ours.endswith("kernel") else array
    return np.ascontiguousarray(array.reshape(wanted.shape), wanted.dtype)


def _transposed(matrix: np.ndarray) -> np.ndarray:
    """Returns the transpose, row after row; in strips, which takes an eighth of the time for large ones."""
    result = np.empty(matrix.T.shape, matrix.dtype)
    for i in range(0, len(matrix), _STRIP):
        result[:, i : i + _STRIP] = matrix[i : i + _STRIP].T
    return result


def their_tensors(params: Any, names: Mapping[str, list[str]]) -> dict[str, np.ndarray]:
    """Returns their tensors by name: `our_parameters` the other way, as views of ours.

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
        elif letters in ("HK", "GK"):
            array = array.reshape(-1)
        parts = array if ours.endswith("relative_bias") else [array]
        found.update(zip(names[ours], parts, strict=True))
    return found


def joined(path: tuple[Any, ...]) -> str:
    """Returns a path of keys as text, for example "encoder/layer_0/feed_forward/wi/kernel"."""
    return "/".join(str(key.key) for key in path)
