"""The doctor on this very machine, and its proof that a stopped run continues exactly."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import ROOT, changed, write_corpus, write_recipe

PLANTED = """
import sys
from pathlib import Path
from transformer.errors import CheckpointError
from transformer.doctor.trial import Trial
from transformer.doctor.verdict import verdict

try:
    for line in verdict(Trial(sys.argv[1], (), 6, None, Path(sys.argv[2])), int(sys.argv[3])):
        print(line)
except CheckpointError as error:
    print(error)
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    settings = changed(write_corpus(tmp_path), data={"subword_dropout": 0.1})
    return write_recipe(tmp_path / "recipe.py", settings)


def doctor(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "transformer", "doctor", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_a_report(recipe, tmp_path):
    """Every check is really made; what it finds of the data is wrong on one side on purpose."""
    done = doctor("--config", recipe, "--workdir", tmp_path / "run", "--config.data.dev_target=train.target")
    found = {line[9:25].strip(): (line.split()[0], line[25:]) for line in done.stdout.splitlines()}
    assert found["two processes"][0] == "ok", done.stdout
    assert found["two processes"][1].startswith("sum of 4 MB over both in ")
    assert found["data train"] == ("ok", "train.source: 300 lines | train.target: 300 lines")
    assert found["data dev"][0] == "problem" and "train.target: 300 lines" in found["data dev"][1]
    assert {found[name][0] for name in ("machine", "packages", "free space", "model")} == {"ok"}
    assert "MB/s" in found["write speed"][1]
    assert done.returncode == 1
    assert not (tmp_path / "run").exists()


def test_arguments(recipe):
    for words, text in (
        (["resum"], "did you mean 'resume'?"),
        (["resume"], "needs --config"),
        (["--mesh", "1x1x1"], "belongs to doctor resume"),
        (["--config.data.seed=1"], "needs --config"),
        (["--config", recipe, "--stepz", "3"], "did you mean '--steps'?"),
    ):
        done = doctor(*words)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert text in done.stderr


@pytest.mark.slow
def test_a_stopped_run_continues_exactly_and_planted_differences_are_found(recipe, tmp_path):
    kept = tmp_path / "kept"
    done = doctor("resume", "--config", recipe, "--workdir", kept)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("exact: stopped after step ")
    assert [line.split()[0] for line in done.stdout.splitlines()[:-1]] == ["ok"] * 5
    stop = int(done.stdout.split("exact: stopped after step ")[1].split()[0])
    assert doctor("resume", "--config", recipe, "--workdir", kept).returncode == 2  # holds runs already

    text = (kept / "stopped" / "metrics.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in text]
    for entry in entries:
        if (entry["split"], entry["step"]) == ("train", 11):
            entry["loss"] += 1e-12
    (kept / "stopped" / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries))
    words = [sys.executable, "-c", PLANTED, recipe, kept, str(stop)]
    told = subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    assert told[-1].startswith("first difference: step 11: train loss is ")


@pytest.mark.slow
def test_a_stopped_run_continues_on_another_mesh(recipe):
    done = doctor("resume", "--config", recipe, "--steps", 4, "--mesh", "1x2x1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "continued on mesh 1x2x1" in done.stdout
    assert "ok       restored " in done.stdout


@pytest.mark.slow
def test_a_training_command_that_fails_ends_as_it_would_alone(recipe):
    done = doctor("resume", "--config", recipe, "--config.data.train_source=none.source")
    assert done.returncode == 3
    assert "none.source: no such file" in done.stderr.splitlines()[-1]
