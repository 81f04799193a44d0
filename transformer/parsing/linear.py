"""Trees as sequences of symbols, for a model that writes sequences; and any sequence made a tree again.

Vinyals et al., Grammar as a Foreign Language (2015), and section 6.3 of the paper: brackets that open
and close with their label, and a tag for each word.

    (ROOT (S (NP (NNP John)) (VP (VBZ has) (NP (DT a) (NN dog))) (. .)))
    (S (NP XX )NP (VP XX (NP XX XX )NP )VP . )S

The words are not repeated: the i-th tag stands for the i-th of them. Tags tell nothing that a score
of brackets asks for, so that all are XX but those of punctuation, which tell scorers what to leave out.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from transformer.parsing.trees import Leaf, Node, Tree

ANY_TAG = "XX"
PUNCTUATION = frozenset((",", ":", "``", "''", "."))  # tags
ROOT = "ROOT"
ROOTS = frozenset((ROOT, "TOP", "S1", ""))  # labels of outermost nodes that say only "a sentence"
_SYMBOL = re.compile(r"\((?P<open>[^()\s]+)|\)(?P<close>[^()\s]*)|(?P<tag>[^()\s]+)")


class Repairs(NamedTuple):
    """What was done to a sequence until it was a tree; zeros where it was one.

    Attributes:
      unknown: symbols that are neither bracket nor tag, left out.
      surplus_tags: tags after the last word, left out.
      missing_tags: words without a tag, put as XX into the constituent that is open at the end.
      stray_closings: closing brackets while none is open, left out.
      wrong_closings: closing brackets of a label that is not open, taken for the innermost one's.
      unclosed: brackets closed where one around them is, or the sequence ends.
      empty: constituents without words, left out.
    """

    unknown: int = 0
    surplus_tags: int = 0
    missing_tags: int = 0
    stray_closings: int = 0
    wrong_closings: int = 0
    unclosed: int = 0
    empty: int = 0

    def plus(self, other: "Repairs") -> "Repairs":
        """Returns the sums of both."""
        return Repairs(*map(sum, zip(self, other, strict=True)))

    def __str__(self) -> str:
        """Returns those that were needed, in words; "none" if none was."""
        named = (f"{n:,} {name.replace('_', ' ')}" for name, n in self._asdict().items() if n)
        return ", ".join(named) or "none"


def linearise(tree: Tree, keep_tags: bool = False) -> list[str]:
    """Returns the symbols of a tree, without its root (a ROOT, TOP, S1 or nameless outermost node).

    Args:
      tree: any tree.
      keep_tags: write the tags as they are; false: XX, but for punctuation.
    """
    symbols = []
    for step, what in tree.steps():
        if isinstance(what, Leaf):
            symbols.append(what.tag if keep_tags or what.tag in PUNCTUATION else ANY_TAG)
        else:
            symbols.append(("(" if step == "open" else ")") + what.label)
    return symbols[1:-1] if tree.nodes[0].label in ROOTS else symbols


def restore(symbols: Iterable[str], words: Sequence[str]) -> tuple[Tree, Repairs]:
    """Returns the tree over `words` that a sequence of symbols describes, under a ROOT; never fails.

    `restore(linearise(tree, keep_tags=True), tree.words)` is the tree itself if its root is ROOT. What is no
    tree is mended from left to right, as `Repairs` tells.

    Args:
      symbols: of any origin: what a model wrote, split at white space.
      words: the sentence, at least one word, none with a bracket in it.

    Returns:
      A tree over exactly these words, and what had to be repaired.
    """
    if not words:
        raise ValueError("no tree stands over no words")
    building = _Building(words)
    for symbol in symbols:
        kind = kind_of_symbol(symbol)
        if kind is None:
            building.count["unknown"] += 1
        elif kind == "open":
            building.open(symbol[1:])
        elif kind == "tag":
            building.leaf(symbol)
        else:
            building.close(symbol[1:])
    return building.finish()


def kind_of_symbol(symbol: str) -> str | None:
    """Returns "open", "close" or "tag"; None if it is none of them."""
    found = _SYMBOL.fullmatch(symbol)
    return found.lastgroup if found else None


class _Building:
    """A tree while its symbols are read."""

    def __init__(self, words: Sequence[str]):
        self.words = words
        self.leaves: list[Leaf] = []
        self.nodes: list[Node] = []
        self.opened: list[int] = []  # indices of nodes
        self.count = Repairs()._asdict()

    def open(self, label: str) -> None:
        self.opened.append(len(self.nodes))
        self.nodes.append(Node(label, len(self.leaves), -1))

    def leaf(self, tag: str) -> None:
        if len(self.leaves) == len(self.words):
            self.count["surplus_tags"] += 1
        else:
            self.leaves.append(Leaf(tag, self.words[len(self.leaves)]))

    def close(self, label: str) -> None:
        if not self.opened:
            self.count["stray_closings"] += 1
            return
        if label not in {self.nodes[index].label for index in self.opened}:
            self.count["wrong_closings"] += 1
        else:
            while self.nodes[self.opened[-1]].label != label:
                self.count["unclosed"] += 1
                self._close_innermost()
        self._close_innermost()

    def _close_innermost(self) -> None:
        index = self.opened.pop()
        if self.nodes[index].start == len(self.leaves):
            self.count["empty"] += 1
            del self.nodes[index:]  # it is the last: what opened inside it was as empty
        else:
            self.nodes[index] = self.nodes[index]._replace(end=len(self.leaves))

    def finish(self) -> tuple[Tree, Repairs]:
        for word in self.words[len(self.leaves) :]:
            self.count["missing_tags"] += 1
            self.leaves.append(Leaf(ANY_TAG, word))
        while self.opened:
            self.count["unclosed"] += 1
            self._close_innermost()
        root = Node(ROOT, 0, len(self.words))
        return Tree(tuple(self.leaves), (root, *self.nodes)), Repairs(**self.count)
