"""Input lines longer than the model was trained for, cut where they may be cut."""

import re
from collections.abc import Callable

# Where a part may end, the best places first. A full stop and the like, with closing quotes or
# brackets, ends a sentence before white space; CJK marks need none.
_CUTS = (
    re.compile(r"(?<=[.!?…؟۔।॥])[\"'”’»)\]]*\s+|(?<=[。！？｡])[」』”’）】》]*\s*"),
    re.compile(r"\s+"),  # between words
    re.compile(r"(?<=.)", re.DOTALL),  # between characters
)


def split_line(line: str, length: Callable[[str], int], longest: int) -> list[str]:
    """Cuts a line into parts of at most `longest` tokens: at sentence ends, else between words.

    Args:
      line: the text.
      length: number of tokens of a text. It is called on pieces of the line only, their number of
        characters all in all about proportional to the line's.
      longest: allowed number of tokens of a part.

    Returns:
      Parts in order that make up the whole line; `[line]` if it fits. A word that is too long alone
      is cut between characters; a character that is too long alone stays so.
    """
    return _split(line, lambda text: length(text) <= longest, 0)


def _split(text: str, fits: Callable[[str], bool], level: int) -> list[str]:
    """Returns parts as long as they may be, cut at places of `level` or finer ones."""
    if level == len(_CUTS) or fits(text):
        return [text]
    cuts = sorted({0, len(text), *(match.end() for match in _CUTS[level].finditer(text))})
    parts: list[str] = []
    first, end = 0, len(cuts) - 1
    while first < end:
        # Doubled until it is too much, then halved: the line is never measured from here to its end.
        good, bad = first + 1, end + 1
        while bad - good > 1:
            tried = min(2 * good - first, end) if bad > end else (good + bad) // 2
            if fits(text[cuts[first] : cuts[tried]]):
                good = tried
            else:
                bad = tried
        parts += _split(text[cuts[first] : cuts[good]], fits, level + 1)
        first = good
    return parts
