"""`transformer benchmark decode`: what is measured, in which order, and whether the figures fit the text."""

import argparse
import itertools
import json

import pytest
from sacrebleu.metrics.bleu import BLEU
from unit.small_model import WORDS, make_model

from transformer.benchmark import decode
from transformer.errors import ConfigError, DataError, UserError
from transformer.inference.translator import Translation, Translator
from transformer.io.progress import Progress

SOURCES = [" ".join(WORDS[: 1 + i % 5]) for i in range(7)]  # 2 to 6 tokens, end mark included
REFERENCES = ["ant bee cat dog eel fox"] * 7


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    decode.add_options(parser)
    return parser.parse_args(["--model", "run", *words])


@pytest.fixture(scope="module")
def loaded():
    return make_model()


@pytest.fixture
def files(tmp_path, monkeypatch, loaded):
    """Options that name files of text, for a model that is in memory already."""
    monkeypatch.setattr(decode, "load_model", lambda path, checkpoint: loaded)
    for name, lines in (("source", SOURCES), ("reference", REFERENCES)):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    return ["--source", str(tmp_path / "source"), "--reference", str(tmp_path / "reference")]


def test_figures_are_those_of_the_translations(files, tmp_path, capsys, loaded):
    file = tmp_path / "out.json"
    args = parse(
        *files, "--beam_sizes=2", "--batch_sizes=1,8", "--latency_lines=3", "--repeats=2", f"--json={file}"
    )
    assert decode.run(args) == 0
    result = json.loads(file.read_text())
    alone, together = result["settings"]
    assert [(s["beam_size"], s["batch_size"], s["lines"]) for s in (alone, together)] == [
        (2, 1, 3),
        (2, 8, 7),
    ]
    assert result["host"]["usable_cores"] >= 1 and result["versions"]["jax"]
    assert result["peak_memory_bytes"] > 50e6
    texts = Translator.of(loaded).translate(SOURCES, beam_size=2, batch_size=8)
    assert together["bleu"] == pytest.approx(BLEU().corpus_score(texts, [REFERENCES]).score)
    # A piece is a word, and each output has an end mark.
    assert together["output_tokens"] == sum(len(t.replace("⁇", "x").split()) + 1 for t in texts)
    assert together["compilations"] >= 1 and "latency_seconds" not in together
    assert alone["latency_seconds"]["calls"] == 6
    assert 0 < alone["latency_seconds"]["p50"] <= alone["latency_seconds"]["p99"]
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()[-2:]]
    assert [row[:4] for row in rows] == [["2", "1", "all", "3"], ["2", "8", "all", "7"]]
    assert "repeat 1 of 2" not in out  # progress is for standard error


class SlowTranslator:
    """Takes half a second a call, by its own clock, and writes two tokens a line."""

    def __init__(self):
        self.now, self.asked = 0.0, []

    def translate_n_best(self, lines, n_best, *, beam_size, batch_size):
        self.now += 0.5
        self.asked.append((beam_size, batch_size, len(lines)))
        return [[Translation(f"t {line}", 0.0, 0.0, (4, 3))] for line in lines]


def test_settings_take_turns_and_the_first_pass_does_not_count():
    test = decode.TestLines("set", SOURCES, REFERENCES, [2] * 7)
    settings = decode.plan(test, [1, 5], [1, 4], [], latency_lines=2)
    slow = SlowTranslator()
    decode.measure(slow, test, settings, 2, Progress(None, itertools.count().__next__), lambda: slow.now)
    once = [(1, 1, 1)] * 2 + [(5, 1, 1)] * 2 + [(1, 4, 7), (5, 4, 7)]
    assert slow.asked == once * 3
    assert [s.seconds for s in settings] == [[1.0, 1.0], [1.0, 1.0], [0.5, 0.5], [0.5, 0.5]]
    assert settings[0].calls == [0.5] * 4
    row = decode._row(settings[2], test, "13a")
    assert row["sentences_per_second"] == {"median": 14.0, "min": 14.0, "max": 14.0}
    assert row["output_tokens_per_second"]["median"] == 28.0
    assert row["compile_seconds"] == 0.0


def test_lines_of_some_lengths_apart():
    lengths = [3, 9, 4, 8, 5, 30, 17]
    test = decode.TestLines("set", SOURCES, REFERENCES, lengths)
    settings = decode.plan(test, [1], [1, 2], [16, 4], latency_lines=1)
    assert [(s.batch_size, s.source, s.lines) for s in settings] == [
        (1, "1-4", [0]),
        (2, "1-4", [0, 2]),
        (1, "5-16", [1]),
        (2, "5-16", [1, 3, 4]),
    ]
    with pytest.raises(DataError, match="no line of set has 31-40 tokens"):
        decode.plan(test, [1], [2], [30, 40], 1)


def test_few_lines_are_drawn_from_the_whole_set():
    test = decode.TestLines("set", ["x"] * 100, ["x"] * 100, [2] * 100)
    (setting,) = decode.plan(test, [1], [1], [], latency_lines=4)
    assert setting.lines == [0, 25, 50, 75]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--beam_sizes=1,zero"], "--beam_sizes: got '1,zero', expected whole numbers"),
        (["--batch_sizes=0"], "--batch_sizes: got '0'"),
        (["--lines=0"], "--lines: got 0, expected 1 or more"),
        (["--source=a.en"], "give both"),
        (["--reference=a.de"], "give both"),
        ([], "the run has no test set; give --source and --reference"),
    ],
)
def test_what_cannot_be_measured_is_one_line(monkeypatch, loaded, words, message):
    monkeypatch.setattr(decode, "load_model", lambda path, checkpoint: loaded)
    with pytest.raises(ConfigError, match=message) as caught:
        decode.run(parse(*words))
    assert "\n" not in str(caught.value)


def test_source_and_reference_must_have_as_many_lines(files, tmp_path):
    (tmp_path / "reference").write_text("one\n")
    with pytest.raises(UserError, match=r"has 7 lines, .*reference 1"):
        decode.run(parse(*files))
