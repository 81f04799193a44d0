"""Training on a prepared TFDS dataset, with TFDS's own reader and without TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow_datasets", reason="needs the extra packages: pip install 'transformer[tfds]'")
pytest.importorskip("array_record", reason="needs the extra packages: pip install 'transformer[tfds]'")
sys.path.append(str(Path(__file__).parents[1]))  # where the builder lies that other tests use too

from tfds_builder import build
from tiny_run import ROOT, SETTINGS, changed, write_recipe

TRAIN = """
import runpy, sys
try:
    runpy.run_path("train.py", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
assert "tensorflow_datasets" in sys.modules
print([name for name in sys.modules if name.split(".")[0] == "tensorflow"])
"""


def test_a_few_steps_without_tensorflow(tmp_path):
    pairs = [(f"hello {i % 50} world", f"hallo {i % 50} welt") for i in range(120)]
    build(tmp_path / "tfds", "toy_translate/de-en", {"train": pairs, "validation": pairs[:7]}, num_shards=2)
    data = {
        "kind": "tfds",
        "tfds_name": "toy_translate/de-en",
        "tfds_dir": str(tmp_path / "tfds"),
        "tfds_splits": ("train", "validation"),
    }
    settings = changed(SETTINGS, data=data, run={"num_steps": 4, "eval_every": 4}, optim={"ema_decay": 0.0})
    recipe = write_recipe(tmp_path / "recipe.py", settings)
    command = [sys.executable, "-c", TRAIN, f"--config={recipe}", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["split"], line["step"]) for line in lines] == [
        ("data", 0), *(("train", step) for step in range(1, 5)), ("dev", 4)
    ]  # fmt: skip
    counts = {
        name.split(" ")[0]: value["kept"] for name, value in lines[0].items() if isinstance(value, dict)
    }
    assert counts == {"train": 120, "dev": 7}
