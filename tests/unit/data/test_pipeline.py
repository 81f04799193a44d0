"""Batches: every pair, once an epoch, whole, in an order that the seed alone decides and a state restores."""

import collections
import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from transformer.config import DataConfig
from transformer.data import pipeline
from transformer.data.batch import Batch, pack_rows, pad_rows
from transformer.data.pipeline import bucket_lengths, evaluation_batches, training_batches

LENGTH = 16
PACKED = DataConfig(batch_tokens=4 * LENGTH, packing_bins=8, seed=3)
BUCKETS = DataConfig(batch_tokens=4 * LENGTH, packing=False, seed=3)


class Corpus:
    """Pairs of which no two are alike, in place of an EncodedCorpus."""

    def __init__(self, lengths, first=100):
        ids = itertools.count(first)
        self.pairs = [
            tuple(np.array([next(ids) for _ in range(n)], np.int32) for n in sides) for sides in lengths
        ]

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        return self.pairs[index]

    def __iter__(self):
        return iter(self.pairs)

    def number(self, index):
        return 1000 + index


def corpus(count=50, first=100, longest=LENGTH, seed=0) -> Corpus:
    return Corpus(np.random.default_rng(seed).integers(1, longest + 1, (count, 2)).tolist(), first)


def start(corpora, data, weights=None, length=LENGTH):
    return iter(training_batches(corpora, weights, data, length))


def unpack(batch: Batch) -> list[tuple[tuple, tuple]]:
    """The pairs of a batch; checks segments, positions and padding on the way."""
    assert all(x.dtype == np.int32 and x.shape == batch.src_BS.shape for x in batch)
    pairs = []
    for row in zip(*batch, strict=True):
        sides = []
        for ids, segments, positions in (row[:3], row[3:]):
            used = int((segments > 0).sum())
            assert not ids[used:].any() and not segments[used:].any() and not positions[used:].any()
            number = int(segments.max())
            assert segments[:used].tolist() == sorted(segments[:used])
            assert set(segments[:used]) == set(range(1, number + 1))
            parts = [ids[segments == i] for i in range(1, number + 1)]
            assert positions[:used].tolist() == [p for part in parts for p in range(len(part))]
            sides.append([tuple(part.tolist()) for part in parts])
        pairs += zip(*sides, strict=True)
    return pairs


def as_tuples(corpus) -> list[tuple[tuple, tuple]]:
    return [tuple(tuple(side.tolist()) for side in pair) for pair in corpus]


def take(iterator, count) -> list[Batch]:
    return [found.batch for found in itertools.islice(iterator, count)]


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(x, y) for a, b in zip(first, second, strict=True) for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("data", [PACKED, BUCKETS], ids=["packed", "buckets"])
def test_the_seed_alone_decides(data):
    pairs = corpus()
    first = take(start([pairs], data), 30)
    assert same(first, take(start([pairs], data), 30))
    other = DataConfig(**{**vars(data), "seed": 4})
    assert not same(first, take(start([pairs], other), 30))


@pytest.mark.parametrize("data", [PACKED, BUCKETS], ids=["packed", "buckets"])
def test_a_batch_knows_its_pairs(data):
    """Whoever looks for the sentences of a step finds them, and no others."""
    corpora = [corpus(20), corpus(30, first=100_000)]
    for found in itertools.islice(start(corpora, data), 40):
        named = [as_tuples(corpora[place])[number - 1000] for place, number in found.pairs.tolist()]
        assert sorted(named) == sorted(unpack(found.batch))


def test_every_epoch_has_every_pair_once_in_a_new_order():
    pairs = corpus(40)
    one_row = DataConfig(batch_tokens=LENGTH, packing_bins=1)  # the order of packing is that of the stream
    stream = [pair for batch in take(start([pairs], one_row), 200) for pair in unpack(batch)]
    epochs = [stream[i : i + 40] for i in range(0, 160, 40)]
    assert all(sorted(epoch) == sorted(as_tuples(pairs)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [*epochs, as_tuples(pairs)]}) == 5


def test_packed_rows_hold_whole_pairs_each_as_often_as_the_others():
    pairs = corpus(50)
    batches = take(start([pairs], PACKED), 60)  # 30 times the 8 rows that are packed together
    assert {batch.src_BS.shape for batch in batches} == {(4, LENGTH)}
    counts = collections.Counter(pair for batch in batches for pair in unpack(batch))
    assert set(counts) == set(as_tuples(pairs))
    assert max(counts.values()) - min(counts.values()) <= 1 and min(counts.values()) > 2


def test_rows_are_full():
    rng = np.random.default_rng(0)
    target = np.clip(rng.lognormal(3.1, 0.6, 6000), 2, 120)
    source = np.clip(target * rng.normal(1.0, 0.15, 6000), 2, 120)
    pairs = Corpus(np.stack([source, target], 1).astype(int).tolist())
    data = DataConfig(batch_tokens=4096)
    batches = take(start([pairs], data, length=128), 32)
    for filled in (
        np.mean([b.src_seg_BS > 0 for b in batches]),
        np.mean([b.tgt_seg_BT > 0 for b in batches]),
    ):
        assert filled > 0.9


def origins(batches) -> collections.Counter:
    """How many pairs came from which corpus: their ids begin at multiples of 100,000."""
    return collections.Counter(pair[0][0] // 100_000 for batch in batches for pair in unpack(batch))


@pytest.mark.parametrize("data", [PACKED, BUCKETS], ids=["packed", "buckets"])
def test_weights_are_shares_of_the_pairs(data):
    corpora = [corpus(10, 100_000, longest=8), corpus(90, 200_000, longest=8), Corpus([], 300_000)]
    found = origins(take(start(corpora, data, [3.0, 1.0, 5.0]), 100))
    assert found[1] / found.total() == pytest.approx(0.75, abs=0.02) and found[3] == 0
    found = origins(take(start(corpora, data), 100))
    assert found[1] / found.total() == pytest.approx(0.1, abs=0.02)
    assert set(origins(take(start(corpora, data, [0.0, 1.0, 1.0]), 20))) == {2}


@pytest.mark.parametrize("data", [PACKED, BUCKETS], ids=["packed", "buckets"])
def test_a_single_pair_is_a_corpus(data):
    assert set(unpack(take(start([Corpus([(3, 4)])], data), 3)[-1])) == {
        ((100, 101, 102), (103, 104, 105, 106))
    }


def test_bucket_lengths():
    assert bucket_lengths(DataConfig(), 64) == (8, 16, 32, 64)
    assert bucket_lengths(DataConfig(), 50) == (8, 16, 32, 50)
    assert bucket_lengths(DataConfig(), 6) == (6,)
    assert bucket_lengths(DataConfig(buckets=(30, 10, 99)), 50) == (10, 30, 50)


def test_buckets_have_few_shapes_and_every_pair_once_a_window(monkeypatch):
    monkeypatch.setattr(pipeline, "_WINDOW", 5)
    pairs = corpus(70)
    data = DataConfig(**{**vars(BUCKETS), "buckets": (4, 9, LENGTH)})
    iterator, batches = start([pairs], data), []
    while iterator.get_state()["window"] < 12:
        batches.append(next(iterator).batch)
    del batches[-1]  # the first of the next window
    shapes = {4: (16, 4), 9: (7, 9), 16: (4, 16)}
    counts = collections.Counter()
    for batch in batches:
        length = batch.src_BS.shape[1]
        assert batch.src_BS.shape == shapes[length]
        for pair in unpack(batch):
            counts[pair] += 1
            assert min(b for b in shapes if b >= max(map(len, pair))) == length
        assert {int(seg.max()) for seg in batch.src_seg_BS} <= {0, 1}  # one pair a row
    assert set(counts) == set(as_tuples(pairs)) and min(counts.values()) > 1
    assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("data", [PACKED, BUCKETS], ids=["packed", "buckets"])
def test_a_state_brings_back_all_that_follows(data, monkeypatch):
    monkeypatch.setattr(pipeline, "_WINDOW", 3)
    corpora = [corpus(), corpus(9, 9000)]
    iterator = start(corpora, data, [2.0, 1.0])
    states, batches = [json.dumps(iterator.get_state())], []
    first = iterator.get_state()
    for _ in range(40):
        batches.append(next(iterator).batch)
        states.append(json.dumps(iterator.get_state()))
    assert json.dumps(first) == states[0]  # a state that was given out does not change afterwards
    used = start(corpora, data, [2.0, 1.0])
    for place in (*range(36), 0, 20):  # forwards and back
        used.set_state(json.loads(states[place]))
        assert json.dumps(used.get_state()) == states[place]
        assert same(take(used, 4), batches[place : place + 4])
    for place in (0, 1, 7, 19):
        fresh = start(corpora, data, [2.0, 1.0])
        fresh.set_state(json.loads(states[place]))
        assert same(take(fresh, 40 - place), batches[place:])
        fresh.close()


def digest_of_next(iterator, count=6) -> str:
    return hashlib.sha256(b"".join(x.tobytes() for b in take(iterator, count) for x in b)).hexdigest()


def test_a_state_holds_in_another_process():
    states, expected = [], []
    for data in (PACKED, BUCKETS):
        iterator = start([corpus()], data)
        take(iterator, 13)
        states.append(iterator.get_state())
        expected.append(digest_of_next(iterator))
    code = (
        "import json, sys, test_pipeline as t\n"
        "for data, state in zip((t.PACKED, t.BUCKETS), json.loads(sys.argv[1])):\n"
        "    iterator = t.start([t.corpus()], data)\n"
        "    iterator.set_state(state)\n"
        "    print(t.digest_of_next(iterator))\n"
    )
    command = [sys.executable, "-c", code, json.dumps(states)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert done.stdout.split() == expected, done.stderr


@pytest.mark.parametrize("count", [0, 1, 7, 100])
def test_evaluation_batches_have_every_pair_once(count):
    pairs = corpus(count)
    batches = list(evaluation_batches(pairs, PACKED, LENGTH))
    assert sorted(pair for batch in batches for pair in unpack(batch)) == sorted(as_tuples(pairs))
    assert {batch.src_BS.shape for batch in batches} <= {(4, LENGTH)}


def test_targets_may_have_fewer_positions_than_sources():
    pairs = Corpus([(9, 3), (16, 4), (2, 4), (1, 1)])
    data = DataConfig(**{**vars(BUCKETS), "target_length": 4})
    for batches in (evaluation_batches(pairs, data, LENGTH), [next(start([pairs], data)).batch]):
        for batch in batches:
            assert batch.tgt_BT.shape[1] == 4
            assert batch.src_BS.shape == batch.src_pos_BS.shape
            assert batch.src_seg_BS.max() == batch.tgt_seg_BT.max() == 1  # one pair a row
    rows = [row for batch in evaluation_batches(pairs, data, LENGTH) for row in batch.src_seg_BS if row.any()]
    assert sorted(row.sum() for row in rows) == [1, 2, 9, 16]


def test_padding_of_rows_adds_nothing_but_empty_rows():
    batch = pack_rows([[((5, 6), (7,)), ((8,), (9, 10))]], 3, 4)
    assert batch.src_BS[0].tolist() == [5, 6, 8, 0] and batch.tgt_BT[0].tolist() == [7, 9, 10, 0]
    assert batch.src_seg_BS[0].tolist() == [1, 1, 2, 0] and batch.tgt_pos_BT[0].tolist() == [0, 0, 1, 0]
    assert pad_rows(batch, 3) is batch
    padded = pad_rows(batch, 4)
    assert {x.shape for x in padded} == {(4, 4)} and unpack(padded) == unpack(batch)
    assert not any(x[3:].any() for x in padded)
