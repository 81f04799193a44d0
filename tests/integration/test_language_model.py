"""A decoder alone from text to text by the command line, stopped and continued to the bit on the way."""

import re

import pytest
from tiny_run import changed, compiled_once, read_arrays, write_corpus, write_recipe

from transformer import cli
from transformer.io.metrics_file import read_metrics

ALONE = {"kind": "decoder_only", "num_encoder_layers": 0}


@pytest.fixture
def run(tmp_path):
    """Returns a function that trains a recipe in a folder up to a step."""

    def train(settings, name, last):
        recipe = write_recipe(tmp_path / "recipe.py", settings)
        arguments = ["--config", str(recipe), "--workdir", str(tmp_path / name)]
        assert cli.main(["train", *arguments, f"--config.run.num_steps={last}"]) == 0
        return tmp_path / name

    with compiled_once():
        yield train


def same_bits(one, other, step):
    arrays = read_arrays(one, step), read_arrays(other, step)
    assert arrays[0].keys() == arrays[1].keys()
    assert all(x.tobytes() == arrays[1][name].tobytes() for name, x in arrays[0].items())
    assert not any("encoder" in name for name in arrays[0])


def test_text(run, tmp_path, capsys):
    settings = write_corpus(tmp_path)
    data = {"kind": "lines", "train_source": (), "dev_source": (), "test_target": ("dev.target",)}
    settings = changed(settings, model=ALONE, data=data)
    whole = run(settings, "whole", 8)
    stopped = run(settings, "stopped", 4)
    same_bits(whole, run(settings, "stopped", 8), 8)
    (dev,) = [r for r in read_metrics(whole) if (r["split"], r["step"]) == ("dev", 8)]
    assert dev["perplexity"] > 2 and "bleu" not in dev

    def verb(name, *arguments):
        capsys.readouterr()
        assert cli.main([name, "--model", str(stopped), "--checkpoint", "last", *arguments]) == 0
        return capsys.readouterr()

    # The same by another way: no packing, another function.
    assert f"perplexity {dev['perplexity']:.2f}  [{dev['nll']:.4f} nats" in verb("evaluate").out
    assert read_metrics(whole)[-1]["split"] == "dev" and read_metrics(stopped)[-1]["split"] == "test"
    target = str(tmp_path / "dev.target")
    scored = verb("score", "--target", target)
    nats = sum(map(float, scored.out.split()))
    tokens = int(re.search(r"nats a token, ([0-9,]+) tokens", scored.err)[1].replace(",", ""))
    assert -nats / tokens == pytest.approx(dev["nll"], rel=1e-5)

    lines = (tmp_path / "dev.target").read_text().splitlines()[:2]
    (tmp_path / "beginnings").write_text("".join(f"{line}\n" for line in [*lines, ""]))
    sampling = ("--temperature", "1", "--input", str(tmp_path / "beginnings"), "--max_length", "5")
    sampled = [verb("translate", *sampling, "--seed", seed).out.splitlines() for seed in ("1", "1", "2")]
    assert all(out.startswith(line) for out, line in zip(sampled[0], lines, strict=False))
    assert len(sampled[0]) == 3 and sampled[0] == sampled[1] != sampled[2]
    assert cli.main(["evaluate", "--model", str(stopped), "--show", "3"]) == 2
    assert "--show: a language model of text alone translates nothing" in capsys.readouterr().err


def test_a_prefix(run, tmp_path, capsys):
    model = {**ALONE, "prefix": "bidirectional"}
    settings = changed(write_corpus(tmp_path), model=model, run={"eval_lines": 3, "best_metric": "bleu"})
    whole = run(settings, "whole", 4)
    run(settings, "stopped", 2)
    same_bits(whole, run(settings, "stopped", 4), 4)
    assert "bleu" in read_metrics(whole)[-1]
    source = str(tmp_path / "dev.source")
    capsys.readouterr()
    assert cli.main(["translate", "--model", str(whole), "--input", source, "--max_length", "2"]) == 0
    assert capsys.readouterr().out.count("\n") == 20
    out = str(tmp_path / "out")
    for verb in (["attend", "--output", out, "a"], ["explain"], ["export", "hf", "--to", out]):
        assert cli.main([*verb, "--model", str(whole)]) in (2, 4)
        assert "kind is 'decoder_only'" in capsys.readouterr().err
