"""Labels in place of a target: one a line, or one a word.

The label of a line is asked at its last piece, the end mark; that of a word at the word's first piece.
"""

from collections.abc import Sequence

from transformer.config import Labels
from transformer.data.batch import NOT_ASKED
from transformer.data.tokenizer import Tokenizer
from transformer.errors import DataError
from transformer.parsing.trees import words_of


def names_of(text: str, labels: Labels) -> list[str]:
    """Returns the labels that a line of labels holds."""
    return words_of(text) if labels == "word" else [text.strip()]


def asked(tokenizer: Tokenizer, lines: Sequence[str], labels: Labels) -> list[tuple[list[int], list[int]]]:
    """Returns (source ids, the places where a label is asked) of each line."""
    if labels == "word":
        return tokenizer.encode_words([words_of(line) for line in lines])
    return [(ids, [len(ids) - 1]) for ids in tokenizer.encode_source(lines)]


def labelled(
    tokenizer: Tokenizer,
    lines: Sequence[str],
    given: Sequence[str],
    labels: Labels,
    where: Sequence[str],
) -> list[tuple[list[int], list[int]] | None]:
    """Returns (source ids, as many label numbers, `NOT_ASKED` where there is none) of each line.

    Args:
      tokenizer: of the lines; it has the labels.
      lines: text.
      given: a line of labels for each.
      labels: how many a line has.
      where: each line's place in its source, for messages.

    Returns:
      None for a line with a label that the tokenizer has not.

    Raises:
      DataError: if there is not a label for each word.
    """
    numbers = {name: i for i, name in enumerate(tokenizer.labels)}
    made: list[tuple[list[int], list[int]] | None] = []
    for (ids, places), text, place in zip(asked(tokenizer, lines, labels), given, where, strict=True):
        names = names_of(text, labels)
        if len(names) != len(places):
            raise DataError(
                f"{place} has {len(places)} words and {len(names)} labels; give each word one, "
                "separated by spaces"
            )
        answers = [NOT_ASKED] * len(ids)
        for at, name in zip(places, names, strict=True):
            answers[at] = numbers.get(name, NOT_ASKED)
        known = all(name in numbers for name in names)
        made.append((ids, answers) if known else None)
    return made
