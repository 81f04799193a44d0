"""Sentence pairs from text, TSV and the built-in corpus; what is held out, and what has changed."""

import dataclasses
import gzip
import sys
import types

import pytest

from transformer.config import DataConfig
from transformer.data import corpus as corpus_module
from transformer.data.corpus import check_unchanged, open_corpora
from transformer.errors import ConfigError, DataError


def lines_of(prefix: str, count: int) -> bytes:
    return "".join(f"{prefix} {i}\n" for i in range(count)).encode()


def text(folder, count=100, **changes) -> DataConfig:
    """A configuration of one pair of files of `count` lines."""
    (folder / "train.en").write_bytes(lines_of("en", count))
    (folder / "train.de").write_bytes(lines_of("de", count))
    given = dict(root=str(folder), train_source=("train.en",), train_target=("train.de",))
    return DataConfig(**{**given, **changes})


def all_pairs(corpora):
    """Pairs of all corpora, read both ways."""
    in_order = [pair for corpus in corpora for pair in corpus]
    by_index = [corpus[i] for corpus in corpora for i in range(len(corpus))]
    assert in_order == by_index
    return in_order


def test_line_n_goes_with_line_n(tmp_path):
    data = text(tmp_path)
    (corpus,) = open_corpora(data, "train", tmp_path)
    assert corpus.name == "train.en|train.de"
    assert corpus.weight is None
    assert len(corpus) == 100
    assert all_pairs([corpus]) == [(f"en {i}", f"de {i}") for i in range(100)]
    assert open_corpora(data, "dev", tmp_path) == open_corpora(data, "test", tmp_path) == []


def test_several_pairs_of_files_with_weights_for_every_split(tmp_path):
    (tmp_path / "b.en").write_bytes(gzip.compress(lines_of("b en", 3)))
    (tmp_path / "b.de").write_bytes(lines_of("b de", 3))
    sources, targets = ("train.en", str(tmp_path / "b.en")), ("train.de", "b.de")
    both = {f"{split}_{side}": files for split in ("train", "dev", "test")
            for side, files in (("source", sources), ("target", targets))}  # fmt: skip
    data = text(tmp_path, 2, **both, train_weights=(0.25, 0.75))
    for split, weights in {"train": [0.25, 0.75], "dev": [None, None], "test": [None, None]}.items():
        corpora = open_corpora(data, split, tmp_path / "cache")
        assert [corpus.weight for corpus in corpora] == weights
        assert [len(corpus) for corpus in corpora] == [2, 3]
        assert all_pairs(corpora)[1:3] == [("en 1", "de 1"), ("b en 0", "b de 0")]


def test_unequal_numbers_of_files_and_of_lines(tmp_path):
    data = text(tmp_path, 5)
    with pytest.raises(ConfigError, match=r"train_source names 2 files but config\.data\.train_target 1"):
        open_corpora(dataclasses.replace(data, train_source=("train.en",) * 2), "train", tmp_path)
    with pytest.raises(ConfigError, match=r"dev_source names 0 files but config\.data\.dev_target 1"):
        open_corpora(dataclasses.replace(data, dev_target=("train.de",)), "dev", tmp_path)
    # U+2028 inside a line must not hide the missing line.
    (tmp_path / "train.de").write_bytes("a\u2028b\nc\nd\ne\n".encode())
    with pytest.raises(DataError, match=r"train\.en has 5 lines but .*train\.de has 4;"):
        open_corpora(data, "train", tmp_path)


@pytest.mark.parametrize(("kind", "key"), [("text", "train_source"), ("tsv", "train_tsv")])
def test_no_training_data_named(tmp_path, kind, key):
    with pytest.raises(ConfigError, match=f"config.data.{key}: no training data"):
        open_corpora(DataConfig(kind=kind), "train", tmp_path)
    with pytest.raises(ConfigError, match=f"config.data.{key}: no training data"):
        open_corpora(DataConfig(kind=kind, holdout_lines=5), "dev", tmp_path)


def test_undecodable_lines_are_errors_or_gaps(tmp_path):
    data = text(tmp_path, 5)
    (tmp_path / "train.en").write_bytes(b"a\nb\xff\nc\nd\ne\n")
    (tmp_path / "train.de").write_bytes(b"A\nB\nC\n\xe4\nE\n")
    (corpus,) = open_corpora(data, "train", tmp_path)
    for read in (lambda: list(corpus), lambda: corpus[1]):
        with pytest.raises(DataError, match=r"train\.en: line 2 is not UTF-8: byte 0xff at offset 1 "):
            read()
    with pytest.raises(DataError, match=r"train\.de: line 4 is not UTF-8"):
        corpus[3]
    skipping = open_corpora(dataclasses.replace(data, invalid_utf8="skip"), "train", tmp_path)
    assert all_pairs(skipping) == [("a", "A"), None, ("c", "C"), None, ("e", "E")]


def tsv(folder, content: bytes, **changes) -> DataConfig:
    (folder / "train.tsv").write_bytes(content)
    return DataConfig(**{**dict(kind="tsv", root=str(folder), train_tsv="train.tsv"), **changes})


def test_tsv_columns(tmp_path):
    content = 'id\t"quo\u2028ted\tzwei \r\n7\t\t drei\textra\n'.encode()
    (corpus,) = open_corpora(tsv(tmp_path, content, tsv_columns=(2, 1)), "train", tmp_path)
    assert corpus.name == "train.tsv"
    assert all_pairs([corpus]) == [("zwei ", '"quo\u2028ted'), (" drei", "")]


def test_tsv_line_with_too_few_columns(tmp_path):
    (corpus,) = open_corpora(tsv(tmp_path, b"a\tb\nc\n", tsv_columns=(0, 1)), "train", tmp_path)
    assert corpus[0] == ("a", "b")
    for read in (lambda: list(corpus), lambda: corpus[1]):
        with pytest.raises(
            DataError, match=r"train\.tsv: line 2 has 1 tab-separated columns, expected .* 2;"
        ):
            read()


def test_tsv_undecodable_line(tmp_path):
    data = tsv(tmp_path, b"a\tb\n\xfc\td\n")
    with pytest.raises(DataError, match="line 2 is not UTF-8"):
        list(open_corpora(data, "train", tmp_path)[0])
    skipping = open_corpora(dataclasses.replace(data, invalid_utf8="skip"), "train", tmp_path)
    assert all_pairs(skipping) == [("a", "b"), None]


@pytest.mark.parametrize("columns", [(), (0,), (0, 1, 2), (0, -1)])
def test_tsv_columns_must_be_two_places(tmp_path, columns):
    with pytest.raises(ConfigError, match="tsv_columns: expected the columns of source and target"):
        open_corpora(tsv(tmp_path, b"a\tb\n", tsv_columns=columns), "train", tmp_path)


@pytest.mark.parametrize(("total", "held"), [(100, 1), (100, 7), (100, 50), (100, 99), (1000, 64)])
def test_holdout_is_disjoint_complete_spread_and_independent_of_the_seed(tmp_path, total, held):
    data = text(tmp_path, total, holdout_lines=held)
    train, dev = (all_pairs(open_corpora(data, split, tmp_path)) for split in ("train", "dev"))
    assert len(dev) == held
    assert not set(train) & set(dev)
    assert set(train) | set(dev) == {(f"en {i}", f"de {i}") for i in range(total)}
    drawn = [int(source.split()[1]) for source, _ in dev]
    assert [i * held // total for i in drawn] == pytest.approx(range(held), abs=1)  # one in each stretch
    reseeded = dataclasses.replace(data, seed=9)
    assert all_pairs(open_corpora(reseeded, "dev", tmp_path)) == dev


def test_holdout_keeps_no_step_with_a_periodic_corpus(tmp_path):
    dev = all_pairs(open_corpora(text(tmp_path, 1000, holdout_lines=100), "dev", tmp_path))
    digits = [int(source.split()[1]) % 10 for source, _ in dev]
    assert all(5 <= digits.count(digit) <= 15 for digit in range(10))


def test_holdout_is_a_fixed_rule(tmp_path):
    """A run that is continued must find the same dev set, with every later version."""
    dev = all_pairs(open_corpora(text(tmp_path, 100, holdout_lines=5), "dev", tmp_path))
    assert [source for source, _ in dev] == ["en 0", "en 32", "en 44", "en 77", "en 89"]


def test_holdout_over_several_corpora_keeps_weights(tmp_path):
    (tmp_path / "one.en").write_bytes(b"only\n")
    changes = dict(train_source=("one.en", "train.en"), train_target=("one.en", "train.de"))
    data = text(tmp_path, 99, **changes, train_weights=(1.0, 3.0), holdout_lines=10)
    train, dev = (open_corpora(data, split, tmp_path) for split in ("train", "dev"))
    assert [(len(corpus), corpus.weight) for corpus in train] == [(0, 1.0), (90, 3.0)]
    assert [(len(corpus), corpus.weight) for corpus in dev] == [(1, None), (9, None)]
    assert dev[1].name == "train.en|train.de (held out)"
    assert len({*all_pairs(train), *all_pairs(dev)}) == 100


def test_holdout_only_without_a_dev_set(tmp_path):
    given = dict(dev_source=("train.en",), dev_target=("train.de",))
    data = text(tmp_path, 10, holdout_lines=3, **given)
    assert [len(open_corpora(data, split, tmp_path)[0]) for split in ("train", "dev")] == [10, 10]
    (tmp_path / "dev.tsv").write_bytes(b"a\tb\n")
    data = tsv(tmp_path, b"a\tb\n" * 10, holdout_lines=3)
    assert [len(open_corpora(data, split, tmp_path)[0]) for split in ("train", "dev")] == [7, 3]
    data = dataclasses.replace(data, dev_tsv="dev.tsv")
    assert [len(open_corpora(data, split, tmp_path)[0]) for split in ("train", "dev")] == [10, 1]


@pytest.mark.parametrize("split", ["train", "dev"])
def test_holdout_must_leave_something(tmp_path, split):
    with pytest.raises(DataError, match="holdout_lines=10 would leave nothing of 10 pairs"):
        open_corpora(text(tmp_path, 10, holdout_lines=10), split, tmp_path)


def test_cldr_is_generated_once_and_held_in_memory(tmp_path, monkeypatch):
    calls = []

    def generate(source_locale, target_locale, num_pairs, seed):
        calls.append((source_locale, target_locale, num_pairs, seed))
        return {split: [(f"{split} {i}", "x") for i in range(2)] for split in ("train", "dev", "test")}

    fake = types.SimpleNamespace(generate=generate)
    monkeypatch.setitem(sys.modules, "transformer.data.cldr", fake)
    corpus_module._generated.cache_clear()
    data = DataConfig(kind="cldr", source_language="fi", target_language="nl", cldr_pairs=2, cldr_seed=5)
    for split in ("train", "dev", "test"):
        (corpus,) = open_corpora(data, split, tmp_path)
        assert all_pairs([corpus]) == [(f"{split} 0", "x"), (f"{split} 1", "x")]
        assert corpus.files[0].path == f"cldr fi-nl {split}"
        assert corpus.files[0].size == len(f"{split} 0\tx\n") * 2
    assert calls == [("fi", "nl", 2, 5)]
    corpus_module._generated.cache_clear()


def facts(data, folder):
    corpora = [corpus for split in ("train", "dev") for corpus in open_corpora(data, split, folder)]
    return [dataclasses.asdict(fact) for corpus in corpora for fact in corpus.files]


def test_a_changed_corpus_is_noticed(tmp_path):
    data = text(tmp_path, 10, holdout_lines=2)
    recorded = facts(data, tmp_path)
    assert [fact["path"] for fact in recorded] == ["train.en", "train.de"] * 2
    check_unchanged(recorded, facts(data, tmp_path))

    moved = tmp_path / "elsewhere"
    moved.mkdir()
    check_unchanged(recorded, facts(text(moved, 10, holdout_lines=2), moved))

    changed = (tmp_path / "train.de").read_bytes().replace(b"de 7", b"de 8")  # as long as before
    (tmp_path / "train.de").write_bytes(changed)
    with pytest.raises(
        DataError, match=r"since the run began: train\.de had 50 bytes, sha256 \w{12}, now 50 "
    ):
        check_unchanged(recorded, facts(data, tmp_path))


def test_files_that_come_or_go_are_noticed(tmp_path):
    recorded = facts(text(tmp_path, 3), tmp_path)
    with pytest.raises(DataError, match=r"train\.de is no longer part of it"):
        check_unchanged(recorded, recorded[:1])
    with pytest.raises(DataError, match=r"train\.de was not part of it"):
        check_unchanged(recorded[:1], recorded)
