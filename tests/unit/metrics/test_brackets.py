"""Brackets counted as EVALB counts: by hand, by what it has counted once, and beside it and PYEVALB.

evalb.tsv holds random trees, damaged ones and EVALB's six numbers of each pair, in the order of `Row`. They
are counted anew where EVALB (https://nlp.cs.nyu.edu/evalb/) is on the path.
"""

import contextlib
import io
import random
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from unit.parsing.treebank import LABELS, ODD_TAGS, TAGS, gum_trees, random_tree

from transformer.metrics.brackets import Brackets, score_trees
from transformer.parsing.linear import ROOTS, linearise, restore
from transformer.parsing.trees import Leaf, Node, Tree, read_tree

PARAMETERS = """DEBUG 0
MAX_ERROR 1000000
CUTOFF_LEN 40
LABELED 1
DELETE_LABEL TOP
DELETE_LABEL ROOT
DELETE_LABEL -NONE-
DELETE_LABEL ,
DELETE_LABEL :
DELETE_LABEL ``
DELETE_LABEL ''
DELETE_LABEL .
DELETE_LABEL_FOR_LENGTH -NONE-
EQ_LABEL ADVP PRT
"""


def counts(gold: str, predicted: str, **options) -> Brackets:
    return score_trees([(read_tree(gold, "gold"), read_tree(predicted, "predicted"))], **options)


def test_by_hand():
    # Gold: S 0-5, NP 0-2, VP 2-5, NP 3-5. Predicted: S 0-5, NP 0-2, VP 2-5, NP 3-4, NP 4-5.
    gold = "(ROOT (S (NP (DT the) (NN cat)) (VP (VBZ sees) (NP (DT a) (NN bird)))))"
    predicted = "(ROOT (S (NP (DT the) (NN cat)) (VP (VBZ sees) (NP (DT a)) (NP (NNP bird)))))"
    found = counts(gold, predicted)
    assert found == Brackets(sentences=1, matched=3, gold=4, predicted=5, words=5, tagged=4)
    assert found.precision == pytest.approx(60)
    assert found.recall == pytest.approx(75)
    assert found.f1 == pytest.approx(2 * 60 * 75 / (60 + 75))
    assert found.complete_match == 0
    assert found.tagging_accuracy == pytest.approx(80)


def test_a_tree_against_itself():
    tree = "(ROOT (S (NP (PRP it)) (VP (VBZ works)) (. .)))"
    # The full stop is no word of the score.
    assert counts(tree, tree) == Brackets(
        sentences=1, matched=3, gold=3, predicted=3, complete=1, words=2, tagged=2
    )
    assert counts(tree, tree).complete_match == counts(tree, tree).f1 == 100


@pytest.mark.parametrize("root", ["TOP", "ROOT", "S1", ""])
def test_roots_do_not_count(root):
    assert counts(f"({root} (S (NN a)))", "(TOP (S (NN a)))").gold == 1


def test_where_punctuation_hangs_does_not_matter():
    gold = "(ROOT (S (NP (NN a) (, ,) (NN b)) (VP (VBZ c)) (. .)))"
    predicted = "(ROOT (S (NP (NN a) (PRN (, ,)) (NN b)) (VP (VBZ c) (. .))))"
    # PRN holds punctuation alone: it is gone with it. VP ends with c in both.
    assert counts(gold, predicted) == Brackets(1, 0, 0, 3, 3, 3, 1, 3, 3)


def test_traces_go_and_so_do_labels_functions():
    gold = "(ROOT (S (NP-SBJ-1 (NN a)) (VP (VBD b) (S (NP-SBJ (-NONE- *-1)) (VP (VB c))) (NP=2 (NN d)))))"
    predicted = "(ROOT (S (NP (NN a)) (VP (VBD b) (S (VP (VB c))) (NP (NN d)))))"
    # S, NP, VP, S, VP, NP: the subject that is only a trace is none of them.
    assert counts(gold, predicted) == Brackets(1, 0, 0, 6, 6, 6, 1, 4, 4)


def test_advp_is_prt_also_in_a_chain():
    gold = "(ROOT (VP (VB give) (ADVP (PRT (RP up)))))"
    assert counts(gold, "(ROOT (VP (VB give) (PRT (ADVP (RP up)))))").complete == 1
    assert counts(gold, "(ROOT (VP (VB give) (PRT (RP up))))").matched == 2


def test_each_bracket_is_right_once():
    once, twice = "(ROOT (NP (NN a)))", "(ROOT (NP (NP (NN a))))"
    assert counts(once, twice)[3:7] == (1, 1, 2, 0)
    assert counts(twice, once)[3:7] == (1, 2, 1, 0)
    assert counts(twice, twice)[3:7] == (2, 2, 2, 1)
    # The order of a chain is none of brackets' business.
    assert counts("(ROOT (S (VP (VB a))))", "(ROOT (VP (S (VB a))))").complete == 1


def test_other_words_are_an_error_that_counts_nowhere():
    right = "(ROOT (NP (NN a) (NN b)))"
    assert counts(right, "(ROOT (NP (NN a)))") == Brackets(sentences=1, errors=1)
    assert counts(right, "(ROOT (NP (NN a) (NN c)))") == Brackets(sentences=1, errors=1)
    pairs = [(read_tree(right, "x"), read_tree(tree, "x")) for tree in (right, "(ROOT (NP (NN b) (NN a)))")]
    both = score_trees(pairs)
    assert (both.sentences, both.errors, both.f1, both.complete_match) == (2, 1, 100, 100)


def test_punctuation_taken_for_a_word_is_an_error_unless_tags_are_gold():
    gold, predicted = "(ROOT (S (NN a) (, ,) (NN b)))", "(ROOT (S (NP (XX a)) (XX ,) (XX b)))"
    assert counts(gold, predicted) == Brackets(sentences=1, errors=1)
    assert counts(gold, predicted, gold_tags=True) == Brackets(1, 0, 0, 1, 1, 2, 0, 2, 2)
    traced = gold.replace("(NN a)", "(NP (-NONE- *)) (NN a)")
    assert counts(traced, predicted, gold_tags=True) == counts(gold, predicted, gold_tags=True)
    # Where words differ there is nothing to take tags from.
    assert counts(gold, "(ROOT (S (XX a)))", gold_tags=True) == Brackets(sentences=1, errors=1)


def test_nothing_but_punctuation_is_skipped():
    assert counts("(ROOT (S (. .)))", "(ROOT (S (. .)))") == Brackets(sentences=1, skipped=1)
    assert counts("(ROOT (S (NN .)))", "(ROOT (S (. .)))") == Brackets(sentences=1, skipped=1)
    assert counts("(ROOT (S (. .)))", "(ROOT (S (NN .)))") == Brackets(sentences=1, errors=1)


def test_of_nothing_comes_nothing():
    nothing = score_trees([])
    assert nothing == Brackets()
    assert (nothing.f1, nothing.precision, nothing.recall, nothing.complete_match) == (0, 0, 0, 0)
    assert nothing.tagging_accuracy == 0


def perturbed(tree: Tree, draw: random.Random, tags: Sequence[str] = TAGS) -> Tree:
    """Returns the tree with brackets lost, added, renamed and moved, and now and then another tag."""
    symbols = linearise(tree, keep_tags=True)
    for _ in range(draw.randint(0, 4)):
        place = draw.randrange(len(symbols))
        if symbols[place][0] not in "()":
            if draw.random() < 0.2:
                symbols[place] = draw.choice(tags)
        elif draw.random() < 0.5:
            del symbols[place]
        else:
            symbols.insert(draw.randrange(len(symbols)), f"({draw.choice(LABELS)}")
        if not symbols:
            break
    return restore(symbols, tree.words)[0]


def pairs_of(draw: random.Random) -> list[tuple[Tree, Tree]]:
    golds = [random_tree(draw, draw.randint(1, 9), ODD_TAGS) for _ in range(400)]
    return [(gold, perturbed(gold, draw, ODD_TAGS)) for gold in golds]


class Row(NamedTuple):
    status: int  # 1: an error, 2: skipped, both without numbers that mean anything
    matched: int
    gold: int
    predicted: int
    words: int
    tagged: int


def evalb(pairs: list[tuple[Tree, Tree]], folder: Path) -> tuple[list[Row], str]:
    """Returns what EVALB counts of each pair, and its output; skips the test without it."""
    program = shutil.which("evalb")
    if program is None:
        pytest.skip("EVALB (https://nlp.cs.nyu.edu/evalb/) is not on the path")
    (folder / "with_root.prm").write_text(PARAMETERS)
    for name, trees in zip(("gold", "test"), zip(*pairs, strict=True), strict=True):
        (folder / name).write_text("".join(f"{tree}\n" for tree in trees), encoding="utf-8")
    command = [program, "-e", "1000000", "-p", "with_root.prm", "gold", "test"]
    output = subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout.decode(
        "utf-8", "replace"
    )
    each = re.findall(
        r"^ *\d+ +\d+ +([012]) +[\d.]+ +[\d.]+ +(\d+) +(\d+) +(\d+) +\d+ +(\d+) +(\d+) ", output, re.M
    )
    assert len(each) == len(pairs)
    return [Row(*map(int, row)) for row in each], output


def check(pairs: list[tuple[Tree, Tree]], rows: list[Row]) -> None:
    for pair, row in zip(pairs, rows, strict=True):
        ours = score_trees([pair])
        assert (ours.errors, ours.skipped) == (row.status == 1, row.status == 2), pair
        assert row.status or row[1:] == (ours.matched, ours.gold, ours.predicted, ours.words, ours.tagged), (
            pair
        )


def counted() -> tuple[list[tuple[Tree, Tree]], list[Row]]:
    """Returns the pairs of evalb.tsv, and what EVALB counted of each."""
    lines = (Path(__file__).parent / "evalb.tsv").read_text().splitlines()
    cells = [line.split("\t") for line in lines]
    pairs = [(read_tree(gold, "gold"), read_tree(predicted, "predicted")) for gold, predicted, *_ in cells]
    return pairs, [Row(*map(int, row)) for _, _, *row in cells]


def test_as_evalb_has_counted():
    pairs, rows = counted()
    assert {row.status for row in rows} == {0, 1, 2} and len(rows) == 150
    check(pairs, rows)


def test_evalb_still_counts_so(tmp_path):
    pairs, rows = counted()
    anew, _ = evalb(pairs, tmp_path)
    assert anew == rows


def check_against_evalb(pairs: list[tuple[Tree, Tree]], folder: Path) -> None:
    rows, output = evalb(pairs, folder)
    check(pairs, rows)
    ours = score_trees(pairs)
    assert (
        ours.errors and ours.complete < ours.sentences - ours.errors - ours.skipped
    )  # there was something to see
    summary = {
        name: float(x) for name, x in re.findall(r"^(.+?) *= +([\d.]+)$", output.split("-- len")[0], re.M)
    }
    assert summary["Number of Error sentence"] == ours.errors
    assert summary["Number of Skip  sentence"] == ours.skipped
    assert summary["Bracketing Recall"] == pytest.approx(ours.recall, abs=0.006)
    assert summary["Bracketing Precision"] == pytest.approx(ours.precision, abs=0.006)
    assert summary["Bracketing FMeasure"] == pytest.approx(ours.f1, abs=0.006)
    assert summary["Complete match"] == pytest.approx(ours.complete_match, abs=0.006)
    assert summary["Tagging accuracy"] == pytest.approx(ours.tagging_accuracy, abs=0.006)


def test_beside_evalb(tmp_path):
    check_against_evalb(pairs_of(random.Random(5)), tmp_path)


def test_beside_evalb_on_a_treebank(tmp_path):
    draw = random.Random(6)
    check_against_evalb([(gold, perturbed(gold, draw)) for gold in gum_trees("dev.clean.trees")], tmp_path)


def plainly(tree: Tree) -> Tree | None:
    """Returns the tree as PYEVALB can score it: no punctuation, no chain of equal labels; or None."""
    kept = [leaf.tag not in TAGS[5:] for leaf in tree.leaves]
    leaves = tuple(Leaf(leaf.tag, "w") for leaf, keep in zip(tree.leaves, kept, strict=True) if keep)
    nodes = [Node(n.label, sum(kept[: n.start]), sum(kept[: n.end])) for n in tree.nodes]
    nodes = [node for node in nodes if node.start < node.end]
    usual = all(len(set(node.label) & set("-=")) == 0 and node.label != "PRT" for node in nodes)
    return Tree(leaves, tuple(nodes)) if leaves and usual and len(nodes) == len(set(nodes)) else None


def test_beside_pyevalb():
    """It knows no punctuation, counts roots and takes equal brackets for one: it is given none."""
    scorer = pytest.importorskip("PYEVALB.scorer", reason="PYEVALB is not installed")
    from PYEVALB import parser

    draw, compared = random.Random(7), 0
    for gold in gum_trees("dev.clean.trees")[:600]:
        pair = plainly(gold), plainly(perturbed(gold, draw))
        if None in pair or len(pair[0].leaves) != len(pair[1].leaves) or not gold.nodes[1:]:
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            theirs = scorer.Scorer().score_trees(*(parser.create_from_bracket_string(str(t)) for t in pair))
        ours = score_trees([pair])
        roots = sum(tree.nodes[0].label in ROOTS for tree in pair) // 2
        assert theirs.matched_brackets == ours.matched + roots
        assert theirs.gold_brackets == ours.gold + roots
        assert theirs.test_brackets == ours.predicted + roots
        assert theirs.correct_tags == ours.tagged
        compared += 1
    assert compared > 300
