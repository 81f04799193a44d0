"""Parameters in one safetensors file, as exports keep them; a checkpoint of a run has more."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from transformer.errors import CheckpointError
from transformer.io.digests import find_damage, write_digests
from transformer.io.mismatch import find_mismatch
from transformer.paths import by_path, nested


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes arrays by name."""
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(arrays), path, dict(metadata))
    path.chmod(mode)  # it lets nobody else read


def write_weights(path: Path, params: Any, step: int) -> None:
    """Writes a parameter tree, each array by its path, and the digest of the file beside it.

    Args:
      path: of the file, in a folder that is still empty.
      params: nested dicts of arrays.
      step: that they are from.
    """
    arrays = {name: np.ascontiguousarray(x) for name, x in by_path(params).items()}
    save_arrays(path, arrays, {"step": str(step)})
    write_digests(path.parent)


def read_weights(path: Path, like: Any) -> tuple[Any, int]:
    """Reads what `write_weights` wrote.

    Args:
      path: of the file.
      like: nested dicts of jax.ShapeDtypeStruct with shardings.

    Returns:
      (the arrays as `like` wants them, the step).

    Raises:
      CheckpointError: if the file is damaged, or its arrays have other names, shapes or dtypes.
    """
    if damage := find_damage(path.parent, []):
        raise CheckpointError(f"{path.parent}: {damage}; restore it from a copy of the model")
    try:
        with safe_open(path, framework="np") as file:
            step = int(file.metadata()["step"])
            tree = nested({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        message = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: cannot be read: {message}; restore it from a copy") from None
    if mismatch := find_mismatch(tree, like):
        raise CheckpointError(f"{path}: {mismatch}")
    return jax.tree.map(lambda x, wanted: jax.device_put(x, wanted.sharding), tree, like), step
