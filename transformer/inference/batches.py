"""Sentences of any length in arrays of few shapes, so that few functions are compiled."""

import contextlib
import itertools
import threading
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from transformer.io.devices import row_shards, to_devices


class OneAtATime:
    """Lets threads that would compile the same program at the same time wait for the first of them."""

    def __init__(self) -> None:
        """Begins with nothing compiled."""
        self._locks: dict[Hashable, threading.Lock] = {}
        self._done: set[Hashable] = set()

    @contextlib.contextmanager
    def once(self, program: Hashable) -> Iterator[None]:
        """Holds others back until the first call of this program has ended."""
        if program in self._done:
            yield
            return
        with self._locks.setdefault(program, threading.Lock()):
            yield
        self._done.add(program)


def bucket(length: int) -> int:
    """Returns the padded length: a multiple of 8 up to 64, of 32 above."""
    step = 8 if length <= 64 else 32
    return -(-length // step) * step


def batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yields the indices of all lengths, the shortest first, in lists of at most `size` and one bucket."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for _, same in itertools.groupby(order, key=lambda i: bucket(lengths[i])):
        while chosen := list(itertools.islice(same, size)):
            yield chosen


def num_rows(count: int, mesh: Mesh | None) -> int:
    """Returns the rows of an array for `count` sentences: a power of two that the mesh divides evenly."""
    rows = 1 << (count - 1).bit_length()
    return rows if mesh is None else rows + -rows % row_shards(mesh)


def padded(sentences: Sequence[Sequence[int] | np.ndarray], rows: int, width: int, pad_id: int) -> np.ndarray:
    """Returns int32 [rows, width] that begins with the sentences and is filled up with `pad_id`.

    Of frames it is float32 [rows, width, features], filled up with zeros.
    """
    frame = np.shape(sentences[0])[1:]
    ids_BS = (
        np.zeros((rows, width, *frame), np.float32) if frame else np.full((rows, width), pad_id, np.int32)
    )
    for row, ids in enumerate(sentences):
        ids_BS[row, : len(ids)] = ids
    return ids_BS


def segments(sentences: Sequence[Sequence[int] | np.ndarray], rows: int, width: int) -> np.ndarray:
    """Returns int32 [rows, width]: 1 where `padded` has a sentence, 0 where it was filled up."""
    lengths_B = np.zeros(rows, np.int32)
    lengths_B[: len(sentences)] = [len(ids) for ids in sentences]
    return (np.arange(width) < lengths_B[:, None]).astype(np.int32)


def on_mesh(mesh: Mesh | None, *arrays: np.ndarray) -> Any:
    """Returns the arrays with their rows divided over the mesh, or as they are without one."""
    return arrays if mesh is None else to_devices(arrays, mesh)
