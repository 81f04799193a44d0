"""Byte pairs: words, merges, and text that comes back to the byte; also against the tokenizers package."""

import json
import random

import pytest

from transformer.data.byte_pairs import BytePairs, serialised, text
from transformer.errors import DataError

MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("'", "s"), ("1", "2"), ("Ã", "¤"), ("a", "a")]


@pytest.mark.parametrize(
    ("line", "pieces"),
    [
        ("the the", ["the", "Ġthe"]),
        ("the  the", ["the", "Ġ", "Ġthe"]),  # of two spaces the second belongs to the word
        ("it's", ["i", "t", "'s"]),
        ("x'sth", ["x", "'s", "th"]),
        ("a12", ["a", "12"]),  # letters and numbers are different words
        ("1 2", ["1", "Ġ", "2"]),
        ("ä", ["Ã¤"]),
        ("aaaaa", ["aa", "aa", "a"]),  # from left to right
        ("the ", ["the", "Ġ"]),
        ("", []),
    ],
)
def test_pieces(line, pieces):
    pairs = BytePairs(serialised(MERGES), "")
    assert pairs.pieces(line) == pieces
    assert text(pieces) == line


def test_earlier_merges_come_first():
    model = serialised([("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")])
    assert BytePairs(model, "").pieces("abc") == ["abc"] and BytePairs(model, "").score("abc") == -3.0
    assert BytePairs(serialised([("a", "b"), ("b", "c")]), "").pieces("abc") == ["ab", "c"]


def test_bytes_that_are_no_text():
    assert text(["Ã", "x", "â", "ĺ", "ĥ"]) == "\ufffdx☃"


@pytest.mark.parametrize(
    "model", [b"", b"\n\x05<unk>", b"#version: 0.2\na", b"#version: 0.2\na b c", b"\xff"]
)
def test_what_is_no_list_of_merges(model):
    with pytest.raises(DataError, match="not a list of byte pairs"):
        BytePairs(model, "source")


def test_random_text_against_tokenizers():
    tokenizers = pytest.importorskip("tokenizers", reason="a package of other libraries, not installed")
    rng = random.Random(0)
    letters = "abstrevlmdIVß漢ñ''  \t\n\u00a0\u2003\u2028\x1c\x85١3²½ⅷ一☃.,!-_<>\U0001f600\u0301ﬁ"
    words = ["'s", "'re", "'S", "don't", "it's", "12", "3a", "...", "the", "road", "Größe"]
    lines = ["".join(rng.choices(letters, k=rng.randrange(40))) for _ in range(500)]
    lines += [" ".join(rng.choices(words, k=rng.randrange(12))) for _ in range(500)]
    theirs = tokenizers.ByteLevelBPETokenizer()
    theirs.train_from_iterator(lines, vocab_size=400, show_progress=False)
    merges = [(left, right) for left, right in json.loads(theirs.to_str())["model"]["merges"]]
    ours = BytePairs(serialised(merges), "")
    for line in lines:
        assert ours.pieces(line) == theirs.encode(line).tokens
        assert text(ours.pieces(line)) == line
