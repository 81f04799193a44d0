"""Questions, answers and names of what is measured, in the languages that they are written in.

A language is a file `<code>.md`: of each question its number and wording ("## 1. Why?"), the answer in
one paragraph, and names of what is measured ("- key: name"); last "## Words", names that several use.
A name may leave places open, such as "{layer}"; what is no number there may be a word too
("- stack.encoder: ...").
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformer.questions.measured import Measured

LANGUAGES = ("en", "zh")


class Text(NamedTuple):
    """One question in one language."""

    question: str
    answer: str
    names: Mapping[str, str]


class Texts(NamedTuple):
    """All questions by number, and words, in one language."""

    questions: Mapping[int, Text]
    words: Mapping[str, str]

    def name(self, number: int, row: "Measured") -> str:
        """Returns the name, or remark, of what the experiment of a question measured."""
        names = self.questions[number].names
        name = names[row.key] if row.key in names else self.words[row.key]
        return name.format(**{k: self.words.get(f"{k}.{v}", v) for k, v in row.place.items()})

    def facts(self, facts: Mapping[str, str | int]) -> Sequence[tuple[str, str]]:
        """Returns facts with their names in this language, and their values if these have one too."""
        return [
            (self.words[k], f"{v:,}" if isinstance(v, int) else self.words.get(f"{k}.{v}", v))
            for k, v in facts.items()
        ]


def read_texts(language: str) -> Texts:
    """Returns all texts of a language, one of `LANGUAGES`."""
    file = resources.files("transformer.questions").joinpath(f"{language}.md")
    questions, words = {}, {}
    for section in file.read_text("utf-8").removeprefix("## ").split("\n## "):
        heading, *lines = section.splitlines()
        names = dict(line[2:].split(": ", 1) for line in lines if line.startswith("- "))
        if heading == "Words":
            words = names
            continue
        number, question = heading.split(". ", 1)
        answer = " ".join(line for line in lines if line and not line.startswith("- "))
        questions[int(number)] = Text(question, answer, names)
    return Texts(questions, words)
