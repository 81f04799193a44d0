"""Tensors of a foreign folder, read one by one."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from transformer.errors import CheckpointError
from transformer.exchange.foreign import Foreign
from transformer.exchange.pickles import pickled_tensors
from transformer.exchange.safetensors_file import stored_tensors

_SAFE, _PICKLE = "model.safetensors", "pytorch_model.bin"
_OTHER_FORMS = ("model.pt", "tf_model.h5", "flax_model.msgpack", "model.npz")
DTYPES = ("F32", "F16", "BF16")  # what widens to float32 exactly


class Tensors:
    """All tensors of a folder by name."""

    def __init__(self, tensors: Mapping[str, Any]):
        """Takes them, not read yet: each a StoredTensor, PickledTensor or MarianTensor."""
        self._tensors = tensors

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def renamed(self, name: str, new: str) -> "Tensors":
        """Returns the same tensors, one of them under another name."""
        return Tensors({new if n == name else n: tensor for n, tensor in self._tensors.items()})

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns a tensor's shape."""
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> str:
        """Returns a tensor's dtype as safetensors names it, for example "F16"."""
        return str(self._tensors[name].dtype)

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor as float32, which holds all dtypes that are taken exactly.

        Raises:
          CheckpointError: if it has a number that is not finite.
        """
        array: np.ndarray = self._tensors[name].read()
        if not np.isfinite(array).all():
            path = self._tensors[name].path
            raise CheckpointError(f"{path}: {name}: has numbers that are not finite; get it anew")
        return array

    def same(self, one: str, other: str) -> bool:
        """Returns whether two tensors hold the same bits."""
        return bool(self._tensors[one].same(self._tensors[other]))


def folder_tensors(foreign: Foreign, prefix: str = "", allow_pickle: bool = False) -> Tensors:
    """Opens the files that transformers wrote; of safetensors only the headers are read.

    Args:
      foreign: the folder.
      prefix: comes before all names if it is before none.
      allow_pickle: PyTorch's files are read where there are no safetensors.

    Raises:
      CheckpointError: if there are none, or they are damaged.
    """
    tensors: dict[str, Any] = {}
    paths, reader = _paths(foreign, allow_pickle)
    for path in paths:
        found = reader(path)
        if twice := tensors.keys() & found.keys():
            raise CheckpointError(f"{path}: tensor '{min(twice)}' is in another file too; get both anew")
        tensors.update(found)
    if not any(name.startswith(prefix) for name in tensors):
        tensors = {prefix + name: tensor for name, tensor in tensors.items()}
    return Tensors(tensors)


def _paths(foreign: Foreign, allow_pickle: bool) -> tuple[list[Path], Callable[[Path], Mapping[str, Any]]]:
    """Returns the files with tensors, and what reads one."""
    if safe := _parts(foreign, _SAFE):
        return safe, stored_tensors
    if pickled := _parts(foreign, _PICKLE):
        if allow_pickle:
            return pickled, pickled_tensors
        raise CheckpointError(
            f"{pickled[0]}: is not read, since pickles can run code; where you trust it, add --allow_pickle "
            f"(PyTorch 2.6 or newer reads it, as tensors alone), or get the model as {_SAFE}"
        )
    if other := [name for name in _OTHER_FORMS if foreign.has(name)]:
        raise CheckpointError(
            f"{foreign.folder}: {other[0]} is not read; load the model with transformers, whose "
            f"save_pretrained(...) writes {_SAFE}"
        )
    raise CheckpointError(f"{foreign.folder}: has no {_SAFE}; give a folder that save_pretrained wrote")


def _parts(foreign: Foreign, name: str) -> list[Path]:
    """Returns the file of that name, or the parts that it was divided into."""
    if foreign.has(name):
        return [foreign.path(name)]
    index, ending = f"{name}.index.json", Path(name).suffix
    if not foreign.has(index):
        return []
    listed = foreign.json(index).get("weight_map")
    names = sorted(set(map(str, listed.values()))) if isinstance(listed, dict) else []
    if not names:
        raise CheckpointError(f"{foreign.folder / index}: names no files; get it anew")
    for part in names:
        if Path(part).name != part or not part.endswith(ending) or not foreign.has(part):
            raise CheckpointError(
                f"{foreign.folder / index}: names '{part[:80]}', expected {ending} files of the same "
                "folder; get it anew"
            )
    return [foreign.path(part) for part in names]
