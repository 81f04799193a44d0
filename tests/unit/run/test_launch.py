"""`transformer launch` with small children of every fate."""

import argparse
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from transformer.errors import ConfigError
from transformer.run import launch as launch_module
from transformer.run.launch import add_launch, launch, supervise

Scripts = Callable[[int, int], str]


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch_module, "_GRACE", 0.5)


def run(*scripts: str, max_restarts: int = 0) -> int:
    """Supervises one shell per script."""
    return supervise(lambda port, index: ["sh", "-c", scripts[index]], len(scripts), max_restarts)


@pytest.mark.parametrize(
    ("scripts", "code"),
    [
        (["exit 0", "exit 0"], 0),
        (["exit 75", "exit 75"], 75),
        (["exit 130", "exit 130"], 130),
        (["exit 75", "sleep 0.2; exit 0"], 75),
        (["exit 6", "exit 3"], 3),  # the user's error tells more than its consequence
        (["exit 3", "sleep 0.2; exit 6"], 3),
        (["exit 6", "exit 1"], 1),
        (["exit 6", "kill -9 $$"], 137),
        (["kill -9 $$"], 137),
        (["exit 5"], 5),
    ],
)
def test_exit_code_is_the_most_telling(scripts: list[str], code: int):
    assert run(*scripts) == code


def test_who_is_left_after_a_fault_is_ended_even_if_stopped(capfd: pytest.CaptureFixture[str]):
    start = time.monotonic()
    assert run("exit 6", "kill -STOP $$", "trap '' TERM; while :; do sleep 0.1; done") == 6
    assert time.monotonic() - start < 5
    assert "process 0 of 3 lost another one; no restarts left" in capfd.readouterr().err


def test_fault_starts_all_again_until_they_come_through(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Each child notes its start; process 1 dies in the first two."""
    script = f"echo $0 >>{tmp_path}/starts; "
    dies = script + f'[ "$(grep -c one {tmp_path}/starts)" -gt 2 ] || kill -9 $$'

    def command(port: int, index: int) -> list[str]:
        return ["sh", "-c", dies if index else script + "exit 0", "one" if index else "zero"]

    assert supervise(command, 2, 3) == 0
    assert sorted((tmp_path / "starts").read_text().split()) == ["one"] * 3 + ["zero"] * 3
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        f"launch: process 1 of 2 was killed by SIGKILL; starting all again, {left} restarts left"
        for left in (2, 1)
    ]


@pytest.mark.parametrize("code", [2, 3, 4, 5, 75, 130])
def test_what_starting_again_cannot_mend_is_not_started_again(code: int, tmp_path: Path):
    assert run(f"echo >>{tmp_path}/starts; exit {code}", max_restarts=3) == code
    assert (tmp_path / "starts").read_text() == "\n"


def test_every_start_has_a_port_of_its_own():
    ports = []

    def command(port: int, index: int) -> list[str]:
        ports.append(port)
        return ["sh", "-c", "exit 6"]

    supervise(command, 2, 2)
    assert len(ports) == 6
    assert ports[::2] == ports[1::2]
    assert len(set(ports)) == 3


def test_lines_say_whose_they_are(capfd: pytest.CaptureFixture[str]):
    run("printf 'a\\nb' >&2", "echo out; echo c >&2")
    out, err = capfd.readouterr()
    assert out == "out\n"
    assert sorted(err.splitlines()) == ["[0] a", "[0] b", "[1] c"]


def test_lines_of_a_single_process_stay_as_they_are(capfd: pytest.CaptureFixture[str]):
    run("echo c >&2")
    assert capfd.readouterr().err == "c\n"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 75)]
)
def test_signals_are_passed_on_once_and_nothing_starts_again(number: int, code: int, tmp_path: Path):
    """Each child notes every signal that comes in half a second after the first."""
    child = f"""
        import os, signal, sys, time
        got = []
        for n in (signal.SIGTERM, signal.SIGINT):
            signal.signal(n, lambda n, frame: got.append(n))
        os.write(1, b"ready\\n")  # in one piece: both write to the same pipe
        while not got:
            time.sleep(0.02)
        time.sleep(0.5)
        open(f"{tmp_path}/{{os.getpid()}}", "w").write(f"{{len(got)}}")
        sys.exit(75 if got[0] == signal.SIGTERM else 130)
    """
    program = f"""
        import signal, sys
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it may be ignored where the tests run
        from transformer.run.launch import supervise
        sys.exit(supervise(lambda port, i: [sys.executable, "-c", {textwrap.dedent(child)!r}], 2, 5))
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, start_new_session=True
    )
    with parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline() for _ in range(2)] == [b"ready\n"] * 2
        if number == signal.SIGINT:  # as a terminal does: to the whole group
            os.killpg(parent.pid, number)
        else:
            parent.send_signal(number)
        try:
            assert parent.wait(timeout=60) == code
        finally:
            parent.kill()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["1", "1"]


@pytest.mark.parametrize("before", [["--"], ["--", "transformer"], []])
def test_command_line_of_each_process(before: list[str], monkeypatch: pytest.MonkeyPatch):
    seen: list[list[str]] = []
    monkeypatch.setattr(
        launch_module, "supervise", lambda command, n, r: seen.extend(command(7, i) for i in range(n)) or r
    )
    parser = argparse.ArgumentParser()
    add_launch(parser.add_subparsers(dest="verb"))
    words = [
        *("launch", "--processes", "2", "--max_restarts", "4", "--heartbeat", "5", *before),
        *("train", "--config", "c.py", "--config.run.num_steps=3"),
    ]
    args, rest = parser.parse_known_args(words)
    assert rest == []
    assert args.run(args) == 4
    ours = ["--heartbeat", "5", "--coordinator", "localhost:7", "--num_processes", "2", "--process_id"]
    theirs = ["-m", "transformer", "train", "--config", "c.py", "--config.run.num_steps=3"]
    assert seen == [[sys.executable, *theirs, *ours, str(i)] for i in range(2)]


@pytest.mark.parametrize(
    ("processes", "restarts", "words"),
    [(2, 0, []), (2, 0, ["--", "translate"]), (0, 0, ["train"]), (2, -1, ["train"])],
)
def test_what_cannot_be_launched_is_refused_in_one_line(processes: int, restarts: int, words: list[str]):
    with pytest.raises(ConfigError) as error:
        launch(processes, restarts, None, words)
    assert "\n" not in str(error.value)
