"""SIGKILL at any moment: the next start continues from the newest complete checkpoint, to the same bits.

The moments are random, or, under strace, each system call of a save that changes a name or waits for
the disk. At most the save in flight is lost.
"""

import contextlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny_run import SETTINGS, changed, read_arrays, write_corpus
from zygote import zygote

LAST = 24
SAVES = [4, 7, 8, 12, 14, 16, 20, 21, 24]  # every 4 steps, and before the evaluation after every 7
CALLS = "rename,renameat,renameat2,mkdir,mkdirat,fsync,fdatasync"
STRACE = shutil.which("strace")


class Reference(NamedTuple):
    """A run that nobody killed."""

    start: object  # the zygote
    arrays: dict


class Point(NamedTuple):
    """A system call of the save of one step."""

    step: int
    call: str
    path: str  # relative to the folder of the checkpoints


def lines_of(workdir: Path) -> list[dict]:
    file = workdir / "metrics.jsonl"
    # The last line may be half written.
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def done(workdir: Path) -> int:
    """Returns the last step that is logged."""
    return max((line["step"] for line in lines_of(workdir) if line["split"] == "train"), default=0)


def complete(workdir: Path) -> int:
    """Returns the newest step that has a checkpoint under its name; 0 if there is none."""
    names = [path.name for path in workdir.glob("checkpoints/*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def run(reference: Reference, workdir: Path, kill=None, pause=False) -> bool:
    """Starts a run and lets `kill` have it; returns whether it was killed, and checks what it kept."""
    before = complete(workdir)
    process = reference.start.start(workdir, pause)
    if kill:
        kill(process)
    code = reference.start.result()
    said = Path(f"{workdir}.said").read_text()
    assert code in (0, -signal.SIGKILL), said
    assert "warning" not in said and "Traceback" not in said
    told = re.search(r"continuing after step (\d+)", said)
    if told or code == 0:
        assert (int(told[1]) if told else 0) == before, said
    begun = [0, 0, *(step for step in SAVES if step < done(workdir))]
    assert begun[-2] <= complete(workdir) and before <= complete(workdir)
    return code != 0


def same(reference: Reference, workdir: Path) -> None:
    """Asserts that a run ended as if it had never been killed."""
    arrays = read_arrays(workdir, LAST)
    assert {k: x.tobytes() for k, x in arrays.items()} == {
        k: x.tobytes() for k, x in reference.arrays.items()
    }
    steps = [line["step"] for line in lines_of(workdir) if line["split"] == "train"]
    assert steps == [*range(1, LAST + 1)]
    assert all(path.name.isdecimal() for path in (workdir / "checkpoints").iterdir())


def after(seconds: float):
    """Kills a process after some time, if it still runs."""

    def kill(process: int):
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)

    return kill


def after_step(workdir: Path, step: int, seconds: float):
    """Kills a process some time after a step is logged."""

    def kill(process: int):
        while done(workdir) < step and Path(f"/proc/{process}").exists():
            time.sleep(0.002)
        after(seconds)(process)

    return kill


def traced(*options: str):
    """Lets a process that pauses go on under strace."""

    def kill(process: int):
        command = [STRACE, "-f", "-y", f"--trace={CALLS}", *options, "-p", str(process)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
            if "attached" in tracer.stderr.readline():
                os.kill(process, signal.SIGCONT)
            tracer.stderr.read()

    return kill


def at(workdir: Path, point: Point):
    """Kills a process at a system call."""
    path = f"{workdir}/checkpoints/{point.path}"
    return traced(f"--inject={point.call}:signal=KILL:when=1", f"--trace-path={path}")


def points_of_saves(reference: Reference, workdir: Path) -> dict[tuple[str, str], list[Point]]:
    """Returns the system calls of a run's saves by their kind, but for those on files of random names."""
    log = Path(f"{workdir}.calls")
    assert not run(reference, workdir, traced(f"--output={log}"), pause=True)
    kinds: dict[tuple[str, str], list[Point]] = {}
    for line in log.read_text().splitlines():
        call = re.search(rf"(\w+)\(.*?{workdir}/checkpoints/((\d+)[^\">]*)", line)
        if call and not re.search(r"/d(/|$)", call[2]):
            kind = call[1], re.sub(r"^\d+", "N", call[2])
            kinds.setdefault(kind, []).append(Point(int(call[3]), call[1], call[2]))
    return kinds


def kill_until_done(reference: Reference, workdir: Path, kills, pause=False) -> int:
    """Kills a run again and again, then lets it finish; returns how often it was killed."""
    count = 0
    for kill in kills:
        if not run(reference, workdir, kill, pause):
            break
        count += 1
    else:
        assert not run(reference, workdir)
    same(reference, workdir)
    shutil.rmtree(workdir)
    return count


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    settings = changed(write_corpus(folder), run=SETTINGS["run"] | {"num_steps": LAST})
    with zygote(settings) as start:
        start.start(folder / "run")
        assert start.result() == 0, (folder / "run.said").read_text()
        yield Reference(start, read_arrays(folder / "run", LAST))


def random_kills(workdir: Path, seed: int):
    """One kill in four comes at any time, the others soon after some step."""
    draw = random.Random(seed)
    while True:
        if draw.random() < 0.25:
            yield after(draw.uniform(0, 2))
        else:
            yield after_step(workdir, complete(workdir) + draw.randint(1, 8), draw.uniform(0, 0.2))


def test_killed_at_random_moments(reference, tmp_path):
    killed = 0
    while killed < 7:
        kills = itertools.islice(random_kills(tmp_path / "run", killed), 7 - killed)
        killed += kill_until_done(reference, tmp_path / "run", kills)


@pytest.mark.skipif(not STRACE, reason="needs strace")
def test_killed_in_a_save(reference, tmp_path):
    paths = [
        (4, "rename", "4.saving.orbax-checkpoint-tmp"),
        (7, "rename", "7.saving/xxh3_128.json.tmp"),
        (8, "rename", "8.saving"),
    ]
    kills = [at(tmp_path / "run", Point(*path)) for path in paths]
    assert kill_until_done(reference, tmp_path / "run", kills, pause=True) == 3


def kill_at_each(reference: Reference, folder: Path) -> int:
    """Kills runs once at each kind of system call of a save; returns how often that was."""
    kinds = points_of_saves(reference, folder / "calls")
    assert {("rename", name) for name in ("N.saving", "N.saving/xxh3_128.json.tmp", "N")} <= kinds.keys()
    assert len(kinds) > 50
    killed = 0
    while kinds:
        workdir = folder / f"killed {killed} times"
        chosen = {}
        for step in SAVES:
            for kind in sorted(kinds.keys() - chosen.keys()):
                if point := next((p for p in kinds[kind] if p.step == step), None):
                    chosen[kind] = at(workdir, point)
                    break
        count = kill_until_done(reference, workdir, chosen.values(), pause=True)
        assert count, next(iter(chosen))  # it is out of reach
        for kind in list(chosen)[:count]:
            del kinds[kind]
        killed += count
    return killed


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_kills(reference, tmp_path):
    killed = kill_at_each(reference, tmp_path) if STRACE else 0
    for seed in itertools.count():
        if killed >= 200:
            break
        killed += kill_until_done(reference, tmp_path / "run", random_kills(tmp_path / "run", seed))
    print(f"killed {killed} times")
