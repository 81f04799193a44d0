"""Two runs in one folder: the second is refused, and a dead one holds nothing."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from transformer.errors import CheckpointError
from transformer.io.lock import locked

HOLDER = """
import os, pathlib, sys, time
from transformer.io.lock import locked
with locked(pathlib.Path(sys.argv[1]), print):
    if "worker" in sys.argv and os.fork() == 0:
        time.sleep(60)
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(folder, *options):
    """Another process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        process.stdin.close()
        process.stdout.close()


def refuse_notes(line):
    raise AssertionError(line)


def test_a_second_run_is_refused_in_one_line_and_lets_the_first_one_be(tmp_path):
    with holder(tmp_path / "run") as process:
        for _ in range(2):
            with pytest.raises(CheckpointError) as caught, locked(tmp_path / "run", refuse_notes):
                pass
            message = str(caught.value)
            assert message.startswith(
                f"{tmp_path / 'run'}: process {process.pid} on {socket.gethostname()} (since 20"
            )
            assert message.endswith("trains here; wait until it ends, stop it, or choose another --workdir")
            assert "\n" not in message and caught.value.exit_code == 4
        process.stdin.close()
        assert process.wait(30) == 0
        with locked(tmp_path / "run", refuse_notes):
            pass
        assert (tmp_path / "run" / "run.lock").read_text() == ""


def test_a_killed_run_holds_nothing_even_if_its_data_worker_lives_on(tmp_path):
    with holder(tmp_path, "worker") as process:
        process.kill()
        process.wait(30)
        with locked(tmp_path, refuse_notes):
            assert f"process {os.getpid()} on " in (tmp_path / "run.lock").read_text()


def test_what_a_dead_run_wrote_does_not_matter(tmp_path):
    (tmp_path / "run.lock").write_text("process 1 on elsewhere (since yesterday)\n" * 3)
    with locked(tmp_path, refuse_notes):
        assert (tmp_path / "run.lock").read_text().count("\n") == 1


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CheckpointError, match=r"cannot be written: Not a directory; choose another"),
        locked(tmp_path / "file" / "run", refuse_notes),
    ):
        pass


def test_without_locks_the_user_is_told_and_trains(tmp_path, monkeypatch):
    def no_locks(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    said = []
    with locked(tmp_path, said.append):
        pass
    assert said == [
        f"warning: {tmp_path}: no locks here (Operation not supported): start no second run in this folder"
    ]
