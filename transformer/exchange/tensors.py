"""Tensors of safetensors files, read one by one; pickles are never opened."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from transformer.errors import CheckpointError
from transformer.exchange.foreign import Foreign

_ONE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = (
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.pt",
    "tf_model.h5",
    "flax_model.msgpack",
)
_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}  # all widen to float32 exactly


class Tensors:
    """All tensors of a folder by name."""

    def __init__(self, foreign: Foreign):
        """Opens the files; only their headers are read.

        Raises:
          CheckpointError: if there are none, or they are damaged.
        """
        self._files: dict[str, Any] = {}
        for path in _paths(foreign):
            try:
                opened = safe_open(path, framework="np")
                for name in opened.keys():  # noqa: SIM118
                    if name in self._files:
                        raise CheckpointError(
                            f"{path}: tensor '{name}' is in another file too; get both anew"
                        )
                    self._files[name] = opened
            except (SafetensorError, OSError) as error:
                message = " ".join(str(error).split())[:200]
                raise CheckpointError(f"{path}: damaged: {message}; get it anew") from None
        self._folder = foreign.folder

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns a tensor's shape."""
        return tuple(self._files[name].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """Returns a tensor's dtype as safetensors names it, for example "F16"."""
        return str(self._files[name].get_slice(name).get_dtype())

    def read(self, name: str) -> np.ndarray:
        """Returns a tensor as float32, which holds all dtypes that are taken exactly.

        Raises:
          CheckpointError: if it has another dtype, or a number that is not finite.
        """
        if self.dtype(name) not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise CheckpointError(f"{self._folder}: {name}: dtype {self.dtype(name)} is not one of {known}")
        array = np.asarray(self._files[name].get_tensor(name), np.float32)
        if not np.isfinite(array).all():
            raise CheckpointError(f"{self._folder}: {name}: has numbers that are not finite; get it anew")
        return array


def cast(array: np.ndarray, dtype: str) -> np.ndarray:
    """Returns an array in a dtype as safetensors names it, rounded where it must be."""
    with np.errstate(over="ignore"):
        return array.astype(_DTYPES[dtype])


def _paths(foreign: Foreign) -> list[Path]:
    """Returns the files with tensors."""
    if foreign.has(_ONE):
        return [foreign.folder / _ONE]
    if foreign.has(_INDEX):
        listed = foreign.json(_INDEX).get("weight_map")
        names = sorted(set(map(str, listed.values()))) if isinstance(listed, dict) else []
        for name in names:
            if Path(name).name != name or not name.endswith(".safetensors") or not foreign.has(name):
                raise CheckpointError(
                    f"{foreign.folder / _INDEX}: names '{name}', expected .safetensors files of the same "
                    "folder; get it anew"
                )
        return [foreign.folder / name for name in names]
    if pickles := [name for name in _PICKLES if foreign.has(name)]:
        raise CheckpointError(
            f"{foreign.folder}: {pickles[0]} is not read, since pickles can run code; where you trust it, "
            f"load the model with transformers, whose save_pretrained(...) writes {_ONE}"
        )
    raise CheckpointError(f"{foreign.folder}: has no {_ONE}; give a folder that save_pretrained wrote")
