"""Compares the arrays that a checkpoint has with those that a model wants."""

from typing import Any

from transformer.errors import did_you_mean
from transformer.paths import by_path


def find_mismatch(had: Any, wanted: Any) -> str | None:
    """Compares names, shapes and dtypes: Orbax casts, and leaves out, without a word.

    Args:
      had: pytree of what has `shape` and `dtype`.
      wanted: likewise.

    Returns:
      The first difference; None if there is none.
    """
    there, asked = _arrays(had), _arrays(wanted)
    for path, expected in asked.items():
        if path not in there:
            return f"{path} is missing{did_you_mean(path, there)}"
        if there[path] != expected:
            return f"{path} is {there[path]}, expected {expected}"
    unknown = next((path for path in there if path not in asked), None)
    return f"the model has no place for {unknown}" if unknown else None


def _arrays(tree: Any) -> dict[str, str]:
    """Returns "dtype[shape]" by path."""
    return {path: f"{x.dtype}{list(x.shape)}" for path, x in by_path(tree).items()}
