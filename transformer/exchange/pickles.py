"""Tensors of files that PyTorch pickled, read only by a PyTorch that runs nothing of what they say."""

import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from transformer.errors import CheckpointError

_OLDEST = (2, 6)  # before it, weights_only=True could be tricked (CVE-2025-32434)


class PickledTensor(NamedTuple):
    """One of them; its numbers stay in the file until they are read, if the file is a recent one.

    Attributes:
      path: of its file.
      dtype: as safetensors would name it, for example "F16"; empty if it is none that is known here.
      shape: of the tensor.
      tensor: of PyTorch.
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    tensor: Any

    def read(self) -> np.ndarray:
        """Returns the tensor as float32."""
        return np.asarray(self.tensor.detach().float().numpy())

    def same(self, other: "PickledTensor") -> bool:
        """Returns whether another tensor has the same numbers."""
        return (self.dtype, self.shape) == (other.dtype, other.shape) and bool(
            (self.tensor == other.tensor).all()
        )


def pickled_tensors(path: Path) -> dict[str, PickledTensor]:
    """Returns what a file holds, by `torch.load(weights_only=True)`.

    Raises:
      CheckpointError: if there is no recent PyTorch, or the file is anything but tensors by name.
    """
    remedy = "pip install 'torch>=2.6', or convert it to model.safetensors elsewhere"
    try:
        import torch
    except ImportError:
        raise CheckpointError(f"{path}: to read it needs PyTorch: {remedy}") from None
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < _OLDEST:
        raise CheckpointError(f"{path}: PyTorch {torch.__version__} reads pickles less safely: {remedy}")
    names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    try:
        mapped = zipfile.is_zipfile(path)  # older files cannot be
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # of pickle, zip files and PyTorch, of many kinds
        message = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: cannot be read as tensors alone: {message}; get it anew") from None
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(x, torch.Tensor) for name, x in found.items()
    ):
        raise CheckpointError(f"{path}: holds something else than tensors by name; convert it elsewhere")
    return {name: PickledTensor(path, names.get(x.dtype, ""), tuple(x.shape), x) for name, x in found.items()}
