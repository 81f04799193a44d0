"""The YAML that Marian writes, against PyYAML where that is installed."""

import random

import pytest

from transformer.exchange.flat_yaml import flat_yaml, typed

TEXT = """---
# a comment
dim-emb: 512
dim-vocabs:
  - 32000
  - 31000
input-types:
  []
vocabs: [a.yml, "b b.yml"]
transformer-preprocess: ""
transformer-postprocess: dan  # dropout, add, normalise
learn-rate: 0.0003
tied-embeddings-all: true
'it''s': 1
x:y: 2
"\\"\\\\\\u2581\\x41": 3
▁--: 4
empty:
"""


def test_what_marian_writes():
    assert {key: typed(value) for key, value in flat_yaml(TEXT).items()} == {
        "dim-emb": 512,
        "dim-vocabs": ["32000", "31000"],
        "input-types": [],
        "vocabs": ["a.yml", "b b.yml"],
        "transformer-preprocess": "",
        "transformer-postprocess": "dan",
        "learn-rate": 0.0003,
        "tied-embeddings-all": True,
        "it's": 1,
        "x:y": 2,
        '"\\▁A': 3,
        "▁--": 4,
        "empty": "",
    }


@pytest.mark.parametrize("unicode", [True, False])
def test_vocabularies_as_another_writes_them(unicode):
    yaml = pytest.importorskip("yaml", reason="PyYAML, not a dependency of this project, is not installed")
    draw, letters = random.Random(0), "▁ab'\"\\:#-?&*![]{},|>%@`~= é☃\t\u3000\xa0😀1"
    pieces = {"".join(draw.choices(letters, k=draw.randint(1, 5))): i for i in range(2000)}
    text = yaml.safe_dump(pieces, allow_unicode=unicode, sort_keys=False, width=10**6)
    assert {key: typed(value) for key, value in flat_yaml(text).items()} == pieces


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "line 2: 'a' comes twice"),
        ("a", "line 1: expected 'key: value', got 'a'"),
        ("a: b\n  - c", "line 2: expected 'key: value'"),
        ("- c", "line 1: expected 'key: value'"),
        ('a: "b', "line 1: a quote is missing"),
        ('"\\q": 1', r"line 1: '\\q' is no escape"),
        ('"\\UFFFFFFFF": 1', "is no character"),
        ("a: !!python/object:os.system x", "expected a plain or quoted scalar"),
        ("a: [b", "expected a list in brackets"),
        ("? a\n: b", "expected 'key: value'"),
    ],
)
def test_anything_else_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        flat_yaml(text)
