"""From encoded pairs to batches, on Grain: seeded order, packing or buckets, exact position.

A dataset's iterator has `get_state` and `set_state`: a few integers that say where it is, saved
with each checkpoint.
"""

import bisect
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags

from transformer.config import DataConfig
from transformer.data.batch import Batch, only_asked, pack_rows
from transformer.data.encoded import EncodedCorpus

_PREFETCH = 8  # batches ready before they are asked for
_WINDOW = 64  # batches' worth of pairs that are sorted into buckets together


class TrainingBatch(NamedTuple):
    """A batch, and which pairs it holds: int64 [pairs, 2], corpus and `EncodedCorpus.number`."""

    batch: Batch
    pairs: np.ndarray


# ((pair {"src": ids, "tgt": ids, ...}, epoch counted from 0), random numbers) -> pair
Augment = Callable[[tuple[dict[str, np.ndarray], int], np.random.Generator], dict[str, np.ndarray]]


class _Source:
    """An EncodedCorpus as Grain's random-access source."""

    def __init__(self, corpus: EncodedCorpus, place: int):
        self._corpus, self._place = corpus, place

    def __len__(self) -> int:
        return len(self._corpus)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        source, target = self._corpus[index]
        return {"src": source, "tgt": target, "pair": np.array([self._place, self._corpus.number(index)])}

    def __repr__(self) -> str:
        return f"Source({len(self)})"


def training_batches(
    corpora: Sequence[EncodedCorpus],
    weights: Sequence[float] | None,
    data: DataConfig,
    row_length: int,
    augment: Augment | None = None,
) -> grain.IterDataset:
    """Returns an endless dataset of `TrainingBatch` with about `data.batch_tokens` target positions each.

    Every corpus is shuffled anew each epoch, from `data.seed`. With packing, first-fit places
    several pairs in a row of `row_length` positions: one static shape. Without, rows hold one
    pair and batches are padded to the bucket of their longest sentence.

    Args:
      corpora: encoded pairs, none longer than `row_length`.
      weights: share of each corpus; None takes each as often as it is long. Corpora without pairs
        or of weight 0 give nothing.
      data: batch size, packing, buckets, seed, workers.
      row_length: positions of a packed row, or of the longest bucket.
      augment: changes the ids "src" and "tgt" of a pair, knowing how often its corpus was read before; it
        keeps them within `row_length`.
    """
    shares = weights or [len(c) for c in corpora]
    used = [i for i, corpus in enumerate(corpora) if len(corpus) and shares[i]]
    streams = [
        grain.MapDataset.source(_Source(corpora[i], i)).seed(data.seed + i).shuffle().repeat() for i in used
    ]
    if augment is not None:  # after repeat: another change each epoch
        streams = [
            stream.map_with_index(partial(_in_epoch, size=len(corpora[i]))).random_map(augment)
            for i, stream in zip(used, streams, strict=True)
        ]
    mixed = grain.MapDataset.mix(streams, [shares[i] for i in used])
    # Reading is from memory: a thread pool would cost thirty times what it hides (576 against 19 us a pair).
    pairs = mixed.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    if data.packing:
        packed = grain.experimental.FirstFitPackIterDataset(
            pairs,
            length_struct={"src": row_length * data.has_sources, "tgt": row_length, "pair": 2 * row_length},
            num_packing_bins=data.packing_bins,
            seed=data.seed,
        )
        batches = packed.batch(data.batch_tokens // row_length).map(_packed_batch)
    else:
        batches = BucketDataset(pairs, data, row_length)
    if data.workers:
        flags.FLAGS.mark_as_parsed()  # Grain asks them for its settings; the command line here is not absl's
        # Through pipes: of shared memory Grain leaves behind what was packed ahead when it is closed.
        pipes = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
        piped = grain.experimental.WithOptionsIterDataset(batches, pipes)
        options = grain.MultiprocessingOptions(data.workers, per_worker_buffer_size=_PREFETCH)
        return piped.mp_prefetch(options, worker_init_fn=_begin_worker)
    return grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=_PREFETCH)


def _in_epoch(index: int, pair: dict[str, np.ndarray], size: int) -> tuple[dict[str, np.ndarray], int]:
    return pair, index // size


def _begin_worker(index: int, count: int) -> None:
    """Ties a worker to the training process: signals are that one's to act upon, and its end is theirs."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with_parent(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _packed_batch(rows: dict[str, np.ndarray]) -> TrainingBatch:
    names = ("src", "src_segment_ids", "src_positions", "tgt", "tgt_segment_ids", "tgt_positions")
    pairs = rows["pair"][rows["pair_segment_ids"] > 0].reshape(-1, 2)
    return TrainingBatch(only_asked(Batch(*(_as_ids(rows[n]) for n in names))), pairs)


def _as_ids(numbers: np.ndarray) -> np.ndarray:
    """Returns them as int32, frames as they are."""
    return numbers if numbers.ndim == 3 else numbers.astype(np.int32)


def bucket_lengths(data: DataConfig, longest: int) -> tuple[int, ...]:
    """Returns the upper lengths of the buckets: as configured, or powers of two from 8 up to `longest`."""
    given = sorted(b for b in data.buckets if b < longest)
    if not data.buckets:
        given = [1 << k for k in range(3, longest.bit_length()) if 1 << k < longest]
    return (*given, longest)


def row_lengths(data: DataConfig, longest: int) -> tuple[int, ...]:
    """Returns the source positions that rows may have."""
    return (longest,) if data.packing else bucket_lengths(data, longest)


def side_lengths(data: DataConfig, length: int) -> tuple[int, int]:
    """Returns the source and target positions of a batch whose rows are for up to `length` of both."""
    return length * data.has_sources, min(length, data.target_length or length)


class BucketDataset(grain.IterDataset):
    """Batches of pairs of like length, one pair a row, padded to the bucket's length.

    Pairs are read in windows; each window is sorted into buckets in the order of arrival, cut into
    batches (the last of each bucket may have empty rows), and the batches are shuffled.
    """

    def __init__(self, parent: grain.IterDataset, data: DataConfig, longest: int):
        super().__init__(parent)
        self._data = data
        self._lengths = bucket_lengths(data, longest)

    def __iter__(self) -> "_BucketIterator":
        return _BucketIterator(self._parent.__iter__(), self._data, self._lengths)

    def __str__(self) -> str:
        return f"BucketDataset(lengths={self._lengths})"


class _BucketIterator(grain.DatasetIterator):
    def __init__(self, parent: grain.DatasetIterator, data: DataConfig, lengths: tuple[int, ...]):
        super().__init__(parent)
        self._data, self._lengths = data, lengths
        self._window_state = parent.get_state()
        self._next = 0  # batch of the window
        self._window = 0  # number of the window, for its shuffle
        self._batches: list[TrainingBatch] | None = None

    def __next__(self) -> TrainingBatch:
        if self._batches is None:
            self._batches = list(self._read_window())
        if self._next == len(self._batches):
            self._window_state = self._parent.get_state()
            self._next, self._window = 0, self._window + 1
            self._batches = list(self._read_window())
        self._next += 1
        return self._batches[self._next - 1]

    def get_state(self) -> dict[str, Any]:
        return {"parent": self._window_state, "next": self._next, "window": self._window}

    def set_state(self, state: dict[str, Any]) -> None:
        self._parent.set_state(state["parent"])
        self._window_state = state["parent"]
        self._next, self._window = state["next"], state["window"]
        self._batches = None

    def _read_window(self) -> Iterator[TrainingBatch]:
        tokens = _WINDOW * self._data.batch_tokens
        buckets: dict[int, list[dict[str, np.ndarray]]] = {length: [] for length in self._lengths}
        while tokens > 0:
            pair = next(self._parent)
            longest = max(len(pair["src"]), len(pair["tgt"]))
            length = self._lengths[bisect.bisect_left(self._lengths, longest)]
            buckets[length].append(pair)
            tokens -= length
        cut = []
        for length, pairs in buckets.items():
            rows = max(self._data.batch_tokens // length, 1)
            cut += [(length, rows, pairs[i : i + rows]) for i in range(0, len(pairs), rows)]
        for i in np.random.default_rng((self._data.seed, self._window)).permutation(len(cut)):
            length, rows, pairs = cut[i]
            packed = [[(p["src"], p["tgt"])] for p in pairs]
            batch = pack_rows(packed, rows, *side_lengths(self._data, length))
            yield TrainingBatch(batch, np.stack([p["pair"] for p in pairs]))


def evaluation_batches(
    corpus: EncodedCorpus, data: DataConfig, row_length: int, augment: Augment | None = None
) -> Iterator[Batch]:
    """Yields every pair once, in order of length, packed if `data` says so; empty rows fill the last one.

    `augment` changes a pair in the same way whenever it is called: by `data.seed` and the pair's place.
    """
    order = np.argsort([len(s) + len(t) for s, t in corpus], kind="stable")
    rows = data.batch_tokens // row_length
    row: list[tuple[np.ndarray, np.ndarray]] = []
    packed: list[list[tuple[np.ndarray, np.ndarray]]] = []
    used = [0, 0]
    for index in order:
        pair = corpus[int(index)]
        if augment is not None:
            sides = {"src": pair[0], "tgt": pair[1]}
            changed = augment((sides, 0), np.random.default_rng((data.seed, int(index))))
            pair = changed["src"], changed["tgt"]
        full = any(u + len(side) > row_length for u, side in zip(used, pair, strict=True))
        if row and (full or not data.packing):
            packed.append(row)
            row, used = [], [0, 0]
        row.append(pair)
        used = [u + len(side) for u, side in zip(used, pair, strict=True)]
    packed += [row] if row else []
    for i in range(0, len(packed), rows):
        yield pack_rows(packed[i : i + rows], rows, *side_lengths(data, row_length))
