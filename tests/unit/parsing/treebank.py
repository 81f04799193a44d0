"""Trees to test with: drawn at random, and those of gum-const where they are there."""

import gzip
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from transformer.parsing.trees import Leaf, Node, Tree, read_tree

GUM = Path(__file__).parents[4] / "shared/data/gum-const"
LABELS = ("S", "NP", "VP", "PP", "ADVP", "PRT", "SBAR", "NP-SBJ", "PP=2")
TAGS = ("DT", "NN", "VBZ", "RB", "-LRB-", ".", ",", ":", "``", "''", "-NONE-")
ODD_TAGS = (*TAGS, "ADVP", "PRT", "TOP")  # of rules that no treebank needs


def random_tree(draw: random.Random, words: int, tags: Sequence[str] = TAGS) -> Tree:
    """Returns a tree of this many words, unary chains and twice the same label in them included."""
    leaves = tuple(Leaf(draw.choice(tags), draw.choice("abcdefgh")) for _ in range(words))
    nodes = [Node("ROOT", 0, words)]

    def divide(start: int, end: int) -> None:
        cuts = sorted(draw.sample(range(start + 1, end), draw.randint(0, min(end - start - 1, 3))))
        for first, last in zip((start, *cuts), (*cuts, end), strict=True):
            while draw.random() < 0.4:
                nodes.append(Node(draw.choice(LABELS), first, last))
            if last - first > 1 and last - first < end - start:
                divide(first, last)

    divide(0, words)
    return Tree(leaves, tuple(nodes))


def gum_lines(name: str) -> list[str]:
    """Returns the lines of a file of gum-const, such as "dev.clean.trees"; skips the test without it."""
    path = GUM / f"{name}.gz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        return file.read().removesuffix("\n").split("\n")


def gum_trees(name: str) -> list[Tree]:
    """Returns the trees of a file of gum-const; skips the test without it."""
    return [read_tree(line, f"{name}: line {i}") for i, line in enumerate(gum_lines(name), 1)]
