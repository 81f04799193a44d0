"""Training runs of several real processes: the same run as that of one, whatever happens to a process."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tiny_run import ROOT, changed, environment, read_arrays, write_corpus, write_recipe

LAST = 24
OTHER = ("split", "step", "tokens_per_second", "data_wait")  # besides what the step did


class Made(NamedTuple):
    """A recipe, and the run that one process made of it."""

    settings: dict
    recipe: Path
    one: Path


def launch(recipe: Path, workdir: Path, *overrides: str, processes: int = 2, restarts: int = 0):
    """Starts `transformer launch`; the simulated devices of each process are counted in XLA_FLAGS."""
    words = ["launch", f"--processes={processes}", f"--max_restarts={restarts}", "--heartbeat=30", "--"]
    words += ["train", f"--config={recipe}", f"--workdir={workdir}", *overrides]
    return begin(recipe, words if processes > 1 else words[5:])


def begin(recipe: Path, words: list, program=("-m", "transformer"), **variables: str) -> subprocess.Popen:
    command = [sys.executable, *program, *words]
    return subprocess.Popen(command, cwd=ROOT, env=environment() | variables, stdout=-1, stderr=-1, text=True)


def finish(process: subprocess.Popen, code: int = 0) -> str:
    """Waits for the end; returns what was said on standard error."""
    out, err = process.communicate(timeout=280)
    assert process.returncode == code, err
    assert out == ""
    return err


def lines_of(workdir: Path, split: str) -> dict[int, dict]:
    lines = [json.loads(text) for text in (workdir / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["split"] == split]
    assert len({line["step"] for line in lines}) == len(lines)
    return {line["step"]: {k: v for k, v in line.items() if k not in OTHER} for line in lines}


def position(workdir: Path, step: int) -> dict:
    return json.loads((workdir / f"checkpoints/{step}/position/metadata").read_text())


def same_run(workdir: Path, other: Path, last: int = LAST, atol: float = 5e-4) -> None:
    """Asserts that two runs saw the same sentences and learned the same, but for rounding."""
    ours, theirs = lines_of(workdir, "train"), lines_of(other, "train")
    assert list(ours) == list(theirs) == list(range(1, last + 1))
    for step, line in ours.items():
        for name in ("loss", "nll", "learning_rate"):
            assert line[name] == pytest.approx(theirs[step][name], rel=1e-5), (step, name)
        assert line["gradient_norm"] == pytest.approx(theirs[step]["gradient_norm"], rel=2e-2)
        for name in ("source_tokens", "target_tokens"):
            assert line[name] == theirs[step][name]
    assert position(workdir, last)["data"] == position(other, last)["data"]
    arrays = read_arrays(other, last)
    for name, x in read_arrays(workdir, last).items():
        np.testing.assert_allclose(x, arrays[name], rtol=0, atol=atol, err_msg=name)


def same_bits(workdir: Path, other: Path) -> None:
    arrays = read_arrays(other, LAST)
    assert {k: x.tobytes() for k, x in read_arrays(workdir, LAST).items()} == {
        k: x.tobytes() for k, x in arrays.items()
    }
    assert lines_of(workdir, "train") == lines_of(other, "train")


def until_step(workdir: Path, step: int, process: subprocess.Popen) -> None:
    """Waits until a step is logged."""
    file = workdir / "metrics.jsonl"
    while not (file.exists() and f'"train", "step": {step},' in file.read_text()):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children(process: subprocess.Popen) -> list[int]:
    """Returns the ids of a launcher's processes, the first one first."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return sorted(map(int, found))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """13 dev lines: two and four processes do not divide them."""
    folder = tmp_path_factory.mktemp("corpus")
    run = {"eval_lines": 13, "eval_every": 12, "replica_check_every": 5}
    longest = {"length_penalty": 4.0, "max_extra_length": 8}  # so that little learning gives some text
    settings = changed(write_corpus(folder), run=run, decode=longest)
    recipe = write_recipe(folder / "recipe.py", settings)
    finish(launch(recipe, folder / "one", processes=1))
    return Made(settings, recipe, folder / "one")


@pytest.fixture(scope="module")
def two(made):
    """The run that two processes made of the recipe, undisturbed, and what they said."""
    workdir = made.one.with_name("two")
    return workdir, finish(launch(made.recipe, workdir))


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_run_of_one_process(made, two, tmp_path, count):
    workdir, said = two if count == 2 else (tmp_path, finish(launch(made.recipe, tmp_path, processes=4)))
    same_run(workdir, made.one)
    alone, together = lines_of(made.one, "dev"), lines_of(workdir, "dev")
    assert list(alone) == list(together) == [12, 24]
    for step, scores in alone.items():
        assert together[step] == pytest.approx(scores, rel=1e-5)  # nll, and chrF of the 13 translations
    assert alone[LAST]["chrf"] > 1
    for i in range(count):
        place = rf"^\[{i}\] process {i} of {count} on .*: 1 of {count} devices"
        assert len(re.findall(place, said, re.M)) == 1
    # What is not an array and the progress line come from the first process alone.
    assert not re.findall(r"^\[[1-9]\] (?!process|\[Gloo\]).*", said, re.M)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_to_one_stops_both_and_one_process_goes_on(made, tmp_path, number, code):
    process = launch(made.recipe, tmp_path)
    until_step(tmp_path, 9, process)
    victim = children(process)[1]
    asked = time.monotonic()
    os.kill(victim, number)
    said = finish(process, code)
    assert time.monotonic() - asked < 10
    step = int(
        re.search(r"\[1\] transformer: error: stopped by SIG\w+ after step (\d+); everything", said)[1]
    )
    assert 9 <= step < LAST and (tmp_path / f"checkpoints/{step}").exists()
    assert f"continuing after step {step}" in finish(launch(made.recipe, tmp_path, processes=1))
    same_run(tmp_path, made.one)


@pytest.mark.slow
@pytest.mark.parametrize(("moment", "newest"), [("compiling", 0), ("evaluating", 12)])
def test_a_signal_to_one_ends_both_at_once_where_nothing_is_unsaved(made, two, tmp_path, moment, newest):
    """While the first step or the first evaluation is compiled: that takes longer than the stop may."""
    own = write_recipe(tmp_path / "recipe.py", made.settings)  # nothing is compiled yet
    process = launch(own, tmp_path / "run")
    for line in process.stderr:
        if moment in line:
            break
    asked = time.monotonic()
    os.kill(children(process)[1], signal.SIGTERM)
    said = finish(process, 75)
    assert time.monotonic() - asked < 10
    assert "[1] transformer: error: stopped by SIGTERM between steps; everything is saved" in said
    assert re.search(r"\[0\] transformer: error: process 1 of 2 on .* stopped: stopped by SIGTERM", said)
    told = finish(launch(made.recipe, tmp_path / "run"))
    assert (f"continuing after step {newest}" in told) == (newest > 0)
    same_bits(tmp_path / "run", two[0])


@pytest.mark.slow
def test_a_signal_to_the_launcher_stops_all_and_two_go_on(made, two, tmp_path):
    process = launch(made.recipe, tmp_path, restarts=3)
    until_step(tmp_path, 9, process)
    process.send_signal(signal.SIGTERM)
    assert "starting all again" not in finish(process, 75)
    finish(launch(made.recipe, tmp_path))
    same_bits(tmp_path, two[0])


def kill_and_restart(made, workdir: Path, kills: int) -> str:
    """Kills the first and the second process in turn, each time a little later in the run."""
    process = launch(made.recipe, workdir, restarts=kills)
    running: list[int] = []
    for i in range(kills):
        while len(set(children(process)) - set(running)) < 2:
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        running = children(process)
        until_step(workdir, 1 + i * (LAST - 2) // kills, process)
        time.sleep(0.03 * (i % 5))
        os.kill(running[i % 2], signal.SIGKILL)
    return finish(process)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_processes_are_started_again_and_end_with_the_same_bits(made, two, tmp_path):
    kills = 20
    said = kill_and_restart(made, tmp_path, kills)
    assert said.count("was killed by SIGKILL; starting all again") == kills
    assert said.count("is gone: its connection closed") > kills // 2  # others died before they had met
    same_bits(tmp_path, two[0])


@pytest.mark.slow
def test_a_stopped_process_is_noticed_after_the_heartbeat(made, two, tmp_path):
    process = launch(made.recipe, tmp_path, restarts=1)
    until_step(tmp_path, 9, process)
    first, second = children(process)
    asked = time.monotonic()
    os.kill(second, signal.SIGSTOP)
    while Path(f"/proc/{first}").exists():
        time.sleep(0.1)
    assert 20 < time.monotonic() - asked < 35
    assert re.search(r"\[0\] .*process 1 of 2 on .* has been silent for 30 s", finish(process))
    same_bits(tmp_path, two[0])


@pytest.mark.slow
@pytest.mark.parametrize(("flipped", "found"), [(9, 10), (11, 12)])
def test_a_process_that_drifts_is_found(made, tmp_path, flipped, found):
    """One bit of one parameter of process 1; compared every 5 steps, and before the save of 12."""
    train = ["train", f"--config={made.recipe}", f"--workdir={tmp_path}", "--num_processes=2"]
    train += [f"--coordinator=localhost:{free_port()}"]
    program = (str(ROOT / "tests/integration/drifting_process.py"), str(flipped))
    processes = [
        begin(made.recipe, [*train, "--process_id=0"]),
        begin(made.recipe, [*train, "--process_id=1"], program),
    ]
    for process in processes:
        said = re.search(r"error: (.*) has other bits than on (.*), and nobody knows", finish(process, 5))
        assert re.fullmatch(rf"step {found}: process 1, device \d+: \S+", said[1])
        assert said[2] == "process 0, device 0"
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["4", "8"]


@pytest.mark.parametrize("path", ["8,2x2x2,2,1", pytest.param("1,2,1x8x1,8", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_run_goes_on_with_other_devices(made, tmp_path, path):
    """Seven steps on each mesh; the learning rate does not depend on the length of the run."""
    words = ["train", f"--config={made.recipe}", f"--workdir={tmp_path}"]
    for number, mesh in enumerate(path.split(","), start=1):
        sizes = [*map(int, mesh.split("x")), 1, 1][:3]
        axes = [f"--config.mesh.{a}={n}" for a, n in zip(("data", "fsdp", "tensor"), sizes, strict=True)]
        flags = f"--xla_force_host_platform_device_count={np.prod(sizes)}"
        process = begin(made.recipe, [*words, *axes, f"--config.run.num_steps={7 * number}"], XLA_FLAGS=flags)
        said = finish(process)
        assert number == 1 or f"continuing after step {7 * (number - 1)}" in said
    alone = made.one.with_name("longer")
    if not alone.exists():
        finish(launch(made.recipe, alone, f"--config.run.num_steps={7 * number}", processes=1))
    same_run(tmp_path, alone, 7 * number, atol=5e-3)  # rounding grows at each switch


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2])
def test_fine_tuning(made, tmp_path, rank):
    """Each process reads the base and puts its share on its own devices."""
    options = [f"--config.init.model={made.one}", f"--config.lora.rank={rank}", "--config.run.eval_lines=0"]
    options += [
        "--config.run.num_steps=2",
        "--config.run.best_metric=nll",
        "--config.optim.learning_rate=1e-4",
    ]
    for processes in (1, 2):
        finish(launch(made.recipe, tmp_path / str(processes), *options, processes=processes))
    one, two = (read_arrays(tmp_path / name, 2) for name in "12")
    assert one.keys() == two.keys()
    for name, x in one.items():
        np.testing.assert_allclose(two[name], x, rtol=0, atol=5e-4, err_msg=name)
