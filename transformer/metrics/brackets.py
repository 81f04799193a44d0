"""How well trees agree with gold trees: labelled brackets, counted by the rules of EVALB with COLLINS.prm.

EVALB (Sekine and Collins, 1997) is what scores of parsers are given by. Its rules, in the order in which
they apply:

1. Words whose tag is punctuation (, : `` '' .), a trace (-NONE-) or TOP are left out, in each tree by its own
   tags. Constituents without a word left go with them.
2. A pair is an error, and counts nowhere else, where the words that are left are not the same ones. It is
   skipped, and counts nowhere else, where no word of the predicted tree is left.
3. A label is cut off before its first - or =: NP-SBJ-1 is NP.
4. Constituents are left out, not what is in them, whose label is one of rule 1. ROOT and S1, other words for
   TOP, are left out as TOP is, and so is a label of which nothing is left (-X); COLLINS.prm would count them.
5. ADVP and PRT are one label, of constituents and of words.
6. A bracket is label, first word, last word. Each of the gold tree's is right at most once: of two NP over
   the same words a tree that has one of them has one right.
7. Tags of words are no brackets. They have an accuracy of their own, over the words that are left.

Counts are summed over sentences before they are divided, so that long sentences weigh more. A complete
match is a sentence with the same brackets, whatever the tags.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from transformer.parsing.linear import PUNCTUATION, ROOTS
from transformer.parsing.trees import TRACE, Leaf, Tree

_LEFT_OUT = PUNCTUATION | {TRACE} | ROOTS


class Brackets(NamedTuple):
    """Counts over some sentences, and what they come to, in percent.

    Attributes:
      sentences: all pairs of trees.
      errors: those whose words differ.
      skipped: those without a word in the predicted tree.
      matched: brackets that both trees have.
      gold: brackets of the gold trees.
      predicted: brackets of the predicted trees.
      complete: sentences with all brackets right and none more.
      words: words that were compared.
      tagged: those with the gold tag.
    """

    sentences: int = 0
    errors: int = 0
    skipped: int = 0
    matched: int = 0
    gold: int = 0
    predicted: int = 0
    complete: int = 0
    words: int = 0
    tagged: int = 0

    @property
    def precision(self) -> float:
        """How many of the predicted brackets are right."""
        return _percent(self.matched, self.predicted)

    @property
    def recall(self) -> float:
        """How many of the gold brackets were found."""
        return _percent(self.matched, self.gold)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return _percent(2 * self.matched, self.gold + self.predicted)

    @property
    def complete_match(self) -> float:
        """How many sentences are right as a whole, of those that were compared."""
        return _percent(self.complete, self.sentences - self.errors - self.skipped)

    @property
    def tagging_accuracy(self) -> float:
        """How many words have the gold tag."""
        return _percent(self.tagged, self.words)


def score_trees(pairs: Iterable[tuple[Tree, Tree]], gold_tags: bool = False) -> Brackets:
    """Returns the counts over pairs of a gold tree and a predicted one.

    Args:
      pairs: (gold, predicted).
      gold_tags: the predicted tree takes the gold tree's tags where their words are the same. For parsers
        that write no tags: by rule 1 a comma taken for a word makes an error of its sentence, and errors
        count nowhere.
    """
    counts = (
        _compare(gold, _retagged(predicted, gold) if gold_tags else predicted) for gold, predicted in pairs
    )
    return Brackets(*map(sum, zip(Brackets(), *counts, strict=True)))


def _retagged(tree: Tree, gold: Tree) -> Tree:
    """Returns the tree with the gold tree's tags if their words are the same, traces left aside."""
    given = [leaf for leaf in gold.leaves if leaf.tag != TRACE]
    if [leaf.word for leaf in tree.leaves if leaf.tag != TRACE] != [leaf.word for leaf in given]:
        return tree
    tags = iter(leaf.tag for leaf in given)
    return tree.tagged([TRACE if leaf.tag == TRACE else next(tags) for leaf in tree.leaves])


def _compare(gold: Tree, predicted: Tree) -> Brackets:
    """Returns the counts of one pair of trees."""
    (gold_leaves, gold_brackets), (leaves, brackets) = _counted(gold), _counted(predicted)
    if not leaves:
        return Brackets(sentences=1, skipped=1)
    if [leaf.word for leaf in leaves] != [leaf.word for leaf in gold_leaves]:
        return Brackets(sentences=1, errors=1)
    return Brackets(
        sentences=1,
        matched=(gold_brackets & brackets).total(),
        gold=gold_brackets.total(),
        predicted=brackets.total(),
        complete=int(gold_brackets == brackets),
        words=len(leaves),
        tagged=sum(_one(a.tag) == _one(b.tag) for a, b in zip(leaves, gold_leaves, strict=True)),
    )


def _counted(tree: Tree) -> tuple[list[Leaf], Counter[tuple[str, int, int]]]:
    """Returns the words and the brackets that count."""
    kept = [leaf.tag not in _LEFT_OUT for leaf in tree.leaves]
    before = list(accumulate(kept, initial=0))  # words that count before each place

    def brackets() -> Iterator[tuple[str, int, int]]:
        for label, start, end in tree.nodes:
            label = label.partition("-")[0].partition("=")[0]
            if before[start] < before[end] and label not in _LEFT_OUT:
                yield _one(label), before[start], before[end]

    leaves = [leaf for leaf, keep in zip(tree.leaves, kept, strict=True) if keep]
    return leaves, Counter(brackets())


def _one(label: str) -> str:
    return "ADVP" if label == "PRT" else label


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0
