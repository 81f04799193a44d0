"""What all peers share: pairs of ids from our side, batches of like length, and what a process used."""

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3  # of transformer/data/tokenizer.py
_WINDOW = 64  # batches' worth of pairs that are sorted by length together


class Padded(NamedTuple):
    """A batch: ids [rows, longest], 0 where there is none, and how many of them are real."""

    source: np.ndarray
    target: np.ndarray
    source_tokens: int
    target_tokens: int


def read_sentences(file: str) -> list[np.ndarray]:
    """Returns the ids in an .npz: `tokens` one after the other, cut at `bounds`."""
    with np.load(file, allow_pickle=False) as arrays:
        return np.split(arrays["tokens"].astype(np.int64), arrays["bounds"][1:-1])


def batches(file: str, target_tokens: int, seed: int = 0) -> Iterator[Padded]:
    """Yields batches without end, each of about `target_tokens` real target tokens, padding not counted.

    Pairs are shuffled each epoch, sorted by length in windows of 64 batches, cut, and the batches of a
    window shuffled. `file` holds the source and target of each pair in turn.
    """
    sentences = read_sentences(file)
    sources, targets = sentences[::2], sentences[1::2]
    draw = np.random.default_rng(seed)
    while True:
        order = draw.permutation(len(sources))
        ends = np.cumsum([len(targets[i]) for i in order]) // (_WINDOW * target_tokens)
        for window in np.split(order, np.flatnonzero(np.diff(ends)) + 1):
            by_length = sorted(window, key=lambda i: (len(targets[i]), len(sources[i])))
            part = np.cumsum([len(targets[i]) for i in by_length]) // target_tokens
            cut = np.split(np.array(by_length), np.flatnonzero(np.diff(part)) + 1)
            for i in draw.permutation(len(cut)):
                yield _pad([sources[j] for j in cut[i]], [targets[j] for j in cut[i]])


def padded(sentences: list[np.ndarray]) -> np.ndarray:
    """Returns ids [rows, longest]."""
    ids = np.full((len(sentences), max(map(len, sentences))), PAD_ID, np.int64)
    for row, sentence in zip(ids, sentences, strict=True):
        row[: len(sentence)] = sentence
    return ids


def _pad(source: list[np.ndarray], target: list[np.ndarray]) -> Padded:
    return Padded(padded(source), padded(target), sum(map(len, source)), sum(map(len, target)))


class Meter:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._busy = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Returns (wall seconds, cores busy on the mean)."""
        wall = time.perf_counter() - self._wall
        return wall, (time.process_time() - self._busy) / wall


def peak_memory() -> int:
    """Returns the most bytes that were resident in this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status: no VmHWM; this needs Linux")


def usable_cores() -> int:
    """Returns the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def write(file: str, packages: tuple[str, ...], result: dict[str, Any]) -> None:
    """Writes a result with versions and settings of the process as JSON."""
    versions = {name: importlib.metadata.version(name) for name in packages}
    around = {
        "versions": {"python": platform.python_version(), **versions},
        "peak_memory": peak_memory(),
        "environment": {name: os.environ.get(name, "") for name in ("GLIBC_TUNABLES", "LD_PRELOAD")},
    }
    Path(file).write_text(json.dumps({**around, **result}) + "\n")
