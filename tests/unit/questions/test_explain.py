"""`transformer explain`: what it prints and writes, which lines it takes, what it refuses."""

import argparse
import dataclasses
import json
import re

import pytest
from unit.browser import answers, needs_browser

from transformer.errors import ConfigError, DataError
from transformer.questions import page, verb
from transformer.questions.experiments import EXPERIMENTS
from transformer.questions.measured import Measured
from transformer.questions.subject import Subject

FOUND = {
    3: [Measured("times", 25.5), Measured("bound_additive", 4.0)],
    15: [Measured("whole", -1.5, "nat"), Measured("silent", -6.0, "nat")],
    18: [Measured("imported")],
}
SOURCE, TARGET = ["", "ant bee", "ant " * 16, "cat", "dog"], ["bee", "ant", "cat", "dog", "eel"]
FACTS = {"model": "</script>&", "step": 8000, "pairs": 2}


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    verb.add_explain(parser.add_subparsers())
    return parser.parse_args(["explain", "--model", "runs/mine", *words])


@pytest.fixture
def files(tmp_path, monkeypatch, loaded):
    """Options that name text, for a model that is in memory already."""
    monkeypatch.setattr("transformer.inference.model_directory.load_model", lambda *_: loaded)
    lines = {
        "source": SOURCE,
        "target": TARGET,
    }
    for name, text in lines.items():
        (tmp_path / name).write_text("".join(line + "\n" for line in text))
    return ["--source", str(tmp_path / "source"), "--target", str(tmp_path / "target")]


def test_questions_answers_and_numbers_as_text():
    text = page.plain(15, FOUND[15], "en")
    assert text.startswith("15. How do encoder and decoder meet?\n\nIn the second sub-layer")
    assert text.splitlines()[-2:] == [
        "-1.5 nat  log-probability of a target token, nothing changed",
        "  -6 nat  log-probability of a target token, encoder-decoder attention silent",
    ]
    assert max(map(len, text.split("\n\n")[1].splitlines())) <= 96


def test_markdown_is_one_table_a_question():
    text = page.markdown(FOUND, FACTS, "en")
    assert "step: 8,000; sentence pairs: 2" in text
    assert text.count("|---|--:|") == 3
    assert r"| sum of \|v\|, which no additive score can pass | 4 |" in text
    assert "| does not apply: this model was not trained here, its learning rate is not known |  |" in text


def test_the_page_holds_all_languages_and_loads_nothing():
    text = page.page(FOUND, FACTS, "zh")
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])
    assert data["first"] == "zh" and list(data["languages"]) == ["en", "zh"]
    for language in data["languages"].values():
        assert [q["number"] for q in language["questions"]] == [3, 15, 18]
        assert [row["value"] for row in language["questions"][1]["rows"]] == ["-1.5 nat", "-6 nat"]
        assert [row["bar"] for row in language["questions"][1]["rows"]] == [0.25, 1]
        assert [row["bar"] for row in language["questions"][0]["rows"]] == [None, None]
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=|url\(|@import|fetch\(|https?://", text)


@needs_browser
def test_a_click_changes_the_language(tmp_path):
    script = """
      const look = () => [document.documentElement.lang, document.querySelector("#question15 h2").textContent,
        document.querySelectorAll("td.bar div").length, document.getElementById("facts").textContent];
      const answers = [look()];
      [...document.querySelectorAll("button")].find(b => b.textContent === "English").click();
      answers.push(look());"""
    chinese, english = answers(page.page(FOUND, FACTS, "zh"), script, tmp_path)
    assert chinese[:3] == ["zh", "15. 编码器和解码器在哪里相遇？", 2]
    assert english[:3] == ["en", "15. How do encoder and decoder meet?", 2]
    assert english[3] == "model: </script>& · step: 8,000 · sentence pairs: 2"


def test_the_verb_takes_the_first_lines_that_fit_prints_and_writes(files, tmp_path, capsys, monkeypatch):
    asked: list[Subject] = []

    def experiment(subject: Subject) -> list[Measured]:
        asked.append(subject)
        return [Measured("times", 2.0)]

    monkeypatch.setattr(
        "transformer.questions.experiments.EXPERIMENTS", dict.fromkeys(EXPERIMENTS, experiment)
    )
    output = tmp_path / "answers.html"
    verb.explain(parse(*files, "--question", "17", "3", "--lines", "2", "--output", str(output)))
    printed = capsys.readouterr().out
    assert printed.startswith("model: mine; step: 0; sentence pairs: 2\n")
    assert re.findall(r"^(\d+)\. ", printed, re.M) == ["3", "17"]
    # The empty line and the one of 17 tokens are left out; the last is not needed.
    assert [subject.real["encoder"].sum(axis=1).tolist() for subject in asked] == [[3, 2]] * 2
    assert "default-src 'none'" in output.read_text()
    verb.explain(parse(*files, "--question", "3", "--language", "zh", "--output", str(tmp_path / "a.md")))
    assert "## 3. 点积得分还是加性得分？" in (tmp_path / "a.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--question", "1", "20"], "--question: expected numbers from 1 to 19, got 20"),
        (["--lines", "1"], "--lines: expected 2 or more"),
        (["--output", "a.pdf"], r"--output: a.pdf: expected a name that ends in .html or .md"),
        (["--source", "a"], "--source and --target: give both"),
    ],
)
def test_options_that_cannot_be_used_are_named_before_the_model_is_read(words, message):
    with pytest.raises(ConfigError, match=message):
        verb.explain(parse(*words))


def test_text_that_cannot_be_used_is_named(files, tmp_path, loaded):
    (tmp_path / "target").write_text("bee\n")
    with pytest.raises(DataError, match=r"source has 5 lines, .*target 1"):
        verb.explain(parse(*files))
    (tmp_path / "source").write_text("ant\n")
    with pytest.raises(DataError, match="source: has 1 pairs of lines that are not empty and have at"):
        verb.explain(parse(*files))
    assert not loaded.config.data.dev_source
    with pytest.raises(ConfigError, match="the run has no dev set; give --source and --target"):
        verb.explain(parse())


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "; layers: one a stack, which recurs: "), ("zh", "; 层: 每侧只有一层，反复使用")],
)
def test_what_layers_mean_where_one_recurs_is_said(language, said, monkeypatch, files, loaded, capsys):
    config = dataclasses.replace(loaded.model.config, recurrence="adaptive")
    changed = dataclasses.replace(loaded, model=dataclasses.replace(loaded.model, config=config))
    monkeypatch.setattr("transformer.inference.model_directory.load_model", lambda *_: changed)
    monkeypatch.setattr("transformer.questions.experiments.EXPERIMENTS", {3: lambda _: FOUND[3]})
    verb.explain(parse(*files, "--question", "3", "--language", language))
    assert said in capsys.readouterr().out.splitlines()[0]
