"""What the experiments found, as text for a terminal, as Markdown, and as a page that loads nothing."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from transformer.io.page import filled
from transformer.questions.measured import Measured, written
from transformer.questions.texts import LANGUAGES, Texts, read_texts

Found = Mapping[int, Sequence[Measured]]  # by question
Facts = Mapping[str, str | int]

_WIDTH = 96  # characters of a line


def heading(facts: Facts, language: str) -> str:
    """Returns what all of it was measured on, in a line."""
    return "; ".join(f"{name}: {value}" for name, value in read_texts(language).facts(facts))


def plain(number: int, rows: Sequence[Measured], language: str) -> str:
    """Returns one question with its answer and what was measured."""
    texts = read_texts(language)
    text = texts.questions[number]
    # Chinese has no spaces to break lines at; terminals break it anywhere.
    answer = text.answer if language == "zh" else textwrap.fill(text.answer, _WIDTH, break_on_hyphens=False)
    table = [(_with_unit(row), texts.name(number, row)) for row in rows]
    width = max(len(value) for value, _ in table)
    lines = [f"{value:>{width}}  {name}".rstrip() for value, name in table]
    return "\n".join([f"{number}. {text.question}", "", answer, "", *lines, ""])


def markdown(found: Found, facts: Facts, language: str) -> str:
    """Returns all of it as Markdown."""
    texts = read_texts(language)
    lines = [f"# {texts.words['title']}", "", heading(facts, language), ""]
    for number, rows in found.items():
        text = texts.questions[number]
        lines += [f"## {number}. {text.question}", "", text.answer, ""]
        lines += [f"| {texts.words['measured']} | {texts.words['value']} |", "|---|--:|"]
        # A bar ends a cell, also in a name such as "the sum of |v|".
        lines += [
            f"| {texts.name(number, row).replace('|', chr(92) + '|')} | {_with_unit(row)} |" for row in rows
        ]
        lines.append("")
    return "\n".join(lines)


def page(found: Found, facts: Facts, language: str) -> str:
    """Returns HTML in all languages, which begins with `language` and loads nothing."""
    data = {
        "first": language,
        "languages": {code: _shown(found, facts, read_texts(code)) for code in LANGUAGES},
    }
    return filled("transformer.questions", "page.html", data)


def _shown(found: Found, facts: Facts, texts: Texts) -> dict[str, Any]:
    """Returns one language as the page reads it."""
    questions = [
        {
            "number": number,
            "question": texts.questions[number].question,
            "answer": texts.questions[number].answer,
            "rows": [
                {"name": texts.name(number, row), "value": _with_unit(row), "bar": bar}
                for row, bar in zip(rows, _bars(rows), strict=True)
            ],
        }
        for number, rows in found.items()
    ]
    return {"words": texts.words, "facts": texts.facts(facts), "questions": questions}


def _bars(rows: Sequence[Measured]) -> list[float | None]:
    """Returns how large each number is, 0 to 1 of the largest of its kind; None: it is the only one."""
    kinds: dict[str, list[float]] = {}
    for row in rows:
        if row.value is not None:
            kinds.setdefault(row.unit or row.key, []).append(abs(row.value))

    def bar(row: Measured) -> float | None:
        kind = kinds[row.unit or row.key] if row.value is not None else []
        return round(abs(row.value or 0) / max(kind), 4) if len(kind) > 1 and max(kind) > 0 else None

    return [bar(row) for row in rows]


def _with_unit(row: Measured) -> str:
    return "" if row.value is None else f"{written(row.value)} {row.unit}".rstrip()
