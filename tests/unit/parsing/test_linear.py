"""Trees as symbols and back; whatever a model may write becomes a tree over the words, and says how."""

import random

import pytest
from unit.parsing.treebank import LABELS, TAGS, gum_trees, random_tree

from transformer.parsing.linear import ANY_TAG, PUNCTUATION, Repairs, linearise, restore
from transformer.parsing.trees import Tree, read_tree

JOHN = "(ROOT (S (NP (NNP John)) (VP (VBZ has) (NP (DT a) (NN dog))) (. .)))"
WORDS = ("John", "has", "a", "dog", ".")


def repaired(symbols: str, words: str = "a b c") -> tuple[str, Repairs]:
    tree, repairs = restore(symbols.split(), words.split())
    return str(tree), repairs


def test_the_example_of_the_literature():
    tree = read_tree(JOHN, "x")
    assert " ".join(linearise(tree)) == "(S (NP XX )NP (VP XX (NP XX XX )NP )VP . )S"
    assert " ".join(linearise(tree, keep_tags=True)) == "(S (NP NNP )NP (VP VBZ (NP DT NN )NP )VP . )S"


def test_and_back():
    kept = "(S (NP NNP )NP (VP VBZ (NP DT NN )NP )VP . )S"
    assert repaired(kept, " ".join(WORDS)) == (JOHN, Repairs())
    assert str(Repairs()) == "none"


@pytest.mark.parametrize("root", ["ROOT", "TOP", "S1", ""])
def test_roots_are_left_out_and_put_back_as_one(root):
    tree = read_tree(f"({root} (S (NN a)))", "x")
    assert linearise(tree) == ["(S", "XX", ")S"]
    assert repaired("(S XX )S", "a") == ("(ROOT (S (XX a)))", Repairs())
    assert linearise(read_tree("(S (NN a))", "x")) == [
        "(S",
        "XX",
        ")S",
    ]  # another outermost node says something


@pytest.mark.parametrize(
    ("symbols", "tree", "repairs"),
    [
        # Too short: what is open at the end takes the words that are left.
        ("(S (NP XX )NP (VP XX", "(S (NP (XX a)) (VP (XX b) (XX c)))", dict(missing_tags=1, unclosed=2)),
        ("(S (NP XX )NP (VP", "(S (NP (XX a)) (VP (XX b) (XX c)))", dict(missing_tags=2, unclosed=2)),
        ("(S XX XX )S", "(S (XX a) (XX b)) (XX c)", dict(missing_tags=1)),
        ("", "(XX a) (XX b) (XX c)", dict(missing_tags=3)),
        # Too long.
        ("(S XX XX XX XX (NP XX )NP )S", "(S (XX a) (XX b) (XX c))", dict(surplus_tags=2, empty=1)),
        # Constituents without words.
        ("(S (NP (NP )NP )NP XX XX XX )S", "(S (XX a) (XX b) (XX c))", dict(empty=2)),
        # Closing brackets: of an outer one, of one that is not open, of none.
        ("(S (NP (NP XX )S XX XX", "(S (NP (NP (XX a)))) (XX b) (XX c)", dict(unclosed=2)),
        ("(S (NP XX )PP XX XX )S", "(S (NP (XX a)) (XX b) (XX c))", dict(wrong_closings=1)),
        ("(S (NP XX ) XX XX )S", "(S (NP (XX a)) (XX b) (XX c))", dict(wrong_closings=1)),
        (")S (S XX XX XX )S )S", "(S (XX a) (XX b) (XX c))", dict(stray_closings=2)),
        # Symbols that are none.
        ("(S XX ( XX)S (( XX XX )S", "(S (XX a) (XX b) (XX c))", dict(unknown=3)),
        # Several trees one after the other, as of a sentence that was split.
        ("(S XX XX )S (NP XX )NP", "(S (XX a) (XX b)) (NP (XX c))", dict()),
    ],
)
def test_repairs(symbols, tree, repairs):
    assert repaired(symbols) == (f"(ROOT {tree})", Repairs(**repairs))


def test_repairs_add_up_and_are_told():
    both = Repairs(unclosed=1, empty=2).plus(Repairs(unclosed=1000))
    assert both == Repairs(unclosed=1001, empty=2)
    assert str(both) == "1,001 unclosed, 2 empty"


def test_no_words_no_tree():
    with pytest.raises(ValueError, match="no words"):
        restore(["XX"], [])


def test_any_sequence_gives_a_tree_over_the_words():
    draw = random.Random(2)
    alphabet = [
        *TAGS,
        *("XX",) * 12,
        *(b + label for b in "()" for label in LABELS),
        "(",
        ")",
        "⁇",
        "XX)",
        "()",
    ]
    for _ in range(3000):
        words = [draw.choice("abcdefgh") for _ in range(draw.randint(1, 6))]
        symbols = draw.choices(alphabet, k=draw.randint(0, 25))
        tree, repairs = restore(symbols, words)
        assert read_tree(str(tree), "x") == tree  # which nothing but a well-formed tree is
        assert list(tree.words) == words
        assert restore(linearise(tree, keep_tags=True), words) == (tree, Repairs())  # once is enough
        # What it says is all there is: symbols that need no repair are the tree's own, and those alone.
        assert (linearise(tree, keep_tags=True) == symbols) == (repairs == Repairs())


def test_characters_at_random_too():
    draw = random.Random(3)
    for _ in range(3000):
        text = "".join(draw.choices("( )SNP XX\t.\u00a0\u2028é", k=draw.randint(0, 40)))
        tree, _ = restore(text.split(), ["a", "b"])
        assert read_tree(str(tree), "x") == tree
        assert tree.words == ("a", "b")


def normalised(tree: Tree) -> Tree:
    return tree.tagged([leaf.tag if leaf.tag in PUNCTUATION else ANY_TAG for leaf in tree.leaves])


def check_round_trip(tree: Tree) -> None:
    assert restore(linearise(tree, keep_tags=True), tree.words) == (tree, Repairs())
    assert restore(linearise(tree), tree.words) == (normalised(tree), Repairs())


def test_trees_come_back_unchanged():
    draw = random.Random(4)
    for _ in range(1000):
        check_round_trip(random_tree(draw, draw.randint(1, 15)))


def test_a_treebank_comes_back_unchanged():
    for tree in gum_trees("dev.clean.trees"):
        check_round_trip(tree)
