"""Constituency trees: words with their tags, and the constituents over them; read from brackets and written.

A tree lies flat here, as a tuple of leaves and a tuple of nodes in the order in which their brackets
open. So depth costs nothing, trees compare and hash, and the brackets that a score counts are there
to be counted.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from transformer.errors import DataError

TRACE = "-NONE-"  # tag of what stands for a word moved or left out
_ESCAPES = {"(": "-LRB-", ")": "-RRB-"}  # brackets as words, as the Penn Treebank writes them
_TOKEN = re.compile(
    r"\((?P<tag>[^ \t()]+)[ \t]+(?P<word>[^ \t()]+)[ \t]*\)"  # (NN tree)
    r"|(?P<open>\((?P<label>[^ \t()]*))"  # (NP
    r"|(?P<close>\))"
    r"|(?P<stray>[^ \t()]+)"
)


class Leaf(NamedTuple):
    """A word and its part of speech."""

    tag: str
    word: str


class Node(NamedTuple):
    """A constituent: words `start` to `end` - 1, counted from 0; never without words."""

    label: str
    start: int
    end: int


class Tree(NamedTuple):
    """A sentence with its constituents.

    Attributes:
      leaves: its words, in order.
      nodes: its constituents in the order in which they open, the outermost first. It holds all words, and
        each other one lies inside those that are open where it begins.

    Example:
      >>> tree = read_tree("(ROOT (NP (DT the) (NN tree)))", "example")
      >>> tree.nodes
      (Node(label='ROOT', start=0, end=2), Node(label='NP', start=0, end=2))
      >>> str(tree)
      '(ROOT (NP (DT the) (NN tree)))'
    """

    leaves: tuple[Leaf, ...]
    nodes: tuple[Node, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The sentence."""
        return tuple(leaf.word for leaf in self.leaves)

    def tagged(self, tags: Sequence[str]) -> "Tree":
        """Returns the tree with other tags, one a word."""
        leaves = (Leaf(tag, leaf.word) for tag, leaf in zip(tags, self.leaves, strict=True))
        return Tree(tuple(leaves), self.nodes)

    def __str__(self) -> str:
        """Returns the tree as one line of brackets."""
        parts = []
        for step, what in self.steps():
            if isinstance(what, Leaf):
                parts.append(f" ({what.tag} {what.word})")
            else:
                parts.append(f" ({what.label}" if step == "open" else ")")
        return "".join(parts)[1:]

    def steps(self) -> Iterator[tuple[Literal["open", "leaf", "close"], Leaf | Node]]:
        """Yields what a reader of the brackets meets, from left to right."""
        open_nodes: list[Node] = []
        following = iter((*self.nodes, None))
        node = next(following)
        for i, leaf in enumerate(self.leaves):
            while node is not None and node.start == i:
                yield "open", node
                open_nodes.append(node)
                node = next(following)
            yield "leaf", leaf
            while open_nodes and open_nodes[-1].end == i + 1:
                yield "close", open_nodes.pop()


def escaped(word: str) -> str:
    """Returns a word as trees hold it: its brackets spelt -LRB- and -RRB-."""
    return "".join(_ESCAPES.get(character, character) for character in word)


def words_of(line: str) -> list[str]:
    """Returns the words of a line, as spaces and tabs separate them."""
    return [word for word in re.split("[ \t]+", line) if word]


def read_tree(text: str, where: str, traces: bool = True) -> Tree:
    """Reads one line of brackets: constituents with labels, around words with tags.

    The outermost bracket alone may lack a label, as in the Penn Treebank: "( (S ...))". Only spaces and tabs
    separate; every other character belongs to a word, a tag or a label.

    Args:
      text: the line.
      where: file and line, for the message.
      traces: whether words that nobody said or wrote, tagged -NONE-, may be among the others.

    Raises:
      DataError: if it is anything but one whole tree; names the column, counted from 1.
    """
    leaves: list[Leaf] = []
    nodes: list[Node] = []
    opened: list[tuple[int, int]] = []  # index of each open node, column of its bracket
    for found in _TOKEN.finditer(text):
        column = found.start() + 1
        if nodes and not opened:
            raise _fault(
                where, column, f"a second tree begins with {found[0][:40]!r}; give each its own line"
            )
        if found["stray"]:
            got = found["stray"][:40]
            raise _fault(where, column, f"got {got!r}, expected a bracket; each word has its own, (NN tree)")
        if found["open"]:
            if not found["label"] and nodes:
                raise _fault(where, column, "'(' without a label; only the outermost bracket may lack one")
            opened.append((len(nodes), column))
            nodes.append(Node(found["label"], len(leaves), -1))
        elif found["word"]:
            if not opened:
                raise _fault(
                    where, column, f"{found[0][:40]!r} has no constituent around it, such as (ROOT ...)"
                )
            if found["tag"] == TRACE and not traces:
                raise _fault(where, column, f"{found[0][:40]!r} is a trace; remove them from the trees first")
            leaves.append(Leaf(found["tag"], found["word"]))
        elif not opened:
            raise _fault(where, column, "')' closes nothing")
        else:
            index, column = opened.pop()
            node = nodes[index]
            if node.start == len(leaves):
                raise _fault(where, column, f"'({node.label[:40]}' holds no word; remove it, or give it one")
            nodes[index] = node._replace(end=len(leaves))
    if opened:
        index, column = opened[-1]
        raise _fault(where, column, f"'({nodes[index].label[:40]}' is never closed; a tree is one whole line")
    if not nodes:
        raise DataError(f"{where}: is empty, expected a tree such as (ROOT (NP (DT the) (NN tree)))")
    return Tree(tuple(leaves), tuple(nodes))


def _fault(where: str, column: int, what: str) -> DataError:
    return DataError(f"{where}, column {column}: {what}")
