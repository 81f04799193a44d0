"""Input lines longer than the model was trained for, cut where they may be cut."""

import re
from collections.abc import Callable

# After a full stop and the like (with closing quotes or brackets), before white space; CJK marks need none.
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’»)\]]*\s+|(?<=[。！？])")


def split_line(line: str, length: Callable[[str], int], longest: int) -> list[str]:
    """Cuts a line into parts of at most `longest` tokens: at sentence ends, else between words.

    Args:
      line: the text.
      length: number of tokens of a text.
      longest: allowed number of tokens of a part.

    Returns:
      Parts in order, `[line]` if it fits. A single word that is still too long is cut between
      characters.
    """
    if length(line) <= longest:
        return [line]
    ends = [m.end() for m in _SENTENCE_END.finditer(line)]
    for cuts in (ends, [m.end() for m in re.finditer(r"\s+", line)], list(range(1, len(line)))):
        pieces = [line[a:b] for a, b in zip([0, *cuts], [*cuts, len(line)], strict=True) if line[a:b].strip()]
        if len(pieces) > 1:
            return [
                part
                for group in _joined(pieces, length, longest)
                for part in split_line(group, length, longest)
            ]
    return [line]


def _joined(pieces: list[str], length: Callable[[str], int], longest: int) -> list[str]:
    """Puts neighbours together while they fit."""
    groups = [pieces[0]]
    for piece in pieces[1:]:
        if length(groups[-1] + piece) <= longest:
            groups[-1] += piece
        else:
            groups.append(piece)
    # If all fell into one group again, nothing was gained: cut in the middle.
    return (
        groups
        if len(groups) > 1
        else ["".join(pieces[: len(pieces) // 2]), "".join(pieces[len(pieces) // 2 :])]
    )
