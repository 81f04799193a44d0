"""A corpus, a recipe and a model so small that a whole run takes seconds."""

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental.compilation_cache import compilation_cache

from transformer.config import Config
from transformer.config_mapping import from_config_dict

ROOT = Path(__file__).parents[2]

folder_of_compiled = Path()  # set by conftest.py
CLOCK = {"tokens_per_second", "data_wait"}  # how fast a step was, not what it did
Settings = dict[str, dict[str, Any]]

SETTINGS: Settings = {
    "model": {
        "d_model": 16,
        "d_ff": 32,
        "num_heads": 2,
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "dropout_rate": 0.2,
        "max_length": 32,
    },
    "tokenizer": {"model_type": "bpe", "vocab_size": 40},
    "data": {"batch_tokens": 256, "packing_bins": 16},
    "optim": {"warmup_steps": 4, "accumulation_steps": 2, "ema_decay": 0.9},
    "run": {
        "num_steps": 24,
        "eval_every": 7,
        "save_every": 4,
        "log_every": 1,
        "eval_lines": 0,
        "best_metric": "nll",
    },
}


def write_corpus(folder: Path, pairs: int = 300) -> Settings:
    """Writes a toy language pair (the words backwards); returns the settings of a run on it."""
    draw = random.Random(7)
    words = ["".join(draw.choices("abcdefg", k=draw.randint(1, 4))) for _ in range(30)]
    files: dict[str, Any] = {"root": str(folder)}
    for split, count in (("train", pairs), ("dev", 20)):
        lines = [draw.choices(words, k=draw.randint(1, 6)) for _ in range(count)]
        for side, order in (("source", 1), ("target", -1)):
            name = f"{split}.{side}"
            (folder / name).write_text("".join(" ".join(line[::order]) + "\n" for line in lines))
            files[f"{split}_{side}"] = (name,)
    return {**SETTINGS, "data": SETTINGS["data"] | files}


def changed(settings: Settings, **changes: dict[str, Any]) -> Settings:
    """Returns `settings` with some values of some sections changed."""
    return {s: settings.get(s, {}) | changes.get(s, {}) for s in settings.keys() | changes.keys()}


def make_config(settings: Settings, **changes: dict[str, Any]) -> Config:
    """Returns the configuration of `settings` with some values changed."""
    return from_config_dict(changed(settings, **changes))


def write_recipe(file: Path, settings: Settings) -> Path:
    """Writes the settings as a recipe."""
    head = "from transformer.config import default_config\n"
    head += "def get_config():\n    config = default_config()\n"
    body = [f"    config.{s}.{k} = {v!r}\n" for s, values in settings.items() for k, v in values.items()]
    file.write_text(head + "".join(body) + "    return config\n")
    return file


def start(recipe: Path, workdir: Path, *overrides: str) -> subprocess.Popen:
    """Starts a training process; what it compiles is kept for the next one."""
    command = [sys.executable, "train.py", f"--config={recipe}", f"--workdir={workdir}", *overrides]
    return subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)


def environment() -> dict[str, str]:
    """Returns the variables for a training process: what is compiled is kept for the session."""
    return os.environ | {key.upper(): str(value) for key, value in _compilation(folder_of_compiled).items()}


@contextlib.contextmanager
def compiled_once(folder: Path | None = None) -> Iterator[None]:
    """Shares what is compiled between runs of this process and those started with `environment()`.

    Or keeps it in a folder of its own.
    """
    folder = folder or folder_of_compiled
    before = {key: jax.config.values[key] for key in _compilation(folder)}
    compilation_cache.reset_cache()  # it is opened once, with the folder of that moment
    try:
        for key, value in _compilation(folder).items():
            jax.config.update(key, value)
        yield
    finally:
        for key, value in before.items():
            jax.config.update(key, value)
        compilation_cache.reset_cache()


def _compilation(folder: Path) -> dict[str, Any]:
    """Such small models take longer to compile than to train: XLA leaves out most optimizations."""
    return {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(folder / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }


def read_arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Returns every array of a checkpoint by its path, read without our own code."""
    folder = workdir.absolute() / "checkpoints" / str(step)
    arrays = {}
    for item in ("params", "optimizer", "ema"):
        if (folder / item).exists():
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
                there = reader.metadata(folder / item).item_metadata.tree
                plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), there)
                tree = reader.restore(folder / item, args=ocp.args.PyTreeRestore(restore_args=plain))
            for path, x in jax.tree_util.tree_leaves_with_path(tree):
                arrays[item + jax.tree_util.keystr(path)] = np.asarray(x)
    return arrays


def lines_of(workdir: Path) -> dict[tuple[str, int], dict]:
    """The lines of metrics.jsonl about train and dev, each of which must be there once."""
    found = {}
    for text in (workdir / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        key = line.pop("split"), line.pop("step")
        if key[0] != "data":
            assert key not in found
            found[key] = {name: value for name, value in line.items() if name not in CLOCK}
    return found


def has_done(workdir: Path, step: int) -> Callable[[], bool]:
    """Returns the function that tells whether `step` is logged."""
    file = workdir / "metrics.jsonl"
    return lambda: file.exists() and f'"train", "step": {step}, ' in file.read_text()


def wait_for(process: subprocess.Popen, moment: Callable[[], bool]) -> None:
    """Waits until `moment()`, watched closely; the process must not end before."""
    deadline = time.monotonic() + 120
    while not moment():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.001)


def finish(recipe: Path, workdir: Path) -> None:
    """Runs training to its end."""
    process = start(recipe, workdir)
    assert process.wait(120) == 0, process.stderr.read()
    process.stderr.close()
