"""Pieces that are merged from the bytes of UTF-8 (Radford et al. 2019), as BART has them; ByT5 merges none.

A vocabulary spells a byte as one character: printable ones of Latin-1 as themselves, the others as the
characters from U+0100 on.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence

from transformer.errors import DataError

_HEADER = "#version: 0.2"
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in set(_PRINTABLE)]
CHARACTERS = {b: chr(b) for b in _PRINTABLE} | {b: chr(0x100 + i) for i, b in enumerate(_OTHERS)}
_BYTES = {character: byte for byte, character in CHARACTERS.items()}

# A text is cut into words before pairs are merged: English endings, then runs of letters, of numbers, and
# of other characters, each with one space before it. The pattern reads a text's classes of characters.
_WORD = re.compile(
    r"'(?:[stmd]|re|ve|ll)| ?[Lstmdrevl]+| ?N+| ?[o']+|[ w]+(?![^ w])|[ w]+"  # lower case: as they are
)
_KEPT = frozenset("stmdrevl' ")
_NO_SPACES = frozenset("\x1c\x1d\x1e\x1f")  # spaces for Python, but not for Unicode
_LONGEST_CACHE = 1 << 16  # words


class _Classes(dict[int, str]):
    """Code point -> the class of its character, found when it is first asked for."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kinds = {"L": "L", "N": "N"}
        if character in _KEPT:
            found = character
        elif character.isspace() and character not in _NO_SPACES:
            found = "w"
        else:
            found = kinds.get(unicodedata.category(character)[0], "o")
        self[code] = found
        return found


_CLASSES = _Classes()


class BytePairs:
    """Text to pieces and back, by a list of merges."""

    def __init__(self, model: bytes, name: str):
        """Takes what `serialised` returns.

        Args:
          model: merges, one a line, the first one first.
          name: of the side, for messages.

        Raises:
          DataError: if it is something else.
        """
        try:
            first, *lines = model.decode("utf-8").split("\n")
            pairs = [(left, right) for left, right in (line.split(" ") for line in lines if line)]
        except ValueError:
            first, pairs = "", []
        if first != _HEADER:
            raise DataError(f"tokenizer {name}: not a list of byte pairs")
        self._ranks = {pair: rank for rank, pair in reversed(list(enumerate(pairs)))}
        self._words: dict[str, list[str]] = {}

    @staticmethod
    def recognises(model: bytes) -> bool:
        """Returns whether a serialised model is one of these; no other kind begins alike."""
        return model.startswith(_HEADER.encode())

    def pieces(self, line: str) -> list[str]:
        """Returns the pieces of a line."""
        found: list[str] = []
        for match in _WORD.finditer(line.translate(_CLASSES)):
            word = line[match.start() : match.end()]
            if word not in self._words:
                if len(self._words) >= _LONGEST_CACHE:
                    self._words.clear()
                self._words[word] = self._merged([CHARACTERS[byte] for byte in word.encode()])
            found += self._words[word]
        return found

    def score(self, piece: str) -> float:
        """Returns how early a piece is merged: 0 for bytes, -1 for the first merge, and so on."""
        ranks = (self._ranks.get((piece[:cut], piece[cut:])) for cut in range(1, len(piece)))
        return max((-1.0 - rank for rank in ranks if rank is not None), default=0.0)

    def _merged(self, symbols: list[str]) -> list[str]:
        """Merges neighbours, always the pair that stands first in the list, from left to right."""
        last = len(self._ranks)
        while len(symbols) > 1:
            pairs = itertools.pairwise(symbols)
            rank, pair = min((self._ranks.get(pair, last), pair) for pair in pairs)
            if rank == last:
                break
            merged, i = [], 0
            while i < len(symbols):
                whole = tuple(symbols[i : i + 2]) == pair
                merged.append("".join(pair) if whole else symbols[i])
                i += 1 + whole
            symbols = merged
        return symbols


def serialised(merges: Iterable[tuple[str, str]]) -> bytes:
    """Returns merges as a model's bytes, in the form of merges.txt."""
    return "\n".join([_HEADER, *map(" ".join, merges)]).encode()


def text(pieces: Sequence[str]) -> str:
    """Returns the text of pieces; bytes that are not UTF-8 become U+FFFD."""
    characters = (c for piece in pieces for c in piece)
    content = b"".join(bytes([_BYTES[c]]) if c in _BYTES else c.encode() for c in characters)
    return content.decode("utf-8", "replace")
