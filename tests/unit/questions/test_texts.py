"""Texts of `transformer explain`: all questions, all names, in all languages; and how numbers are written."""

import re

import pytest

from transformer.questions.experiments import EXPERIMENTS
from transformer.questions.measured import Measured, written
from transformer.questions.texts import LANGUAGES, read_texts

TEXTS = {language: read_texts(language) for language in LANGUAGES}


def places(name):
    return set(re.findall(r"{(\w+)[:,}]", name))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_question_of_the_experiments_has_a_text(language):
    assert list(TEXTS[language].questions) == sorted(EXPERIMENTS) == list(range(1, 20))


def test_languages_say_the_same():
    english, chinese = TEXTS["en"], TEXTS["zh"]
    assert english.words.keys() == chinese.words.keys()
    for number, one in english.questions.items():
        other = chinese.questions[number]
        assert {key: places(name) for key, name in one.names.items()} == {
            key: places(name) for key, name in other.names.items()
        }
        assert 60 <= len(one.answer.split()) <= 110, number
        assert 100 <= len(other.answer) <= 230, number
        for text in (other.question, other.answer, *other.names.values()):
            assert re.search("[\u4e00-\u9fff]", text), text


def test_names_take_numbers_and_words_into_their_places():
    row = Measured("zero", 12.5, "%", {"stack": "encoder", "layer": 2})
    assert TEXTS["en"].name(14, row) == "inner units that are zero: encoder, layer 2"
    assert TEXTS["zh"].name(14, row) == "为零的内层单元：编码器第 2 层"
    assert TEXTS["en"].name(14, Measured("whole", -1.0)) == TEXTS["en"].words["whole"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (16, "16"), (65536, "65,536"), (1234.5, "1,234"), (-1.23456, "-1.235"), (2.5e-7, "2.5e-07")],
)
def test_numbers(value, text):
    assert written(value) == text
