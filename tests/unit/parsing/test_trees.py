"""Trees read from brackets and written: every form, every fault."""

import random

import pytest
from unit.parsing.treebank import gum_lines, gum_trees, random_tree

from transformer.errors import DataError
from transformer.parsing.trees import Leaf, Node, Tree, escaped, read_tree


def test_a_tree_by_hand():
    line = "(ROOT (S (NP (NP (DT The) (NN cat))) (VP (VBZ sits)) (. .)))"
    tree = read_tree(line, "here")
    assert tree.leaves == (Leaf("DT", "The"), Leaf("NN", "cat"), Leaf("VBZ", "sits"), Leaf(".", "."))
    # The outer of two nodes over the same words comes first.
    assert tree.nodes == (
        Node("ROOT", 0, 4),
        Node("S", 0, 4),
        Node("NP", 0, 2),
        Node("NP", 0, 2),
        Node("VP", 2, 3),
    )
    assert tree.words == ("The", "cat", "sits", ".")
    assert str(tree) == line
    tagged = "(ROOT (S (NP (NP (A The) (B cat))) (VP (C sits)) (D .)))"
    assert str(tree.tagged("ABCD")) == tagged


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("( (S (NN a)))", "( (S (NN a)))"),  # the Penn Treebank's own form
        ("  (S(NN  a)\t(NP(X b ) ) ) ", "(S (NN a) (NP (X b)))"),  # white space means nothing
        ("(S (NN a\u00a0b) (X \u2028))", "(S (NN a\u00a0b) (X \u2028))"),  # but what is no separator is text
    ],
)
def test_other_forms(given, written):
    assert str(read_tree(given, "here")) == written


@pytest.mark.parametrize(
    ("line", "column", "what"),
    [
        ("(S (NN a) b)", 11, "got 'b', expected a bracket"),
        ("(S (NN a b))", 8, "got 'a', expected a bracket"),
        ("a (S (NN a))", 1, "got 'a'"),
        ("(S (NP) (NN a))", 4, r"'\(NP' holds no word"),
        ("(S)", 1, r"'\(S' holds no word"),
        ("(S (NN a)) (S (NN b))", 12, "a second tree begins"),
        ("(S (NN a)))", 11, "a second tree begins with '\\)'"),
        (")", 1, "closes nothing"),
        ("(S (NP (NN a))", 1, r"'\(S' is never closed"),
        ("(S (NP (NN a)", 4, r"'\(NP' is never closed"),
        ("(NN a)", 1, "no constituent around it"),
        ("(S ( (NN a)))", 4, "without a label"),
        ("(S (NN a) ( NP (NN b)))", 11, "without a label"),
    ],
)
def test_faults_name_line_and_column_in_one_line(line, column, what):
    with pytest.raises(DataError, match=f"^dev.trees: line 7, column {column}: .*{what}") as error:
        read_tree(line, "dev.trees: line 7")
    assert "\n" not in str(error.value)


def test_traces_only_where_they_may_be():
    line = "(S (NP (-NONE- *T*-1)) (NN a))"
    assert str(read_tree(line, "x")) == line
    with pytest.raises(DataError, match=r"^x, column 8: '\(-NONE- \*T\*-1\)' is a trace"):
        read_tree(line, "x", traces=False)


@pytest.mark.parametrize("line", ["", "  \t "])
def test_an_empty_line_is_no_tree(line):
    with pytest.raises(DataError, match=r"^x: line 2: is empty, expected a tree"):
        read_tree(line, "x: line 2")


def test_long_foreign_text_is_told_short():
    with pytest.raises(DataError) as error:
        read_tree("(S " + "x" * 10_000 + ")", "x")
    assert len(str(error.value)) < 150


def test_depth_costs_nothing():
    deep = 50_000
    line = "(A " * deep + "(NN a)" + ")" * deep
    tree = read_tree(line, "x")
    assert len(tree.nodes) == deep
    assert str(tree) == line
    assert tree == read_tree(str(tree), "x")
    with pytest.raises(DataError, match="never closed"):
        read_tree(line[:-1], "x")


def test_what_is_written_is_read_back():
    draw = random.Random(1)
    for _ in range(500):
        tree = random_tree(draw, draw.randint(1, 12))
        assert read_tree(str(tree), "x") == tree


def test_brackets_as_words():
    assert [escaped(w) for w in ("(", ")", ":-)", "word")] == ["-LRB-", "-RRB-", ":--RRB-", "word"]


@pytest.mark.parametrize("name", ["dev.clean", "test.clean", "dev"])
def test_a_treebank(name):
    lines, trees = gum_lines(f"{name}.trees"), gum_trees(f"{name}.trees")
    assert [str(tree) for tree in trees] == lines
    if name.endswith("clean"):
        assert [" ".join(tree.words) for tree in trees] == gum_lines(name.replace("clean", "tok"))


def test_trees_are_values():
    a, b = (read_tree("(S (NN a))", "x") for _ in range(2))
    assert a == b and hash(a) == hash(b) and len({a, b}) == 1
    assert a != Tree((Leaf("NN", "b"),), a.nodes)
