"""Long lines: the parts make up the line, fit, and end where a person would cut."""

import random

import pytest

from transformer.inference.splitting import split_line


def words(text: str) -> int:
    """Counts words and an end mark, as a tokenizer of words does."""
    return len(text.split()) + 1


class Measured:
    """A length function that counts what it was asked to measure."""

    def __init__(self, length):
        self.length, self.calls, self.characters = length, 0, 0

    def __call__(self, text: str) -> int:
        self.calls += 1
        self.characters += len(text)
        return self.length(text)


def test_a_line_that_fits_stays_whole():
    assert split_line("One. Two. Three.", words, 4) == ["One. Two. Three."]


def test_cuts_are_at_sentence_ends_and_parts_are_as_long_as_they_may_be():
    line = "A b c. D e! F g h i? J… K l."
    assert split_line(line, words, 6) == ["A b c. D e! ", "F g h i? J… ", "K l."]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ('He said "a b c." Then he went.', ['He said "a b c." ', "Then he went."]),
        ("(It is 3.5 or e.g.so.) Then he went.", ["(It is 3.5 or e.g.so.) ", "Then he went."]),
        ("Ist es so? »Ja, ja, ja!« Gut.", ["Ist es so? ", "»Ja, ja, ja!« Gut."]),
        ("क ख ग घ। च छ ज झ।", ["क ख ग घ। ", "च छ ज झ।"]),
    ],
)
def test_closing_quotes_and_brackets_belong_to_the_sentence(line, parts):
    assert split_line(line, words, 6) == parts


def test_chinese_and_japanese_need_no_white_space():
    line = "我爱北京。「天安门广场!」他说。今天天气好。"
    assert split_line(line, len, 15) == ["我爱北京。", "「天安门广场!」他说。", "今天天气好。"]
    assert split_line("彼は「はい。」と言った。", len, 8) == ["彼は「はい。」", "と言った。"]


def test_a_sentence_that_is_too_long_is_cut_between_words_and_its_neighbours_are_not():
    line = "A b. C d e f g h i. J k."
    assert split_line(line, words, 5) == ["A b. ", "C d e f ", "g h i. ", "J k."]


def test_a_word_that_is_too_long_is_cut_between_characters():
    assert split_line("ab " + 25 * "x" + " cd", len, 10) == ["ab ", 10 * "x", 10 * "x", 5 * "x" + " ", "cd"]


def test_a_character_that_is_too_long_alone_stays():
    assert split_line("a😀b", lambda text: len(text.encode()), 3) == ["a", "😀", "b"]


@pytest.mark.parametrize("length", [len, words, lambda text: len(text.encode()) // 2])
def test_any_line_is_made_up_of_parts_that_fit(length):
    draw = random.Random(0)
    for _ in range(300):
        line = "".join(draw.choices("ab.!?。 \u3000\t\"'»)…é", k=draw.randint(0, 80)))
        longest = draw.randint(2, 20)
        parts = split_line(line, length, longest)
        assert "".join(parts) == line
        assert all(length(part) <= longest for part in parts)
        if len(parts) > 1:
            assert all(parts)


@pytest.mark.parametrize(
    "line",
    [
        100_000 * "x",
        100_000 * "。",
        100_000 * " ",
        100_000 * '."',
        " ".join(20_000 * ["word"]),
        "A sentence of words. " * 5_000,
        "Short. " + 50_000 * "x" + ". Short." * 6_000,
        " ".join(20_000 * ["word"]) + ". " + "A sentence. " * 5_000,
    ],
    ids=["word", "marks", "spaces", "quotes", "sentence", "sentences", "word between", "long and short"],
)
def test_a_hundred_thousand_characters_are_measured_a_few_times_not_a_thousand(line):
    length = Measured(len)
    parts = split_line(line, length, 250)
    assert "".join(parts) == line
    assert max(map(len, parts)) <= 250
    assert length.characters < 30 * len(line)
    assert length.calls < 25 * len(parts)
