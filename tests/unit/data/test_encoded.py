"""Encoded pairs: what is kept and why the rest is not; when the cache on disk is used again."""

import os
import shutil

import numpy as np
import pytest

from transformer.config import Config, TokenizerConfig
from transformer.config_mapping import from_config_dict
from transformer.data import encoded as encoded_module
from transformer.data.corpus import open_corpora
from transformer.data.encoded import EncodedCorpus, encode_corpus, left_out
from transformer.data.tokenizer import Tokenizer, train_tokenizer
from transformer.errors import DataError
from transformer.special_ids import EOS_ID

# A piece a character: "abc" has 5, with the mark of the word's beginning and the end mark.
PAIRS = [
    ("abc", "cab"),  # 5 + 5
    ("", "a"),
    ("a", "  \t "),
    ("abcabcab", "a"),  # 10 + 3
    ("abcabcabca", "abcabcabc"),  # 12 + 11
    ("ab", "aab"),  # 4 + 5
    ("aξ", "b"),  # 4 + 3, one of them unknown
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["abc"] * 5, ["cab"], TokenizerConfig(model_type="char", vocab_size=8))


def config(folder, pairs=PAIRS, max_length=11, **data) -> Config:
    for name, side in (("a", 0), ("b", 1)):
        lines = [pair[side] for pair in pairs]
        content = b"".join(x if isinstance(x, bytes) else x.encode() + b"\n" for x in lines)
        (folder / name).write_bytes(content)
    files = {"root": str(folder), "train_source": ("a",), "train_target": ("b",)}
    return from_config_dict({"model": {"max_length": max_length}, "data": {**files, **data}})


def encode(config, tokenizer, folder) -> EncodedCorpus:
    (corpus,) = open_corpora(config.data, "train", folder / "lines")
    return encode_corpus(corpus, tokenizer, config, folder / "cache")


def texts(found: EncodedCorpus, tokenizer) -> list[tuple[str, str]]:
    return [tuple(tokenizer.decode_target([source, target])) for source, target in found]


@pytest.mark.parametrize("block", [1, 2, 8192])
def test_counts_by_cause(tmp_path, tokenizer, monkeypatch, block):
    monkeypatch.setattr(encoded_module, "_BLOCK", block)
    found = encode(config(tmp_path, max_ratio=3.0), tokenizer, tmp_path)
    assert texts(found, tokenizer) == [("abc", "cab"), ("ab", "aab"), ("a ⁇ ", "b")]
    assert [(len(s), len(t)) for s, t in found] == [(5, 5), (4, 5), (4, 3)]
    assert all(side.dtype == np.int32 and side[-1] == EOS_ID for pair in found for side in pair)
    assert found.counts == {
        "lines": 7, "kept": 3, "empty": 2, "too_long": 1, "ratio": 1, "undecodable": 0,
        "source_tokens": 13, "target_tokens": 13, "unknown_tokens": 1,
    }  # fmt: skip
    assert left_out(found.counts) == "2 empty, 1 too_long, 1 ratio"
    assert len(found) == 3
    for outside in (3, -1):
        with pytest.raises(IndexError):
            found[outside]


def test_nothing_kept(tmp_path, tokenizer):
    found = encode(config(tmp_path, [("", ""), ("a", "")]), tokenizer, tmp_path)
    assert (len(found), list(found), found.counts["empty"]) == (0, [], 2)
    assert len(EncodedCorpus(tmp_path / "cache")) == 0
    assert left_out(encode(config(tmp_path, [("a", "b")]), tokenizer, tmp_path).counts) == "none"


def test_undecodable_lines_are_counted_or_refused(tmp_path, tokenizer):
    pairs = [("a", "b"), (b"\xff\n", "c"), ("c", "a")]
    with pytest.raises(DataError, match="line 2 is not UTF-8"):
        encode(config(tmp_path, pairs), tokenizer, tmp_path)
    found = encode(config(tmp_path, pairs, invalid_utf8="skip"), tokenizer, tmp_path)
    assert texts(found, tokenizer) == [("a", "b"), ("c", "a")]
    assert (found.counts["undecodable"], found.counts["lines"]) == (1, 3)
    assert [found.number(i) for i in range(2)] == [1, 3]


@pytest.fixture
def encodings(monkeypatch):
    """The list of blocks that were really encoded."""
    calls, filtered = [], encoded_module._filtered
    monkeypatch.setattr(encoded_module, "_filtered", lambda *a: (calls.append(a[0]), filtered(*a))[1])
    return calls


def test_the_cache_is_used_until_something_changes(tmp_path, tokenizer, encodings):
    def kept(tokenizer=tokenizer, **changes) -> tuple[int, bool]:
        before = len(encodings)
        found = encode(config(tmp_path, **changes), tokenizer, tmp_path)
        assert texts(found, tokenizer) == texts(EncodedCorpus(tmp_path / "cache"), tokenizer)
        return len(found), len(encodings) > before

    assert kept() == (4, True)
    assert kept() == (4, False)
    assert kept(seed=5, batch_tokens=999, packing=False) == (4, False)  # these change the batches only
    assert kept(max_length=12) == (5, True)
    assert kept(max_ratio=2.0) == (3, True)
    assert kept(holdout_lines=2)[1]
    assert kept(pairs=PAIRS[:1]) == (1, True)
    assert kept(pairs=[("abd", "cab")]) == (1, True)  # as many bytes as before
    other = train_tokenizer(["abcd"] * 5, ["cab"], TokenizerConfig(model_type="char", vocab_size=9))
    assert kept(other, pairs=[("abd", "cab")]) == (1, True)
    assert kept(other, pairs=[("abd", "cab")]) == (1, False)


def test_columns_of_a_table_belong_to_the_key(tmp_path, tokenizer):
    (tmp_path / "t").write_text("a\tb\nabc\tcb\n")
    for columns, expected in (((0, 1), [("a", "b"), ("abc", "cb")]), ((1, 0), [("b", "a"), ("cb", "abc")])):
        data = {"kind": "tsv", "root": str(tmp_path), "train_tsv": "t", "tsv_columns": columns}
        assert texts(encode(from_config_dict({"data": data}), tokenizer, tmp_path), tokenizer) == expected


def test_a_crash_while_encoding_leaves_nothing_that_is_accepted(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(encoded_module, "_BLOCK", 2)
    settings = config(tmp_path)
    whole = texts(encode(settings, tokenizer, tmp_path / "whole"), tokenizer)
    filtered, manifest = encoded_module._filtered, encoded_module._manifest
    for place in range(1, 5):
        blocks = []

        def crash_at(*args, blocks=blocks, place=place):
            blocks.append(args)
            if len(blocks) == place:
                raise KeyboardInterrupt
            return filtered(*args)

        monkeypatch.setattr(encoded_module, "_filtered", crash_at)
        with pytest.raises(KeyboardInterrupt):
            encode(config(tmp_path, max_length=12), tokenizer, tmp_path)  # another key: all is done again
        monkeypatch.setattr(encoded_module, "_filtered", filtered)
        assert texts(encode(settings, tokenizer, tmp_path), tokenizer) == whole

    def crash(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(encoded_module, "_manifest", crash)
    with pytest.raises(KeyboardInterrupt):
        encode(config(tmp_path, max_length=12), tokenizer, tmp_path)
    monkeypatch.setattr(encoded_module, "_manifest", manifest)
    assert texts(encode(settings, tokenizer, tmp_path), tokenizer) == whole


COLUMNS = ["bounds.bin", "numbers.bin", "tokens.bin"]


@pytest.mark.parametrize("name", ["manifest.json", *COLUMNS])
@pytest.mark.parametrize("left", ["nothing", "the first half", "all but a bit", "no file"])
def test_a_damaged_cache_is_made_again(tmp_path, tokenizer, encodings, name, left):
    settings = config(tmp_path)
    whole = texts(encode(settings, tokenizer, tmp_path), tokenizer)
    file = tmp_path / "cache" / name
    content = file.read_bytes()
    changed = bytearray(content)
    changed[len(content) // 3] ^= 1
    if left == "no file":
        file.unlink()
    else:
        file.write_bytes(
            {"nothing": b"", "the first half": content[: len(content) // 2]}.get(left, bytes(changed))
        )
    notes = []
    (corpus,) = open_corpora(settings.data, "train", tmp_path / "lines")

    def start() -> EncodedCorpus:
        return encode_corpus(corpus, tokenizer, settings, tmp_path / "cache", notes.append)

    if left == "all but a bit" and name in COLUMNS:  # seen when it is read, and then at the next start
        found = start()
        assert (notes, len(encodings)) == ([], 1)
        with pytest.raises(DataError, match=f"{file}: is damaged; run the same command again") as caught:
            _ = [(found[i], found.number(i)) for i in range(len(found))]
        assert caught.value.exit_code == 3
    found = start()
    assert texts(found, tokenizer) == whole
    assert len(encodings) == 2 and file.read_bytes() == content
    # Without the manifest there is nothing that says it had been whole.
    missing = (name, left) == ("manifest.json", "no file")
    assert notes == ([] if missing else [f"{file}: damaged; encoding the corpus anew"])
    assert found.counts["kept"] == len(whole) == 4


def test_a_manifest_that_was_changed_anywhere_is_damaged(tmp_path, tokenizer):
    whole = encode(config(tmp_path), tokenizer, tmp_path)
    file = tmp_path / "cache" / "manifest.json"
    content = file.read_bytes()
    for place in range(len(content)):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DataError, match=r"manifest\.json: is damaged"):
            EncodedCorpus(tmp_path / "cache")
    file.write_bytes(content)
    assert EncodedCorpus(tmp_path / "cache").counts == whole.counts


@pytest.mark.parametrize("name", COLUMNS)
def test_a_sound_column_of_another_encoding_is_damage(tmp_path, tokenizer, encodings, name):
    other = config(tmp_path, [PAIRS[1], ("aab", "ba"), *PAIRS[2:5], PAIRS[6], PAIRS[5]])
    encode(other, tokenizer, tmp_path)
    foreign = (tmp_path / "cache" / name).read_bytes()
    whole = texts(encode(config(tmp_path), tokenizer, tmp_path), tokenizer)
    (tmp_path / "cache" / name).write_bytes(foreign)
    found = encode(config(tmp_path), tokenizer, tmp_path)
    assert texts(found, tokenizer) == whole and len(encodings) == 3


def test_a_folder_of_an_earlier_format_is_made_anew(tmp_path, tokenizer):
    (tmp_path / "cache").mkdir()
    for name in ("counts.json", "bounds.npy"):
        (tmp_path / "cache" / name).write_text("{}")
    encode(config(tmp_path), tokenizer, tmp_path)
    assert sorted(p.name for p in (tmp_path / "cache").iterdir()) == sorted([*COLUMNS, "manifest.json"])


def test_opening_reads_as_much_however_many_pairs_there_are(tmp_path, tokenizer, monkeypatch):
    read, pread = [], os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, place: read.append(size) or pread(file, size, place))
    sizes = []
    for count in (10, 5000):
        encode(config(tmp_path, [("abc", "cab")] * count), tokenizer, tmp_path)
        read.clear()
        assert len(EncodedCorpus(tmp_path / "cache")) == count
        sizes.append(sum(read))
    assert sizes == [84, 84]  # a seal for each column


@pytest.mark.parametrize("name", COLUMNS)
def test_a_file_that_is_cut_while_it_is_open_is_an_error_not_a_crash(tmp_path, tokenizer, name):
    found = encode(config(tmp_path), tokenizer, tmp_path)
    file = tmp_path / "cache" / name
    os.truncate(file, 0)
    with pytest.raises(
        DataError, match=f"{file}: is shorter than it was; run the same command again"
    ) as caught:
        _ = found[3], found.number(3)
    assert caught.value.exit_code == 3


def test_bounds_that_are_changed_after_they_were_checked_are_an_error(tmp_path, tokenizer):
    found = encode(config(tmp_path), tokenizer, tmp_path)
    assert len(found[3][0]) == 4
    bounds = tmp_path / "cache" / "bounds.bin"
    content, descriptor = bounds.read_bytes(), os.open(bounds, os.O_WRONLY)
    for number in (-1, 0, 10**6, 2**62):
        os.pwrite(descriptor, number.to_bytes(8, "little", signed=True), 8 * 8)
        with pytest.raises(DataError, match=r"bounds\.bin: has been changed; "):
            found[3]
    os.pwrite(descriptor, content, 0)
    os.close(descriptor)
    assert len(found[3][0]) == 4


def test_files_that_are_removed_stay_readable(tmp_path, tokenizer):
    found = encode(config(tmp_path), tokenizer, tmp_path)
    before = texts(found, tokenizer)
    shutil.rmtree(tmp_path / "cache")
    assert texts(found, tokenizer) == before and found.number(0) == 1
