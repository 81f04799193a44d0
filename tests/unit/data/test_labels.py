"""Labels: where they are asked, what is kept of them, and what is refused."""

import gzip
import shutil

import numpy as np
import pytest

from transformer.config import Config, TokenizerConfig
from transformer.config_mapping import from_config_dict
from transformer.data.batch import NOT_ASKED
from transformer.data.corpus import open_corpora
from transformer.data.encoded import encode_corpus, left_out
from transformer.data.tokenizer import Tokenizer, train_tokenizer
from transformer.errors import CheckpointError, ConfigError, DataError
from transformer.io.workdir import Workdir
from transformer.run.prepare import prepare_data
from transformer.special_ids import EOS_ID

LINES = ["the old man", "a  man ", "the ship", "x"]
LINE_LABELS = ["noun phrase", " short ", "noun phrase", "rare"]
WORD_LABELS = ["D A N", "D N", "D N", "X"]
TREE = "(ROOT (NP (DT the) (JJ old) (NN man)))"


def make_config(folder, labels: str, given=(), **data) -> Config:
    folder.mkdir(exist_ok=True)
    (folder / "text").write_text("".join(f"{line}\n" for line in LINES))
    (folder / "labels").write_text("".join(f"{line}\n" for line in given))
    files = {"train_source": ("text",), "train_target": ("labels",)} if given else {"train_source": ("text",)}
    return from_config_dict(
        {
            "model": {"kind": "encoder_only", "max_length": 32},
            "tokenizer": {"model_type": "char", "vocab_size": 18},
            "data": {"root": str(folder), "labels": labels} | files | data,
            "run": {"eval_lines": 0, "best_metric": "accuracy"},
        }
    )


def prepared(config: Config, root):
    notes: list[str] = []
    return prepare_data(config, Workdir(root), notes.append), notes


def test_a_label_a_line_is_asked_at_the_end_mark(tmp_path):
    data, notes = prepared(make_config(tmp_path / "d", "line", LINE_LABELS), tmp_path / "run")
    assert data.tokenizer.labels == ("noun phrase", "rare", "short")
    assert data.tokenizer.target_vocab == 3 and data.tokenizer.source_vocab == 18
    assert "labels: 3 (noun phrase, rare, short)" in notes
    for (source, target), label in zip(data.train[0], (0, 2, 0, 1), strict=True):
        assert source[-1] == EOS_ID and target.tolist() == [NOT_ASKED] * (len(source) - 1) + [label]
    (counts,) = data.counts.values()
    assert counts["target_tokens"] == 4 and counts["unknown_tokens"] == 0


def test_a_label_a_word_is_asked_at_its_first_piece(tmp_path):
    data, _ = prepared(make_config(tmp_path / "d", "word", WORD_LABELS), tmp_path / "run")
    names = data.tokenizer.labels
    for (source, target), line, labels in zip(data.train[0], LINES, WORD_LABELS, strict=True):
        pieces = data.tokenizer.source_pieces(source)
        at = [i for i, piece in enumerate(pieces) if piece.startswith("\u2581")]
        assert [names[i] for i in target[at]] == labels.split()
        assert (np.delete(target, at) == NOT_ASKED).all()
        assert "".join(pieces[:-1]).split("\u2581")[1:] == line.split()


def test_tags_of_trees_are_labels_of_words(tmp_path):
    folder = tmp_path / "d"
    config = make_config(folder, "word", kind="trees", train_source=("trees.gz",))
    (folder / "trees.gz").write_bytes(gzip.compress(f"{TREE}\n".encode()))
    (corpus,) = open_corpora(config.data, "train", tmp_path / "cache")
    assert list(corpus) == [("the old man", "DT JJ NN")]


def test_sources_alone_are_both_sides_of_a_masked_language_model(tmp_path):
    data, _ = prepared(make_config(tmp_path / "d", "none"), tmp_path / "run")
    assert data.tokenizer.labels == () and data.tokenizer.target_vocab == 18
    assert len(data.train[0]) == 4
    for source, target in data.train[0]:
        assert source.tolist() == target.tolist()


def test_labels_are_kept_like_the_tokenizer(tmp_path):
    config, root = make_config(tmp_path / "d", "line", LINE_LABELS), tmp_path / "run"
    first, _ = prepared(config, root)
    kept = Tokenizer.load(root / "tokenizer")
    assert kept.labels == first.tokenizer.labels and kept.digest == first.tokenizer.digest
    assert kept.with_labels(()).digest == kept.pieces_digest != kept.digest
    assert kept.with_labels(("a", "b")).digest != kept.digest
    file = root / "tokenizer" / "labels.json"
    file.write_text(file.read_text().replace("rare", "bare"))
    with pytest.raises(CheckpointError, match=r"labels\.json: damaged"):
        Tokenizer.load(root / "tokenizer")


def test_a_line_with_a_label_that_training_has_not_is_left_out_and_counted(tmp_path):
    config = make_config(tmp_path / "d", "line", LINE_LABELS)
    tokenizer = train_tokenizer(LINES, [], TokenizerConfig(model_type="char", vocab_size=18))
    (corpus,) = open_corpora(config.data, "train", tmp_path / "cache")
    known = tokenizer.with_labels(("noun phrase", "short"))
    found = encode_corpus(corpus, known, config, tmp_path / "encoded")
    assert len(found) == 3 and left_out(found.counts) == "1 unknown_label"


def test_words_and_labels_that_are_not_as_many_are_refused_with_their_place(tmp_path):
    config = make_config(tmp_path / "d", "word", [*WORD_LABELS[:1], "D", *WORD_LABELS[2:]])
    with pytest.raises(DataError, match=r"text\|labels: pair 2 has 2 words and 1 labels; give each word one"):
        prepared(config, tmp_path / "run")


def test_a_new_run_has_the_labels_of_its_data(tmp_path):
    prepared(make_config(tmp_path / "d", "line", LINE_LABELS), tmp_path / "run")
    shutil.copytree(tmp_path / "run" / "tokenizer", tmp_path / "other" / "tokenizer")
    data, _ = prepared(make_config(tmp_path / "e", "line", ["a", "b", "b", "c"]), tmp_path / "other")
    assert data.tokenizer.labels == ("a", "b", "c") and len(data.train[0]) == len(LINES)
    assert Tokenizer.load(tmp_path / "other" / "tokenizer").labels == data.tokenizer.labels


def test_a_masked_language_model_reads_one_column(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "table").write_text("".join(f"{line}\n" for line in LINES[:3]) + "x\t\ty\n")
    config = make_config(tmp_path / "d", "none", train_source=(), kind="tsv", train_tsv="table")
    data, _ = prepared(config, tmp_path / "run")
    assert [len(source) for source, _ in data.train[0]] == [13, 9, 10, 3]


def test_one_label_is_no_choice(tmp_path):
    with pytest.raises(DataError, match=r"the labels are \['a'\]; there is nothing to tell apart"):
        prepared(make_config(tmp_path / "d", "line", ["a"] * 4), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": {"kind": "encoder_decoder"}, "data": {"labels": "line"}},
            "data.labels: 'line' is for classif",
        ),
        (
            {"data": {"train_source": ("a",), "train_target": ("b",)}},
            "data.train_target: 'encoder_only' models",
        ),
        (
            {"data": {"train_source": ("a",), "labels": "line"}},
            "data.train_target: must name a file of labels",
        ),
        ({"data": {"kind": "trees", "labels": "line"}}, "data.labels: trees have tags"),
        ({"data": {"mask_rate": 0.0}}, "data.mask_rate: at 0 nothing is asked for"),
        ({"data": {"subword_dropout": 0.1}}, "data.subword_dropout: would move"),
        ({"tokenizer": {"joint": False}}, "tokenizer.joint: 'encoder_only' models have one side"),
        ({"run": {}}, "run.eval_lines: 'encoder_only' models translate nothing"),
        ({"init": {"vocabulary": "transplant"}}, "init.vocabulary, "),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(changes, message):
    plain = {"model": {"kind": "encoder_only"}, "run": {"eval_lines": 0, "best_metric": "nll"}}
    with pytest.raises(ConfigError) as refusal:
        from_config_dict(plain | changes)
    assert f"config.{message}" in str(refusal.value)


def test_sources_without_targets_are_no_pairs(tmp_path):
    config = make_config(tmp_path / "d", "none")
    with pytest.raises(ConfigError, match=r"train_source names 1 files but config\.data\.train_target 0"):
        open_corpora(config.data, "train", tmp_path / "cache")
