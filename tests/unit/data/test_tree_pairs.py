"""Trees as training pairs: words and symbols, each symbol one piece."""

import gzip
import random

import pytest
from unit.parsing.treebank import random_tree

from transformer.config import DataConfig, TokenizerConfig
from transformer.config_mapping import from_config_dict
from transformer.data.corpus import open_corpora
from transformer.data.tokenizer import Tokenizer, train_tokenizer
from transformer.errors import ConfigError, DataError
from transformer.io.workdir import Workdir
from transformer.parsing.linear import Repairs, linearise, restore
from transformer.parsing.trees import TRACE, Tree
from transformer.run.prepare import prepare_data

TREE = "(ROOT (S (NP (DT The) (NN cat)) (VP (VBZ sits)) (. .)))"
PAIR = "The cat sits .", "(S (NP XX XX )NP (VP XX )VP . )S"


def trees(count: int) -> list[Tree]:
    """Returns trees without traces, drawn at random."""
    draw = random.Random(11)
    drawn = [random_tree(draw, draw.randint(2, 9)) for _ in range(count)]
    return [tree.tagged([leaf.tag.replace(TRACE, "NN") for leaf in tree.leaves]) for tree in drawn]


def data(folder, text: bytes = f"{TREE}\n".encode(), **changes) -> DataConfig:
    (folder / "a.trees").write_bytes(text)
    return DataConfig(**{"kind": "trees", "root": str(folder), "train_source": ("a.trees",), **changes})


def test_words_and_symbols(tmp_path):
    (corpus,) = open_corpora(data(tmp_path), "train", tmp_path)
    assert (corpus.name, len(corpus), corpus.weight) == ("a.trees", 1, None)
    assert list(corpus) == [corpus[0]] == [PAIR]
    (fact,) = corpus.files
    assert (fact.path, fact.size) == ("a.trees", len(TREE) + 1)
    (tagged,) = open_corpora(data(tmp_path, tree_tags=True), "train", tmp_path)
    assert tagged[0] == (PAIR[0], "(S (NP DT NN )NP (VP VBZ )VP . )S")


def test_gold_and_silver_with_their_shares(tmp_path):
    (tmp_path / "silver.trees").write_bytes(gzip.compress(f"{TREE}\n{TREE}\n".encode()))
    both = dict(train_source=("a.trees", "silver.trees"), dev_source=("a.trees",))
    config = data(tmp_path, **both, train_weights=(0.75, 0.25))
    assert [(c.weight, len(c)) for c in open_corpora(config, "train", tmp_path)] == [(0.75, 1), (0.25, 2)]
    assert [(c.weight, len(c)) for c in open_corpora(config, "dev", tmp_path)] == [(None, 1)]
    assert open_corpora(config, "test", tmp_path) == []


def test_pairs_may_be_held_out(tmp_path):
    text = "".join(f"{tree}\n" for tree in trees(50)).encode()
    config = data(tmp_path, text, holdout_lines=5)
    train, dev = (open_corpora(config, split, tmp_path)[0] for split in ("train", "dev"))
    assert (len(train), len(dev)) == (45, 5)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("(ROOT (S (NN a))", r"a\.trees: line 2, column 1: '\(ROOT' is never closed"),
        ("", r"a\.trees: line 2: is empty"),
        ("(ROOT (S (-NONE- *) (NN a)))", r"a\.trees: line 2, column 10: .* is a trace; remove them"),
    ],
)
def test_lines_that_are_no_trees(tmp_path, line, message):
    (corpus,) = open_corpora(data(tmp_path, f"{TREE}\n{line}\n{TREE}\n".encode()), "train", tmp_path)
    for read in (list, lambda corpus: corpus[1]):
        with pytest.raises(DataError, match=message):
            read(corpus)


def test_lines_that_are_not_utf8(tmp_path):
    text = f"{TREE}\n".encode() + b"(ROOT (NN \xff))\n"
    (corpus,) = open_corpora(data(tmp_path, text, invalid_utf8="skip"), "train", tmp_path)
    assert list(corpus) == [PAIR, None] == [corpus[0], corpus[1]]
    (corpus,) = open_corpora(data(tmp_path, text), "train", tmp_path)
    with pytest.raises(DataError, match="line 2 is not UTF-8"):
        list(corpus)


def test_files_that_cannot_be_named():
    with pytest.raises(ConfigError, match=r"dev_target: trees are source and target; .* in data\.dev_source"):
        from_config_dict({"data": {"kind": "trees", "dev_target": ("a",)}})
    with pytest.raises(ConfigError, match="train_source: no training data is named"):
        open_corpora(DataConfig(kind="trees"), "train", "")


@pytest.mark.parametrize(("model_type", "size"), [("bpe", 75), ("unigram", 52)])
def test_each_symbol_is_one_piece(model_type, size):
    given = trees(300)
    sources = [" ".join(tree.words) + " some (other) words, XXL INTO .com" for tree in given]
    targets = [" ".join(linearise(tree)) for tree in given]
    symbols = sorted({symbol for line in targets for symbol in line.split()})
    config = TokenizerConfig(model_type=model_type, vocab_size=size)
    tokenizer = train_tokenizer(sources, targets, config, symbols)
    ids = tokenizer.encode_target(targets)
    assert [len(line) for line in ids] == [len(target.split()) + 1 for target in targets]
    for tree, text in zip(given, tokenizer.decode_target(ids), strict=True):
        assert restore(text.split(), tree.words)[1] == Repairs()
    # Words that begin like a symbol are none the worse for it.
    assert tokenizer.decode_target(tokenizer.encode_target(sources)) == sources


def test_a_vocabulary_must_hold_the_symbols():
    with pytest.raises(DataError, match=r"vocab_size: 20 bpe pieces cannot be made .*vocab_size"):
        config = TokenizerConfig(model_type="bpe", vocab_size=20)
        train_tokenizer(["a b"] * 9, ["(S XX )S"] * 9, config, [f"(L{i}" for i in range(30)])


def test_rare_symbols_are_pieces_of_a_run_too(tmp_path):
    lines = [TREE] * 200 + ["(ROOT (SBARQ (WHADVP (WRB why))))"]
    settings = dict(kind="trees", root=str(tmp_path), train_source=("a.trees",))
    data(tmp_path, "".join(f"{line}\n" for line in lines).encode())
    config = from_config_dict({"data": settings, "tokenizer": {"model_type": "bpe", "vocab_size": 45}})
    workdir = Workdir(tmp_path / "run")
    prepared = prepare_data(config, workdir, lambda line: None)
    assert prepared.counts["train a.trees"]["target_tokens"] == 200 * 11 + 6
    rare = "(SBARQ (WHADVP XX )WHADVP )SBARQ"
    assert Tokenizer.load(workdir.tokenizer).target_pieces(prepared.tokenizer.encode_target([rare])[0]) == [
        *("▁" + symbol for symbol in rare.split()),
        "</s>",
    ]
