"""Columns of numbers: nothing damaged is ever given out, and little is read to find that out."""

import os
import pickle
import tracemalloc

import numpy as np
import pytest

from transformer.data import columns
from transformer.data.columns import Column, Damaged, new_column

NUMBERS = np.arange(100, dtype=np.int32) * 7 - 50


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(columns, "_BLOCK", 64)  # 16 numbers


def write(path, numbers=NUMBERS, piece=9, dtype=np.int32):
    with new_column(path, dtype) as append:
        for start in range(0, len(numbers), piece):
            append(numbers[start : start + piece])
    return path


def read_all(path) -> list[int]:
    column = Column(path, np.int32)
    return np.concatenate(
        [column.read(i, min(3, column.count - i)) for i in range(0, column.count, 3)]
    ).tolist()


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 32, 100])
@pytest.mark.parametrize("piece", [1, 16, 1000])
def test_what_is_written_is_read(tmp_path, count, piece):
    column = Column(write(tmp_path / "x", NUMBERS[:count], piece), np.int32)
    assert column.count == count
    for start in range(count):
        for length in {1, 2, 17, count - start} - {*range(count - start + 1, 200)}:
            assert column.read(start, length).tolist() == NUMBERS[start : start + length].tolist()


def test_a_bit_that_changed_anywhere_is_noticed(tmp_path):
    path = write(tmp_path / "x")
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises(
            Damaged, match=f"{path}: is damaged; run the same command again: it makes the file"
        ):
            read_all(path)
        assert not path.exists()


def test_a_file_of_another_length_is_noticed_when_it_is_opened(tmp_path):
    path = write(tmp_path / "x")
    content = path.read_bytes()
    for changed in (*(content[:end] for end in range(len(content))), content + b"\0", content * 2):
        path.write_bytes(changed)
        with pytest.raises(Damaged, match="is damaged"):
            Column(path, np.int32)
    with pytest.raises(Damaged, match="cannot be read: No such file"):
        Column(path, np.int32)


def test_blocks_that_changed_places_are_noticed(tmp_path):
    path = write(tmp_path / "x", np.zeros(100, np.int32))
    content = bytearray(path.read_bytes())
    sums = 400
    content[sums : sums + 4], content[sums + 4 : sums + 8] = (
        content[sums + 4 : sums + 8],
        content[sums : sums + 4],
    )
    path.write_bytes(content)
    with pytest.raises(Damaged) as damage:
        read_all(path)
    again = pickle.loads(pickle.dumps(damage.value))  # as from a worker process
    assert type(again) is Damaged and (str(again), again.path) == (str(damage.value), path)


def test_damage_is_found_in_its_block_and_no_other(tmp_path):
    path = write(tmp_path / "x")
    content = bytearray(path.read_bytes())
    content[3 * 64 + 5] ^= 4
    path.write_bytes(content)
    column = Column(path, np.int32)
    assert column.read(0, 48).tolist() == NUMBERS[:48].tolist()
    assert column.read(64, 36).tolist() == NUMBERS[64:].tolist()
    for start, length in ((48, 1), (63, 1), (47, 2), (63, 2), (0, 100)):
        with pytest.raises(Damaged):
            column.read(start, length)


def test_a_block_is_checked_once_and_opening_reads_the_seal(tmp_path, monkeypatch):
    path = write(tmp_path / "x")
    sizes, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, place: sizes.append(size) or pread(file, size, place))
    column = Column(path, np.int32)
    assert sizes == [28]
    column.read(20, 2)
    assert sizes == [28, 64, 4, 8]
    column.read(30, 2)
    assert sizes == [28, 64, 4, 8, 8]


def test_the_seal_tells_columns_apart(tmp_path):
    seals = set()
    for place in range(100):
        numbers = NUMBERS.copy()
        numbers[place] += 1
        seals.add(Column(write(tmp_path / "x", numbers), np.int32).seal)
    assert len(seals) == 100
    assert (
        Column(write(tmp_path / "x"), np.int32).seal == Column(write(tmp_path / "y", piece=50), np.int32).seal
    )


def test_nothing_is_there_before_all_is_written(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_column(tmp_path / "x", np.int32) as append:
        append(NUMBERS)
        assert not (tmp_path / "x").exists()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_writing_holds_next_to_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "_BLOCK", 1 << 14)
    piece = np.zeros(10_000, np.int64)
    tracemalloc.start()
    try:
        with new_column(tmp_path / "x", np.int64) as append:
            for _ in range(300):
                append(piece)  # 24 MB in all
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()
    assert Column(tmp_path / "x", np.int64).count == 3_000_000
