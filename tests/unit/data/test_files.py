"""Digests that are remembered: never for another content; files that are whole or not there."""

import hashlib
import os
import time

import pytest

from transformer.data import files
from transformer.data.files import PieceFile, replacing
from transformer.errors import DataError


@pytest.fixture
def whole_reads(monkeypatch):
    """The list of files that were read whole."""
    calls, chunks = [], PieceFile.chunks
    monkeypatch.setattr(PieceFile, "chunks", lambda file: calls.append(file.path) or chunks(file))
    return calls


@pytest.fixture
def later(monkeypatch):
    """Everything happens ten seconds after the last change of every file."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 10**10)


def digest(path, memory) -> str:
    found = PieceFile(path).sha256(memory)
    assert found == hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"one\ntwo\n")
    return path


def test_an_unchanged_file_is_read_once(tmp_path, text, whole_reads, later):
    first = digest(text, tmp_path / "memory")
    for _ in range(3):
        assert digest(text, tmp_path / "memory") == first
    assert whole_reads == [text]


@pytest.mark.parametrize("change", ["edit", "edit and set the time back", "replace", "touch"])
def test_a_file_that_was_changed_is_read_again(tmp_path, text, whole_reads, later, change):
    before, first = text.stat(), digest(text, tmp_path / "memory")
    if change == "touch":
        os.utime(text)
    elif change == "replace":
        (tmp_path / "other").write_bytes(b"one\nTWO\n")
        os.utime(tmp_path / "other", ns=(before.st_atime_ns, before.st_mtime_ns))
        (tmp_path / "other").replace(text)
    else:
        time.sleep(0.02)  # the clock of the file system ticks
        text.write_bytes(b"one\nTWO\n")
        if change.endswith("back"):
            os.utime(text, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        assert (digest(text, tmp_path / "memory") == first) == (change == "touch")
    assert len(whole_reads) == 2


def test_a_copy_is_another_file(tmp_path, text, whole_reads, later):
    copy = tmp_path / "copy"
    copy.write_bytes(text.read_bytes())
    assert digest(text, tmp_path / "memory") == digest(copy, tmp_path / "memory")
    assert whole_reads == [text, copy]


def test_a_file_that_has_just_changed_is_not_trusted(tmp_path, text, whole_reads):
    """Its time may not tell the next change from this one."""
    digest(text, tmp_path / "memory")
    assert not (tmp_path / "memory").exists()
    text.write_bytes(b"one\nTWO\n")
    digest(text, tmp_path / "memory")
    assert len(whole_reads) == 2


def test_a_file_that_changes_while_it_is_read_is_not_remembered(tmp_path, text, monkeypatch, later):
    chunks = PieceFile.chunks

    def changing(file):
        yield from chunks(file)
        time.sleep(0.02)
        text.write_bytes(b"one\nTWO\n")

    monkeypatch.setattr(PieceFile, "chunks", changing)
    PieceFile(text).sha256(tmp_path / "memory")
    assert not (tmp_path / "memory").exists()


def test_a_damaged_memory_is_not_believed(tmp_path, text, whole_reads, later):
    digest(text, tmp_path / "memory")
    (record,) = (tmp_path / "memory").iterdir()
    content = record.read_bytes()
    for place in range(len(content)):
        for damaged in (
            content[:place],
            content[:place] + bytes([content[place] ^ 129]) + content[place + 1 :],
        ):
            record.write_bytes(damaged)
            digest(text, tmp_path / "memory")
            assert record.read_bytes() == content
    assert len(whole_reads) == 1 + 2 * len(content)


def test_where_nothing_can_be_remembered_the_file_is_read(tmp_path, text, whole_reads, later):
    for _ in range(2):
        digest(text, text)  # a folder cannot be there
    assert len(whole_reads) == 2


def test_chunks_are_the_content(tmp_path, text, monkeypatch):
    monkeypatch.setattr(files, "_CHUNK", 3)
    assert list(PieceFile(text).chunks()) == [b"one", b"\ntw", b"o\n"]


def test_a_file_that_was_cut_is_an_error(text):
    file = PieceFile(text)
    os.truncate(text, 5)
    assert file.read_bytes(1, 4) == b"ne\nt"
    with pytest.raises(DataError, match=f"{text}: is shorter than it was; restore it"):
        file.read_bytes(1, 5)


def test_what_is_not_whole_is_not_there(tmp_path):
    path = tmp_path / "folder" / "x"
    with replacing(path) as file:
        file.write(b"old")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"new")
        raise KeyboardInterrupt
    with replacing(path) as one, replacing(path) as other:  # as two processes would
        one.write(b"one")
        other.write(b"other")
    assert [p.name for p in path.parent.iterdir()] == ["x"]
    assert path.read_bytes() == b"one"
