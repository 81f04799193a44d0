"""The verb `parse`: trees for sentences, scores for trees; what goes where, and what is refused."""

import json
import sys
import types

import pytest
from unit.parsing.treebank import gum_lines

import transformer.run.translate  # noqa: F401 - takes what is replaced below by its name, and only once
from transformer import cli
from transformer.config import DecodeConfig
from transformer.config_mapping import from_config_dict, replace_decode
from transformer.inference.translator import Translator

GOLD = """(ROOT (S (NP (PRP it)) (VP (VBZ works)) (. .)))
(ROOT (NP (NN a) (, ,) (NN b)))
"""


OUTPUTS = {
    "it works .": "(S (NP XX )NP (VP XX )VP . )S",
    "a , b": "(NP XX XX XX )NP",
    "-LRB- x -RRB-": "(S (NP XX XX",
    "": "",
}


class Scripted:
    """Stands for a translator: what it writes for a source is written down."""

    num_split = 0

    def settings(self, n_best, options):
        return replace_decode(DecodeConfig(), options)

    def translate(self, lines, **options):
        self.options = options
        return [OUTPUTS[line] for line in lines]


@pytest.fixture
def translator(monkeypatch):
    scripted = Scripted()
    loaded = types.SimpleNamespace(
        config=from_config_dict({"data": {"kind": "trees"}, "run": {"eval_lines": 0, "best_metric": "nll"}})
    )
    monkeypatch.setattr("transformer.inference.model_directory.load_model", lambda path, checkpoint: loaded)
    monkeypatch.setattr(Translator, "of", classmethod(lambda cls, model: scripted))
    return scripted


def test_a_model_of_no_trees_is_refused(parse, monkeypatch):
    loaded = types.SimpleNamespace(config=from_config_dict({}))
    monkeypatch.setattr("transformer.inference.model_directory.load_model", lambda path, checkpoint: loaded)
    code, out, err = parse("--model", "m", "--input", __file__)
    assert (code, out) == (2, "") and "--model: m was not trained to write trees" in err


@pytest.fixture
def parse(capsys):
    """Returns a function that runs the verb: (exit code, standard output, standard error)."""

    def call(*arguments):
        try:
            code = cli.main(["parse", *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def gold(tmp_path):
    (tmp_path / "gold").write_text(GOLD)
    (tmp_path / "ids").write_text("GUM_news_one\t0\nGUM_bio_two\t5\n")
    return tmp_path / "gold"


def rows(table):
    return [" ".join(line.split()) for line in table.splitlines()]


def test_a_tree_a_line_in_order_and_nothing_else(translator, parse, tmp_path):
    (tmp_path / "text").write_text("it  works .\n\n(\tx )\n")
    output = tmp_path / "trees"
    code, out, err = parse(
        "--model", "m", "--input", tmp_path / "text", "--output", output, "--beam_size", 21
    )
    assert (code, out) == (0, "")
    assert output.read_text().split("\n") == [
        "(ROOT (S (NP (XX it)) (VP (XX works)) (. .)))",
        "",  # no words, no tree
        "(ROOT (S (NP (XX -LRB-) (XX x) (XX -RRB-))))",
        "",
    ]
    assert "3 sentences parsed, 1 tree repaired: 1 missing tags, 2 unclosed\n" in err
    assert translator.options == {"first_line": 0, "beam_size": 21}


def test_from_standard_input_to_standard_output(translator, parse, tmp_path, monkeypatch):
    (tmp_path / "lines").write_bytes(b"it works .\r\na , b\n")
    with (tmp_path / "lines").open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        code, out, err = parse("--model", "m")
    assert (code, out) == (
        0,
        "(ROOT (S (NP (XX it)) (VP (XX works)) (. .)))\n(ROOT (NP (XX a) (XX ,) (XX b)))\n",
    )
    assert "2 sentences parsed" in err


def test_scores_of_a_model(translator, parse, gold, tmp_path):
    arguments = ["--model", "m", "--gold", gold, "--ids", tmp_path / "ids", "--json", tmp_path / "json"]
    code, out, err = parse(*arguments)
    assert code == 0
    # The comma of the second sentence became a word: by EVALB's rules that is an error.
    assert rows(out) == [
        "sentences errors skipped f1 precision recall complete_match tagging_accuracy",
        "bio 1 1 0 0.00 0.00 0.00 0.00 0.00",
        "news 1 0 0 100.00 100.00 100.00 100.00 0.00",
        "all 2 1 0 100.00 100.00 100.00 100.00 0.00",
    ]
    assert (
        "warning: 1 trees count nowhere: they have other words than the gold ones, or other punctuation"
        in err
    )
    assert "2 sentences parsed, 0 trees repaired: none" in err
    found = json.loads((tmp_path / "json").read_text())
    assert list(found) == ["bio", "news", "all"]
    code, _, err = parse(*arguments[:-1], gold)
    assert code == 3 and err.endswith("is a file that is read; write to another one\n")
    assert (found["all"]["sentences"], found["all"]["errors"], found["all"]["f1"]) == (2, 1, 100)

    code, out, err = parse(*arguments, "--gold_tags", "--output", tmp_path / "trees")
    assert rows(out)[-1] == "all 2 0 0 100.00 100.00 100.00 100.00 100.00"
    assert "warning" not in err
    # Trees are written as the model made them, and score the same from the file.
    assert (tmp_path / "trees").read_text().splitlines()[1] == "(ROOT (NP (XX a) (XX ,) (XX b)))"
    again = parse("--gold", gold, "--hypothesis", tmp_path / "trees", "--gold_tags")
    assert rows(again[1])[-1] == rows(out)[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("--gold {0}/gold", 2, "--model: is needed (a run's folder), or --gold and --hypothesis"),
        ("--ids {0}/ids", 2, "--ids: needs --gold"),
        ("--hypothesis {0}/gold", 2, "--hypothesis: needs --gold"),
        ("--gold_tags", 2, "--gold_tags: needs --gold"),
        ("--gold {0}/gold --input {0}/ids", 2, "--input: with --gold the sentences are those"),
        ("--gold {0}/gold --hypothesis {0}/one", 3, "gold has 2 trees, {0}/one 1; tree n of one"),
        ("--gold {0}/gold --hypothesis {0}/ids", 3, "{0}/ids: line 1, column 1: got 'GUM_news_one'"),
        ("--gold {0}/gold --hypothesis {0}/one --output {0}/x", 2, "--output: with --hypothesis nothing is"),
        ("--gold {0}/goled", 3, "{0}/goled: no such file; did you mean 'gold'?"),
        ("--gold {0}/traces --model m", 3, "{0}/traces: line 1, column 7: '(-NONE- *)' is a trace"),
        ("--gold {0}/gold --hypothesis {0}/gold --ids {0}/gold", 3, "{0}/gold: line 1: got '(ROOT (S"),
        ("--gold {0}/one --hypothesis {0}/one --ids {0}/ids", 3, "{0}/ids has 2 lines, {0}/one 1; line n"),
        (
            "--gold {0}/gold --hypotesis {0}/one",
            2,
            "--hypotesis: unknown argument; did you mean '--hypothesis'?",
        ),
    ],
)
def test_mistakes_are_one_line(parse, gold, tmp_path, arguments, code, message):
    (tmp_path / "one").write_text(GOLD.split("\n")[0] + "\n")
    (tmp_path / "traces").write_text("(ROOT (-NONE- *) (NN a))\n")
    found, out, err = parse(*arguments.format(tmp_path).split())
    assert (found, out) == (code, "")
    assert message.format(tmp_path) in err.splitlines()[-1] and "Traceback" not in err


def test_a_treebank_against_itself(parse, tmp_path):
    for name in ("trees", "ids"):
        ending = {"trees": "clean.trees", "ids": "ids"}[name]
        (tmp_path / name).write_text("\n".join(gum_lines(f"dev.{ending}")) + "\n", encoding="utf-8")
    code, out, _ = parse(
        "--gold", tmp_path / "trees", "--hypothesis", tmp_path / "trees", "--ids", tmp_path / "ids"
    )
    *genres, total = [row.split() for row in rows(out)[1:]]
    assert code == 0 and len(genres) == 15
    assert total[:3] == ["all", "1,575", "0"] and total[4:] == ["100.00"] * 5
    assert sum(int(genre[1].replace(",", "")) for genre in genres) == 1575
