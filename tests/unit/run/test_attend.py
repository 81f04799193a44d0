"""`transformer attend`: the page holds the weights, loads nothing, and answers to clicks."""

import csv
import io
import json
import re
import types

import numpy as np
import pytest
from unit.browser import answers, needs_browser

from transformer.config import ModelConfig
from transformer.inference.ablation import HeadOff
from transformer.inference.attention_maps import AttentionMap
from transformer.inference.sentence_pair import SentencePair
from transformer.run import attend

SOURCE, TARGET = ["▁it", "</s>"], ["▁e", "s", "</s>"]


@pytest.fixture(scope="module")
def maps():
    draw = np.random.default_rng(0)

    def one(queries, keys):
        weights = draw.random((2, 3, len(queries), len(keys))).astype(np.float32)
        marks = [[piece in ("<s>", "</s>") for piece in side] for side in (queries, keys)]
        return AttentionMap(weights / weights.sum(axis=-1, keepdims=True), queries, keys, *marks)

    given = ["<s>", *TARGET[:-1]]
    return {"encoder": one(SOURCE, SOURCE), "decoder": one(given, given), "cross": one(TARGET, SOURCE)}


def data(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


def test_the_page_holds_every_weight_and_what_each_head_is_worth(maps):
    off = [HeadOff("cross", layer, head, -layer - head / 10) for layer in (0, 1) for head in (0, 1, 2)]
    found = data(attend.page({"source": "</script>&"}, maps, off))
    assert found["facts"] == [["source", "</script>&"]]
    assert [kind["name"].split()[0] for kind in found["kinds"]] == ["encoder", "decoder", "encoder-decoder"]
    for kind, name in zip(found["kinds"], maps, strict=True):
        np.testing.assert_allclose(kind["pieces"]["weights"], maps[name].weights_LHTS, atol=5e-5)
    cross = found["kinds"][2]
    assert cross["off"] == [[0, -0.1, -0.2], [-1, -1.1, -1.2]] and found["kinds"][0]["off"] is None
    assert cross["words"]["queries"] == ["es", "</s>"]


def test_a_head_of_a_layer_that_recurs_is_off_at_every_step(maps):
    off = [HeadOff("cross", 0, head, -head) for head in (0, 1, 2)]
    assert data(attend.page({}, maps, off))["kinds"][2]["off"] == [[0, -1, -2], [0, -1, -2]]


def test_the_table_holds_every_weight_between_words(maps):
    maps = maps | {"cross": maps["cross"]._replace(keys=['▁"a\tb"', "</s>"])}
    rows = list(csv.DictReader(io.StringIO(attend.table(maps)), delimiter="\t"))
    assert len(rows) == 2 * 3 * (2 * 2 + 2 * 2 + 2 * 2)
    assert list(rows[0].values())[:5] == ["encoder", "1", "1", "0", "0"]
    assert (rows[0]["query_word"], rows[1]["key_word"]) == ("it", "</s>")
    (row,) = [r for r in rows if [*r.values()][:5] == ["cross", "2", "3", "0", "1"]]
    assert (row["query_word"], row["key_word"]) == ("es", "</s>")
    weights_TS = maps["cross"].weights_LHTS[1, 2]  # the word has two pieces
    assert float(row["weight"]) == pytest.approx((weights_TS[0, 1] + weights_TS[1, 1]) / 2, abs=5e-5)
    assert {r["key_word"] for r in rows if r["kind"] == "cross"} == {'"a\tb"', "</s>"}


def test_the_page_loads_nothing(maps):
    page = attend.page({}, maps)
    assert "default-src 'none'" in page
    assert not re.search(r'(src|href)=|url\(|@import|fetch\(|https?://(?!www\.w3\.org/2000/svg")', page)


@needs_browser
def test_a_click_on_a_head_and_a_tooltip(maps, tmp_path):
    script = """
      const button = name => [...document.querySelectorAll("button")].find(b => b.textContent === name);
      const answers = [document.querySelectorAll("svg line").length];
      button("2").click();
      [...document.querySelectorAll("#heads button")].find(b => b.textContent === "3").click();
      answers.push(document.querySelectorAll("svg line").length);
      const word = document.querySelector('[data-token="query0"]');
      word.dispatchEvent(new MouseEvent("mousemove", {clientX: 5, clientY: 5}));
      answers.push(document.getElementById("tooltip").textContent);
      answers.push(document.querySelectorAll("svg line.on").length);
      const line = document.querySelector('svg line[data-query="0"]');
      line.dispatchEvent(new MouseEvent("mousemove", {clientX: 5, clientY: 5}));
      answers.push(document.getElementById("tooltip").textContent, +line.dataset.key);
      answers.push([...document.querySelectorAll("svg line")].map(
        l => [+l.dataset.query, +l.dataset.key, +l.getAttribute("stroke-width")]));
      button("words").click();
      answers.push(document.querySelectorAll("svg line").length);"""
    found = answers(attend.page({}, maps), script, tmp_path)
    weights = maps["cross"].weights_LHTS
    assert found[0] == (weights[1] >= 0.02).sum()
    assert found[1] == (weights[1, 2] >= 0.02).sum()
    best = weights[1, 2, 0].argmax()
    assert found[2].splitlines()[:2] == [
        "▁e reads (head 3)",
        f"{weights[1, 2, 0, best]:.3f}  {SOURCE[best]}",
    ]
    assert found[3] == (weights[1, 2, 0] >= 0.02).sum()
    assert f"{weights[1, 2, 0, found[5]]:.3f}" in found[4]  # what is said of a line
    widths = {(query, key): width for query, key, width in found[6]}
    thin, thick = sorted(widths, key=widths.__getitem__)[:: len(widths) - 1]
    assert weights[1, 2][thin] < weights[1, 2][thick] and widths[thin] < widths[thick]
    assert found[7] == 2 * 2


@needs_browser
def test_a_word_that_is_too_long_is_cut_and_its_tooltip_has_it_whole(maps, tmp_path):
    script = """
      const words = [...document.querySelectorAll("[data-token]")];
      const answers = [words.map(word => word.getComputedTextLength()), words[0].textContent];
      words[0].dispatchEvent(new MouseEvent("mousemove", {clientX: 5, clientY: 5}));
      answers.push(document.getElementById("tooltip").textContent);"""
    long = "▁" + "word" * 40
    maps = maps | {"cross": maps["cross"]._replace(queries=[long, *TARGET[1:]])}
    widths, shown, tooltip = answers(attend.page({}, maps), script, tmp_path)
    assert max(widths) <= 300 and shown.startswith("▁wordword") and shown.endswith("…")
    assert tooltip.startswith(f"{long} reads")


def test_the_verb_writes_its_files_and_prints_the_alignment(maps, tmp_path, capsys, monkeypatch):
    config = types.SimpleNamespace(model=ModelConfig(num_decoder_layers=2, recurrence="fixed"))
    loaded = types.SimpleNamespace(config=config)
    monkeypatch.setattr("transformer.inference.model_directory.load_model", lambda *_: loaded)
    monkeypatch.setattr("transformer.inference.attention_maps.attention_maps", lambda *_: maps)
    pair = SentencePair([], [], False, "es", "it")
    monkeypatch.setattr("transformer.inference.sentence_pair.sentence_pair", lambda *_: pair)
    args = types.SimpleNamespace(
        model="m", checkpoint="best", source="it", target="es", output=str(tmp_path), layer=None, ablate=False
    )
    attend.attend(args)
    printed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert printed[:2] == [["target", "es"], ["alignment", "0-0"]]
    files = ["attention.html", "attention.tsv", *(f"attention_{kind}.png" for kind in maps)]
    assert printed[2:] == [["file", str(tmp_path / name)] for name in files]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(files)
    assert (
        "which recurs: layer n is its step n"
        in dict(data((tmp_path / files[0]).read_text())["facts"])["layers"]
    )
    off = [HeadOff("cross", 1, 2, -0.25)]
    monkeypatch.setattr("transformer.inference.ablation.without_each_head", lambda *_: (-11.24, off))
    args.ablate = True
    attend.attend(args)
    printed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert printed[2:4] == [["log-probability", "-11.2400"], ["off", "cross", "2", "3", "-0.2500"]]
