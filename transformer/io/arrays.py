"""Arrays of a checkpoint without Orbax, whose import alone takes longer than to read a model.

Orbax keeps an item's arrays in Zarr's form in one OCDBT store, and their paths in `_METADATA`.
"""

import contextlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore

from transformer.errors import CheckpointError
from transformer.io import checkpoint_folder as files
from transformer.io.digests import find_damage, write_digests
from transformer.io.mismatch import find_mismatch
from transformer.io.save_failures import in_one_line
from transformer.io.workdir import write_json
from transformer.paths import by_path, nested

_PART = 1 << 25  # bytes of an array that are written together
_PENDING = 4  # parts that are being written, or arrays that are being read
_KEY_OF_DICT = 2  # as Orbax numbers kinds of keys


def read_item(folder: Path, step: int, item: str, like: Any) -> Any:
    """Reads one of the items that `Checkpoints` writes; memory holds each array once.

    Args:
      folder, step, item: as for `read_arrays`.
      like: nested dicts of jax.ShapeDtypeStruct with shardings.

    Returns:
      The arrays, as `like` wants them.

    Raises:
      CheckpointError: if the item's files are damaged, or its arrays have other names, shapes or dtypes.
    """
    opened, wanted = _opened(folder, step, item), by_path(like)
    had = {path: jax.ShapeDtypeStruct(x.shape, x.dtype.numpy_dtype) for path, x in opened.items()}
    if mismatch := find_mismatch(had, like):
        raise CheckpointError(f"{folder / str(step)}: {item}: {mismatch}")
    return nested({path: put(x, wanted[path]) for path, x in _values(folder, step, opened)})


def read_arrays(folder: Path, step: int, item: str) -> dict[str, np.ndarray]:
    """Reads the arrays of an item as they are.

    Args:
      folder: of the checkpoints.
      step: one of them.
      item: for example "params".

    Returns:
      The arrays by path; places in tuples and names of fields are parts of it, too.

    Raises:
      CheckpointError: if there is no such item, or its files are damaged.
    """
    return dict(_values(folder, step, _opened(folder, step, item)))


def put(array: np.ndarray, like: jax.ShapeDtypeStruct) -> jax.Array:
    """Returns an array on the devices that `like` says; nothing needs the other one any more."""
    return jax.block_until_ready(jax.device_put(array, like.sharding))


def write_params(
    folder: Path, step: int, arrays: Iterable[tuple[tuple[str, ...], np.ndarray]], position: dict[str, Any]
) -> None:
    """Writes a checkpoint of parameters alone, whole or not at all, as `Checkpoints` would.

    Each array is let go of before the next one is asked for, so memory need not hold the model.

    Args:
      folder: of the checkpoints; made if it is not there.
      step: of the checkpoint; there is none of it yet.
      arrays: path and values of each parameter.
      position: JSON values.

    Raises:
      CheckpointError: if the disk does not take it.
    """
    where = files.staging(folder, step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.sweep(folder)
        _write((where / "params").absolute(), arrays)
        write_json(where / "position" / "metadata", position)
        write_digests(where)
        files.publish(folder, step)
    except (OSError, ValueError) as error:  # TensorStore raises both for a full disk
        raise CheckpointError(f"{where}: cannot be written: {in_one_line(error)}") from None


def _write(folder: Path, arrays: Iterable[tuple[tuple[str, ...], np.ndarray]]) -> None:
    context = tensorstore.Context({"file_io_sync": False})  # `write_digests` does it once
    listed: dict[str, Any] = {}
    pending: list[tensorstore.WriteFutures] = []
    try:
        for path, array in arrays:
            keys = [{"key": name, "key_type": _KEY_OF_DICT} for name in path]
            kind = {"value_type": "np.ndarray", "skip_deserialize": False}
            listed[str(path)] = {"key_metadata": keys, "value_metadata": kind}
            rows = min(len(array), max(1, _PART // (array.nbytes // len(array))))
            opened = tensorstore.open(
                {"driver": "zarr", "kvstore": {**_store(folder), "path": ".".join(path)}},
                create=True,
                dtype=array.dtype,
                shape=array.shape,
                chunk_layout=tensorstore.ChunkLayout(chunk_shape=(rows, *array.shape[1:])),
                context=context,
            ).result()
            for start in range(0, len(array), rows):
                part = slice(start, min(start + rows, len(array)))
                pending.append(opened[part].write(array[part]))
                while len(pending) > _PENDING:
                    pending.pop(0).result()
            del array  # before the next one is made
        for future in pending:
            future.result()
    finally:
        for future in pending:
            future.commit.exception()  # waits: the folder may be removed after this
    facts = {"use_ocdbt": True, "use_zarr3": False, "store_array_data_equal_to_fill_value": True}
    write_json(folder / "_METADATA", {"tree_metadata": listed, **facts, "custom_metadata": None})


def _opened(folder: Path, step: int, item: str) -> dict[str, Any]:
    """Returns the arrays of an item by path, not read yet."""
    where = folder / str(step)
    if not (where / item).exists():
        raise CheckpointError(f"{where}: has no item '{item}'")
    if damage := find_damage(where, [item]):
        raise files.unusable(folder, step, damage)
    with _readable(folder, step):
        metadata = json.loads((where / item / "_METADATA").read_text(encoding="utf-8"))
        listed = metadata["tree_metadata"].values()
        arrays = [
            entry for entry in listed if not entry["value_metadata"]["skip_deserialize"]
        ]  # not () or None
        paths = [[part["key"] for part in entry["key_metadata"]] for entry in arrays]
        store = _store((where / item).absolute())
        opening = {
            "/".join(path): tensorstore.open(
                {"driver": "zarr", "kvstore": {**store, "path": ".".join(path)}}, open=True
            )
            for path in paths
        }
        return {path: future.result() for path, future in opening.items()}


def _values(folder: Path, step: int, opened: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields arrays by path, some of which are read ahead."""
    ahead: deque[tuple[str, Any]] = deque()
    with _readable(folder, step):
        for path, array in opened.items():
            ahead.append((path, array.read()))
            if len(ahead) > _PENDING:
                yield _done(*ahead.popleft())
        while ahead:
            yield _done(*ahead.popleft())


def _done(path: str, reading: Any) -> tuple[str, np.ndarray]:
    return path, reading.result()


@contextlib.contextmanager
def _readable(folder: Path, step: int) -> Iterator[None]:
    """Turns what a damaged item raises into a user's error."""
    try:
        yield
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise files.unusable(folder, step, in_one_line(error)) from None


def _store(folder: Path) -> dict[str, Any]:
    return {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}}
