"""The verbs with a language model of text alone: what is printed, recorded and refused."""

import json
import math
import re

import pytest
from unit.small_model import ALONE, TEXT, make_model

from transformer import cli
from transformer.io.metrics_file import read_metrics
from transformer.io.weights import write_weights
from transformer.io.workdir import Workdir

LINES = ["ant bee", "cat dog. dog.", "eel"]
NOT_TAKEN = ["", "ant " * 16]  # empty, and longer than the model was trained for


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model directory beside its test sets: `test`, `other`, `more` with what training leaves out."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "test").write_text("".join(f"{line}\n" for line in LINES))
    (folder / "more").write_text("".join(f"{line}\n" for line in LINES + NOT_TAKEN))
    (folder / "other").write_text("cat cat\n")
    data = TEXT["data"] | {"root": str(folder), "test_target": ("test", "other", "more")}
    loaded = make_model(TEXT | {"data": data}, **ALONE)
    workdir = Workdir(folder / "run")
    loaded.tokenizer.save(workdir.tokenizer)
    workdir.seal(loaded.config, loaded.tokenizer.digest)
    workdir.save_config(loaded.config)
    write_weights(workdir.weights, loaded.params, 7)
    return folder / "run"


def test_score_and_evaluate_agree(run, tmp_path, capsys):
    assert cli.main(["score", "--model", str(run), "--target", str(run.parent / "test")]) == 0
    out, err = capsys.readouterr()
    scores = list(map(float, out.split()))
    words = sum(len(line.split()) + 1 for line in LINES)
    perplexity = math.exp(-sum(scores) / words)
    size = (run.parent / "test").stat().st_size
    assert len(scores) == len(LINES) and f"perplexity {perplexity:.2f}  [" in err
    assert f"{words} tokens]" in err and f" bits a byte, {size} bytes" in err

    assert cli.main(["evaluate", "--model", str(run), "--json", str(tmp_path / "scores")]) == 0
    out = capsys.readouterr().out
    assert re.match(rf"test: 3 lines\nperplexity {perplexity:.2f}  \[", out)
    found, record = json.loads((tmp_path / "scores").read_text()), read_metrics(run)[-1]
    assert found["nll"] == record["nll"] == pytest.approx(-sum(scores) / words, abs=1e-5)
    assert found["bits_per_byte"] == pytest.approx(-sum(scores) / math.log(2) / size, rel=1e-4)
    assert (record["split"], record["step"], record["tokens"]) == ("test", 7, words)


def test_unknown_text_is_told_where_it_flatters(run, tmp_path, capsys):
    (tmp_path / "odd").write_text("ant quark bee quark\n")
    assert cli.main(["score", "--model", str(run), "--target", str(tmp_path / "odd")]) == 0
    assert "bits a byte, 20 bytes (too low: tokens of unknown text: 2)" in capsys.readouterr().err


def test_evaluate_takes_of_every_test_set_the_lines_that_training_takes(run, tmp_path, capsys):
    assert cli.main(["evaluate", "--model", str(run), "--json", str(tmp_path / "scores")]) == 0
    out, err = capsys.readouterr()
    perplexities = list(map(float, re.findall(r"^perplexity (\S+)", out, re.MULTILINE)))
    assert perplexities[2] == perplexities[0] and "test more: 3 of 5 pairs" in err
    assert "left out: 1 empty, 1 too_long" in err
    found = json.loads((tmp_path / "scores").read_text())
    assert found["name"] == "test" and list(found["sets"]) == ["test", "other", "more"]
    told = [round(one["perplexity"], 2) for one in found["sets"].values()]
    assert told == perplexities and round(found["perplexity"], 2) == perplexities[0] != perplexities[1]


def test_translate_goes_on_with_each_line(run, tmp_path, capsys):
    command = ["translate", "--model", str(run), "--input", str(run.parent / "test"), "--temperature", "1"]
    outputs = []
    for seed in ("1", "1", "2"):
        assert cli.main([*command, "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out.split("\n"))
    assert len(outputs[0]) == len(LINES) + 1 and outputs[0] == outputs[1] != outputs[2]
    assert all(out.startswith(line) for out, line in zip(outputs[0], LINES, strict=False))


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["score", "--target", "{test}", "--source", "{test}"], 2, "source: the model is one of text alone"),
        (["evaluate", "--show", "3"], 2, "--show: a language model of text alone translates nothing"),
        (["evaluate", "--beam_size", "3"], 2, "--beam_size: a language model of text alone"),
        (["evaluate", "--split", "dev"], 2, "config.data.dev_target: the run has no dev set"),
        (["attend", "ant"], 2, "kind is 'decoder_only', and this needs 'encoder_decoder'"),
        (["explain"], 2, "kind is 'decoder_only'"),
        (["benchmark", "decode"], 2, "is a language model of text alone"),
        (["export", "hf", "--to", "{test}.hf"], 2, "kind is 'decoder_only'"),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "",
)
def test_what_is_refused(command, code, message, run, capsys):
    arguments = [part.format(test=run.parent / "test") for part in command]
    assert cli.main([*arguments, "--model", str(run)]) == code
    found = capsys.readouterr().err.strip().split("\n")[-1]
    assert message in found
