"""Batches that processes of their own read and pack: the same after a stop, and none of them stays behind."""

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_run import (
    changed,
    finish,
    has_done,
    lines_of,
    read_arrays,
    start,
    wait_for,
    write_corpus,
    write_recipe,
)

LAST = 24


def children(process: subprocess.Popen) -> list[int]:
    files = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(number) for file in files for number in file.read_text().split()]


def all_end(numbers: list[int]) -> bool:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{n}").exists() for n in numbers):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
def test_a_run_with_workers_stops_resumes_and_ends_exactly(tmp_path: Path) -> None:
    settings = changed(write_corpus(tmp_path), data={"workers": 2})
    recipe = write_recipe(tmp_path / "recipe.py", settings)
    process = start(recipe, tmp_path / "whole")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "Warning" not in said and "Exception" not in said

    process = start(recipe, tmp_path / "cut")
    wait_for(process, has_done(tmp_path / "cut", 6))
    workers = children(process)
    assert len(workers) >= 2
    for number in workers:  # a cluster signals all processes of a job, Ctrl-C those of a terminal
        os.kill(number, signal.SIGTERM)
        os.kill(number, signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert all_end(workers)

    process = start(recipe, tmp_path / "cut")
    wait_for(process, has_done(tmp_path / "cut", 15))
    workers = children(process)
    process.kill()
    process.communicate()
    assert all_end(workers)

    finish(recipe, tmp_path / "cut")
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")
    found, expected = read_arrays(tmp_path / "cut", LAST), read_arrays(tmp_path / "whole", LAST)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], x) for name, x in expected.items())
