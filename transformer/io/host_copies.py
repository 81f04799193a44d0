"""Copies of a state in host memory, so that training goes on while they are written."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np


class HostCopies:
    """One copy of a state; on the CPU its memory is kept from save to save.

    There fresh memory costs more than the copying: the system hands it out page by page. Views instead
    of copies would not do: XLA copies what the next step should overwrite, while there is a view of it.
    """

    def __init__(self) -> None:
        self._buffers: list[np.ndarray] = []
        self._reserving: threading.Thread | None = None

    def reserve(self, like: Any) -> None:
        """Begins to get the memory for such a tree, so that the first copy is as quick as later ones."""
        if jax.default_backend() == "cpu":
            self._reserving = threading.Thread(target=self._allocate, args=(jax.tree.leaves(like),))
            self._reserving.start()

    def take(self, tree: Any) -> Any:
        """Copies the arrays of `tree`; returns when they may change again.

        Args:
          tree: pytree of arrays that this process can read whole.

        Returns:
          The same tree of NumPy arrays, which stay as they are until the next call.
        """
        if jax.default_backend() != "cpu":
            return jax.device_get(tree)
        leaves, structure = jax.tree.flatten(tree)
        if self._reserving is not None:
            self._reserving.join()
        if [(b.shape, b.dtype) for b in self._buffers] != [(x.shape, x.dtype) for x in leaves]:
            self._allocate(leaves)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            list(pool.map(_copy, self._buffers, leaves))
        return jax.tree.unflatten(structure, self._buffers)

    def _allocate(self, leaves: list[Any]) -> None:
        self._buffers = [np.empty(x.shape, x.dtype) for x in leaves]
        for buffer in self._buffers:
            buffer.fill(0)  # only what is written to is really there


def _copy(buffer: np.ndarray, x: jax.Array | np.ndarray) -> None:
    np.copyto(buffer, np.asarray(x))
