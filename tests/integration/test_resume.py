"""A run that is killed, stopped and started again gives the very bits of one that never was.

Dropout, packing, accumulation and the moving average are on; checkpoints fall into the middle of epochs.
"""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny_run import (
    compiled_once,
    finish,
    has_done,
    lines_of,
    make_config,
    read_arrays,
    start,
    wait_for,
    write_corpus,
    write_recipe,
)

from transformer.errors import Preempted
from transformer.run import loop as loop_module
from transformer.run.train import train

LAST = 24


class Reference(NamedTuple):
    """A run that nothing disturbed: what it was made from, its lines and its last arrays."""

    settings: dict
    workdir: Path
    recipe: Path
    lines: dict
    arrays: dict


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    settings = write_corpus(folder)
    recipe = write_recipe(folder / "recipe.py", settings)
    finish(recipe, folder / "run")
    lines = lines_of(folder / "run")
    assert sorted(step for split, step in lines if split == "train") == list(range(1, LAST + 1))
    assert sorted(step for split, step in lines if split == "dev") == [7, 14, 21, 24]
    # The data must go round more than once: the position in an epoch counts, and the epoch.
    assert sum(v["target_tokens"] for (split, _), v in lines.items() if split == "train") > 2 * 2118
    with compiled_once():
        yield Reference(settings, folder / "run", recipe, lines, read_arrays(folder / "run", LAST))


def same(workdir: Path, reference: Reference, besides=frozenset()) -> None:
    """Asserts that a run ended as the reference did, bit by bit; `besides` are further lines."""
    assert {k: v for k, v in lines_of(workdir).items() if k not in besides} == reference.lines
    for step in kept(reference.workdir):
        scores = reference.workdir / "checkpoints" / step / "metrics" / "metrics"
        assert (workdir / "checkpoints" / step / "metrics" / "metrics").read_bytes() == scores.read_bytes()
    assert kept(workdir) == kept(reference.workdir)
    arrays = read_arrays(workdir, LAST)
    assert arrays.keys() == reference.arrays.keys()
    assert len({name.split("[")[0] for name in arrays}) == 3
    for name, x in arrays.items():
        assert x.dtype == reference.arrays[name].dtype
        assert x.tobytes() == reference.arrays[name].tobytes(), name


def kept(workdir: Path) -> list[str]:
    """The steps whose checkpoints are there, or what else lies with them."""
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


def end(process: subprocess.Popen, number: signal.Signals) -> tuple[int, str]:
    """Sends a signal; returns the exit code and what the process had to say."""
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def test_killed_again_and_again(reference, tmp_path):
    process = start(reference.recipe, tmp_path)
    while "compiling" not in process.stderr.readline():
        pass
    assert end(process, signal.SIGKILL)[0] == -signal.SIGKILL
    assert not list(tmp_path.glob("checkpoints/*"))

    process = start(reference.recipe, tmp_path)
    killed_while_saving(process, tmp_path)
    unfinished = list(tmp_path.glob("checkpoints/*.orbax-checkpoint-tmp"))

    process = start(reference.recipe, tmp_path)
    wait_for(process, has_done(tmp_path, 17))
    assert end(process, signal.SIGKILL)[0] == -signal.SIGKILL
    assert unfinished and not any(path.exists() for path in unfinished)

    finish(reference.recipe, tmp_path)
    same(tmp_path, reference)


def killed_while_saving(process: subprocess.Popen, workdir: Path) -> None:
    """Freezes the process when it seems to be saving its second checkpoint or a later one, and kills it."""

    def saving() -> bool:
        folders = list((workdir / "checkpoints").glob("*"))
        return len(folders) > 1 and any(f.name.endswith("orbax-checkpoint-tmp") for f in folders)

    while True:
        wait_for(process, saving)
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.05)
        if saving():
            assert end(process, signal.SIGKILL)[0] == -signal.SIGKILL
            return
        process.send_signal(signal.SIGCONT)


def test_stopped_by_signals(reference, tmp_path):
    for number, code, step in ((signal.SIGTERM, 75, 5), (signal.SIGINT, 130, 12)):
        process = start(reference.recipe, tmp_path)
        wait_for(process, has_done(tmp_path, step))
        returned, said = end(process, number)
        assert returned == code, said
        last = said.splitlines()[-1]
        assert last.startswith(f"transformer: error: stopped by {number.name} after step ")
        assert "run the same command again to continue" in last
        # Everything is saved: the last step done is the last step kept.
        done = max(step for split, step in lines_of(tmp_path) if split == "train")
        assert f"after step {done};" in last
        assert (tmp_path / "checkpoints" / str(done) / "commit_success.txt").exists()
        assert not list(tmp_path.glob("checkpoints/*tmp"))
    finish(reference.recipe, tmp_path)
    same(tmp_path, reference)


def test_a_signal_after_the_decision_to_save_waits_for_the_next_step(reference, tmp_path, monkeypatch):
    """Step 5 is neither saved nor settled when SIGTERM arrives: it must not be the last one."""
    is_due = loop_module.Run._saving_is_due

    def signal_after_step_5(run):
        due = is_due(run)
        if run.position.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return due

    config = make_config(reference.settings, run={"replica_check_every": 0})  # which would ask as well
    monkeypatch.setattr(loop_module.Run, "_saving_is_due", signal_after_step_5)
    with pytest.raises(Preempted, match="by SIGTERM after step 6; everything is saved"):
        train(config, str(tmp_path))
    assert max(step for split, step in lines_of(tmp_path) if split == "train") == 6
    assert "6" in kept(tmp_path)
    train(config, str(tmp_path))
    same(tmp_path, reference)


def test_an_evaluation_that_a_stop_prevented_is_made_up_for(reference, tmp_path, monkeypatch):
    """SIGTERM arrives in the very step 7 that is to be evaluated; then the evaluation of step 14 crashes."""
    config = make_config(reference.settings)
    batches, evaluations = [], []
    to_devices, evaluate_dev = loop_module.to_devices, loop_module.evaluate_dev

    def signal_in_step_7(*args):
        batches.append(args)
        if len(batches) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return to_devices(*args)

    def crash_at_second(*args):
        evaluations.append(args)
        if len(evaluations) == 2:
            raise RuntimeError("crash")
        return evaluate_dev(*args)

    monkeypatch.setattr(loop_module, "to_devices", signal_in_step_7)
    monkeypatch.setattr(loop_module, "evaluate_dev", crash_at_second)
    with pytest.raises(Preempted, match="by SIGTERM after step 7;"):
        train(config, str(tmp_path))
    assert not evaluations
    with pytest.raises(RuntimeError, match="crash"):
        train(config, str(tmp_path))
    assert ("dev", 7) in lines_of(tmp_path) and ("dev", 14) not in lines_of(tmp_path)
    train(config, str(tmp_path))
    assert len(evaluations) == 5
    same(tmp_path, reference)


def test_a_run_made_longer_is_the_long_run(reference, tmp_path):
    """The schedule is the paper's, which does not know the length of the run."""
    train(make_config(reference.settings, run={"num_steps": 10}), str(tmp_path))
    assert ("dev", 10) in lines_of(tmp_path)
    train(make_config(reference.settings), str(tmp_path))
    same(tmp_path, reference, besides={("dev", 10)})
    before = (tmp_path / "metrics.jsonl").read_bytes()
    train(make_config(reference.settings), str(tmp_path))  # there is nothing left to do
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
