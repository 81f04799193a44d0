"""Parameters in one safetensors file, as exports keep them; a checkpoint of a run has more."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from transformer.errors import CheckpointError
from transformer.io.arrays import put
from transformer.io.digests import find_damage, write_digests
from transformer.io.mismatch import find_mismatch
from transformer.paths import by_path, nested

DTYPES = {  # by their names in the file
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
}


def save_arrays(
    path: Path,
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    dtypes: Mapping[str, str] | None = None,
) -> None:
    """Writes arrays by name, one after the other: of memory it takes one array at a time.

    The largest numbers come first, so that each array begins at a multiple of its numbers' size.

    Args:
      path: of the file.
      arrays: by name; views in whatever order of axes are made contiguous one by one.
      metadata: of the file.
      dtypes: that arrays are written in, by name; the others as they are.
    """
    wanted = {name: np.dtype(DTYPES[dtype]) for name, dtype in (dtypes or {}).items()}
    kinds = {name: wanted.get(name, x.dtype) for name, x in arrays.items()}
    order = sorted(arrays, key=lambda name: (-kinds[name].itemsize, name))
    names = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    place = 0
    for name in order:
        end = place + arrays[name].size * kinds[name].itemsize
        entry = {"dtype": names[kinds[name]], "shape": arrays[name].shape, "data_offsets": [place, end]}
        header[name], place = entry, end
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        for name in order:
            np.ascontiguousarray(arrays[name], kinds[name]).reshape(-1).view(np.uint8).tofile(file)


def write_weights(path: Path, params: Any, step: int) -> None:
    """Writes a parameter tree, each array by its path, and the digest of the file beside it.

    Args:
      path: of the file, in a folder that is still empty.
      params: nested dicts of arrays.
      step: that they are from.
    """
    arrays = {name: np.asarray(x) for name, x in by_path(params).items()}
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
    wanted = by_path(like)
    try:
        with safe_open(path, framework="np") as file:
            step, slices = int(file.metadata()["step"]), {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            had = {
                name: jax.ShapeDtypeStruct(tuple(x.get_shape()), DTYPES[x.get_dtype()])
                for name, x in slices.items()
            }
            if mismatch := find_mismatch(had, like):
                raise CheckpointError(f"{path}: {mismatch}")
            return nested({name: put(file.get_tensor(name), wanted[name]) for name in wanted}), step
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        message = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: cannot be read: {message}; restore it from a copy") from None
