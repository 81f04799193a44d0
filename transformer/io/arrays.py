"""Arrays of a checkpoint without Orbax, whose import alone takes longer than to read a model."""

import json
from pathlib import Path
from typing import Any

import jax
import tensorstore

from transformer.errors import CheckpointError
from transformer.io.checkpoint_folder import unusable
from transformer.io.digests import find_damage
from transformer.io.mismatch import find_mismatch
from transformer.io.save_failures import in_one_line


def read_item(folder: Path, step: int, item: str, like: Any) -> Any:
    """Reads one of the items that `Checkpoints` writes.

    Args:
      folder: of the checkpoints.
      step: one of them.
      item: for example "params".
      like: nested dicts of jax.ShapeDtypeStruct with shardings.

    Returns:
      The arrays, as `like` wants them.

    Raises:
      CheckpointError: if the item's files are damaged, or its arrays have other names, shapes or dtypes.
    """
    where = folder / str(step)
    if not (where / item).exists():
        raise CheckpointError(f"{where}: has no item '{item}'")
    if damage := find_damage(where, [item]):
        raise unusable(folder, step, damage)
    try:
        found = _read((where / item).absolute())
    except (OSError, ValueError, LookupError) as error:
        raise unusable(folder, step, in_one_line(error)) from None
    if mismatch := find_mismatch(found, like):
        raise CheckpointError(f"{where}: {item}: {mismatch}")
    return jax.tree.map(lambda x, wanted: jax.device_put(x, wanted.sharding), found, like)


def _read(folder: Path) -> Any:
    """Returns nested dicts of NumPy arrays: Orbax keeps each in Zarr's form in one OCDBT store."""
    listed = json.loads((folder / "_METADATA").read_text(encoding="utf-8"))["tree_metadata"].values()
    paths = [tuple(part["key"] for part in entry["key_metadata"]) for entry in listed]
    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}}
    opened = [
        tensorstore.open({"driver": "zarr", "kvstore": {**store, "path": ".".join(path)}}, open=True)
        for path in paths
    ]
    reading = [array.result().read() for array in opened]
    tree: dict[str, Any] = {}
    for path, array in zip(paths, reading, strict=True):
        inner = tree
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = array.result()
    return tree
