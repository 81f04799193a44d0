"""Pictures of digits to words, the whole way: drawn, learnt, stopped, continued, read, scored, refused."""

import sys

import numpy as np
import pytest
from tiny_run import ROOT, SETTINGS, changed, compiled_once, lines_of, read_arrays, write_recipe

from transformer import cli

sys.path.insert(0, str(ROOT / "benchmarks"))

import digits

SPLITS = ("train", "dev", "test")
TINY = changed(
    SETTINGS,
    model=dict(source_features=digits.FEATURES, max_length=48, norm="pre", dropout_rate=0.1),
    tokenizer=dict(model_type="word", vocab_size=14),
    data=dict(kind="frames", batch_tokens=384)
    | {f"{split}_source": (f"{split}.npy",) for split in SPLITS}
    | {f"{split}_target": (f"{split}.words",) for split in SPLITS},
    optim=dict(learning_rate=0.01, schedule="constant", accumulation_steps=2, ema_decay=0.0),
    run=dict(eval_every=12, save_every=12, eval_lines=1, best_metric="nll"),
    decode=dict(length_limit=8, beam_size=1),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    digits.make(folder, dict(train=120, dev=4, test=3))
    with compiled_once():
        yield folder


def train(file, run, *overrides: str) -> int:
    return cli.main(["train", "--config", str(file), "--workdir", str(run), *overrides])


def verb(name: str, run, *arguments) -> int:
    return cli.main([name, "--model", str(run), *map(str, arguments)])


def test_a_run_learns_continues_to_the_bit_and_is_used(folder, capsys):
    file = write_recipe(folder / "recipe.py", changed(TINY, data=dict(root=str(folder))))
    whole, stopped = folder / "whole", folder / "stopped"
    assert train(file, whole, "--config.run.num_steps=24") == 0
    assert "train train.npy|train.words: 120 of 120 pairs" in capsys.readouterr().err
    assert train(file, stopped, "--config.run.num_steps=12") == 0
    assert train(file, stopped, "--config.run.num_steps=24") == 0
    assert lines_of(stopped) == lines_of(whole)
    ours, theirs = read_arrays(stopped, 24), read_arrays(whole, 24)
    assert ours.keys() == theirs.keys() and any("source" in path for path in ours)
    for path, x in ours.items():
        np.testing.assert_array_equal(x, theirs[path], err_msg=path)
    losses = [lines_of(whole)["train", step]["loss"] for step in range(1, 25)]
    assert np.mean(losses[-4:]) < 0.85 * np.mean(losses[:4])
    assert train(file, whole, "--config.model.source_features=16") == 4
    assert "holds a run of another configuration: model.source_features" in capsys.readouterr().err

    test, output = folder / "test.npy", folder / "output"
    assert verb("translate", whole, "--input", test, "--output", output) == 0
    lines = output.read_text().splitlines()
    assert len(lines) == 3
    parts = []
    for i in (1, 2):
        part = folder / f"part {i}"
        for _ in range(2):  # the second time all is done
            given = ("--input", test, "--output", part, "--shard", f"{i}/2", "--resume")
            assert verb("translate", whole, *given) == 0
        parts += part.read_text().splitlines()
    assert parts == lines
    capsys.readouterr()
    assert verb("evaluate", whole, "--show", 1) == 0
    shown = capsys.readouterr().out
    assert "test.npy|test.words: 3 lines" in shown and f"{test}: sample 1 (" in shown
    given = ("--source", test, "--reference", folder / "test.words")
    assert verb("evaluate", whole, *given) == 0
    assert f"{test}: 3 lines" in capsys.readouterr().out
    assert verb("score", whole, "--source", test, "--target", folder / "test.words") == 0
    assert all(-40 < float(score) < 0 for score in capsys.readouterr().out.splitlines())

    for arguments in (
        ["attend", "three"],
        ["explain"],
        ["plot", "--source", "three"],
        ["export", "hf", "--to", folder / "hf"],
        ["benchmark", "decode"],
    ):
        assert cli.main([*map(str, arguments), "--model", str(whole)]) == 2
        told = capsys.readouterr().err
        assert "its sources are frames" in told and "Traceback" not in told
    assert verb("parse", whole, "--input", folder / "test.words") == 2
    assert "was not trained to write trees" in capsys.readouterr().err
    assert verb("translate", whole) == 2
    assert "--input: is needed: the model reads frames" in capsys.readouterr().err
    exported = folder / "exported"
    assert cli.main(["export", "safetensors", "--model", str(whole), "--to", str(exported)]) == 0
    assert verb("translate", exported, "--input", test, "--output", output) == 0
    assert output.read_text().splitlines() == lines
    assert "frames of 32 numbers, a vocabulary of 14 pieces" in (exported / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_recipe_reads_unseen_pictures(tmp_path, capsys):
    """The recipe as it is."""
    digits.make(tmp_path, digits.COUNTS)
    run = tmp_path / "run"
    assert train(ROOT / "configs" / "digits.py", run, f"--config.data.root={tmp_path}") == 0
    capsys.readouterr()
    assert verb("evaluate", run) == 0
    told = capsys.readouterr().out
    assert float(told.split("exact match: ")[1].split(" %")[0]) >= 90
