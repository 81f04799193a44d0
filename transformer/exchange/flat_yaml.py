"""YAML as Marian writes it: one mapping of scalars and of lists of scalars, nothing inside anything else.

No anchors, tags or types: nothing here can grow, or become something else than text.
"""

import re

from transformer.exchange.foreign import shown

MOST_LINES = 300_000
_PLAIN = r"(?![-?:][ \t])[^ \t\"'\[\]{},&*#|>@%!`].*?"
_LINE = re.compile(rf"(\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'|{_PLAIN}):(?:[ \t]+(.*))?")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)")
_LETTERS = {
    **{"0": "\0", "a": "\a", "b": "\b", "t": "\t", "\t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r"},
    **{"e": "\x1b", " ": " ", '"': '"', "/": "/", "\\": "\\"},
    **{"N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029"},
}


def flat_yaml(text: str) -> dict[str, str | list[str]]:
    """Returns the mapping; all values are text, as they are spelled there.

    Raises:
      ValueError: naming the line, if it is anything else, or longer than any real one.
    """
    lines = text.split("\n", MOST_LINES)
    if len(lines) > MOST_LINES:
        raise ValueError(f"has more than {MOST_LINES:,} lines")
    found: dict[str, str | list[str]] = {}
    key = None  # whose list may follow
    for number, line in enumerate(lines, 1):
        rest = line.strip(" \t\r")
        if not rest or rest.startswith("#") or rest in ("---", "..."):
            continue
        try:
            if key is not None and (rest.startswith("- ") or rest.startswith("[")):
                found[key], key = _list(found[key], rest), key if rest.startswith("- ") else None
                continue
            name, value = _entry(line.rstrip(" \t\r"))
            if name in found:
                raise ValueError(f"{shown(name)} comes twice")
            found[name] = _list("", value) if value.startswith("[") else _scalar(value)
            key = name if not value else None
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    return found


def typed(value: str | list[str]) -> bool | int | float | str | list[str]:
    """Returns what Marian takes the text of a scalar for; lists stay as they are."""
    if isinstance(value, list) or value in ("true", "false"):
        return value if isinstance(value, list) else value == "true"
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def _entry(line: str) -> tuple[str, str]:
    """Returns (key, the text of its value)."""
    match = _LINE.fullmatch(line)
    if not match:
        raise ValueError(f"expected 'key: value', got {shown(line)}")
    return _scalar(match[1]), (match[2] or "").strip(" \t")


def _list(before: str | list[str], text: str) -> list[str]:
    """Returns a list that goes on with the text of one item, or with one in brackets."""
    items = list(before) if isinstance(before, list) else []
    if text.startswith("- "):
        return [*items, _scalar(text[2:].strip(" \t"))]
    if not text.endswith("]") or items:
        raise ValueError(f"expected a list in brackets, got {shown(text)}")
    inside = text[1:-1].strip(" \t")
    return [_scalar(item.strip(" \t")) for item in inside.split(",")] if inside else []


def _scalar(text: str) -> str:
    """Returns what a scalar says."""
    if text[:1] in ('"', "'"):
        if len(text) < 2 or text[-1] != text[0]:
            raise ValueError(f"a quote is missing in {shown(text)}")
        inside = text[1:-1]
        return inside.replace("''", "'") if text[0] == "'" else _ESCAPE.sub(_unescaped, inside)
    text = text.partition(" #")[0].rstrip(" \t")
    if text[:1] and text[0] in "[]{}&*|>@%!`":
        raise ValueError(f"expected a plain or quoted scalar, got {shown(text)}")
    return text


def _unescaped(match: re.Match[str]) -> str:
    letters = match[1]
    if len(letters) > 1:
        code = int(letters[1:], 16)
        if code > 0x10FFFF:
            raise ValueError(f"'\\{letters}' is no character")
        return chr(code)
    if letters not in _LETTERS:
        raise ValueError(f"'\\{letters}' is no escape")
    return _LETTERS[letters]
