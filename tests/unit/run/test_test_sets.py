"""Test sets: what is left out of them is told."""

import dataclasses

import pytest

from transformer.config import DataConfig
from transformer.data.corpus import open_corpora
from transformer.run.prepare import decodable


@pytest.mark.parametrize("damaged", [False, True])
def test_pairs_that_are_not_utf8_are_counted(tmp_path, capsys, damaged):
    (tmp_path / "t.en").write_bytes(b"one\n" + (b"\xff\n" if damaged else b"two\n") + b"three\n")
    (tmp_path / "t.de").write_text("eins\nzwei\ndrei\n")
    files = dict(test_source=("t.en",), test_target=("t.de",))
    data = dataclasses.replace(DataConfig(root=str(tmp_path), invalid_utf8="skip"), **files)
    (corpus,) = open_corpora(data, "test", tmp_path / "cache")
    found = decodable(corpus)
    assert [source for source, _ in found] == (["one", "three"] if damaged else ["one", "two", "three"])
    told = capsys.readouterr().err
    assert (": 2 of 3 pairs; left out: 1 undecodable\n" in told) if damaged else told == ""
