"""Two and four real processes of a small JAX program on this machine, with gloo."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

HERE = pathlib.Path(__file__).parent
PROGRAM = HERE / "one_of_several.py"
SLURM = HERE.parent / "cluster" / "one_node_slurm.sh"
HEARTBEAT = 4.0
HOST = socket.gethostname()


def environment(**changed: str) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(HERE.parents[1]), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path, **changed}


def start(what: str, count: int = 2, **changed: str) -> list[subprocess.Popen[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    return [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), what, address, str(count), str(i), f"{HEARTBEAT:g}"],
            env=environment(**changed),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Returns code, output and errors of each, without what gloo and the start say."""
    found = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=120)
            lines = [line for line in err.splitlines(keepends=True) if not line.startswith("process ")]
            out = "".join(x for x in out.splitlines(keepends=True) if not x.startswith("[Gloo]"))
            found.append((process.returncode, out, "".join(lines)))
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return found


def until_running(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "running\n":
            assert line, "ended before it ran"


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_agree_talk_compute_and_end_together(count: int):
    """Through a proxy that does not answer, which gRPC alone would try. Some end two seconds later."""
    processes = start("sums", count, http_proxy="http://127.0.0.1:9", no_proxy="")
    expected = f"total {sum(range(count + 1))}\n"
    errors = [process.communicate(timeout=120) for process in processes]
    for i, (out, err) in enumerate(errors):
        assert processes[i].returncode == 0
        assert "".join(x for x in out.splitlines(keepends=True) if x[0] != "[") == expected
        pid = processes[i].pid
        assert err == f"process {i} of {count} on {HOST} (pid {pid}): 1 of {count} devices (cpu)\n"


def test_difference_is_refused_on_all_processes():
    message = (
        f"transformer: error: process 1 of 2 on {HOST} differs in model.d_model: '513', but '512' in "
        f"process 0 on {HOST}; start all processes with the same command, code and data\n"
    )
    assert ends(start("differs")) == [(2, "", message)] * 2


@pytest.mark.parametrize(
    ("what", "victim", "number"),
    [
        ("computes", 1, signal.SIGSTOP),  # the collective hangs for ever
        ("waits", 0, signal.SIGKILL),  # JAX's own client would abort
        *(
            pytest.param(what, victim, number, marks=pytest.mark.slow)
            for what in ("computes", "waits")
            for victim in (0, 1)
            for number in (signal.SIGKILL, signal.SIGSTOP)
            if (what, victim, number) not in (("computes", 1, signal.SIGSTOP), ("waits", 0, signal.SIGKILL))
        ),
    ],
)
def test_the_other_leaves_in_time_and_names_the_lost_one(what: str, victim: int, number: int):
    processes = start(what)
    until_running(processes)
    processes[victim].send_signal(number)
    start_time = time.monotonic()
    processes[1 - victim].wait(timeout=60)
    took = time.monotonic() - start_time
    processes[victim].kill()
    code, _, err = ends(processes)[1 - victim]
    how = "is gone: its connection closed" if number == signal.SIGKILL else "has been silent for 4 s"
    assert err == (
        f"transformer: error: process {victim} of 2 on {HOST} {how}; run the same command again to continue "
        "from the last checkpoint\n"
    )
    assert code == 6
    assert took < HEARTBEAT + 5


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_three_leave_when_the_fourth_is_lost(victim: int, number: int):
    processes = start("computes", 4)
    until_running(processes)
    processes[victim].send_signal(number)
    for i in range(4):
        if i != victim:
            processes[i].wait(timeout=HEARTBEAT + 5)
    processes[victim].kill()
    for i, (code, _, err) in enumerate(ends(processes)):
        if i != victim:
            assert code == 6
            assert f"process {victim} of 4" in err
            assert err.count("\n") == 1


def test_users_error_in_process_0_ends_the_other_that_waits_for_it():
    message = "corpus.en: line 3 is not UTF-8; save it as UTF-8\n"
    assert ends(start("fails")) == [
        (3, "", f"transformer: error: {message}"),
        (3, "", f"transformer: error: process 0 of 2 on {HOST} stopped: {message}"),
    ]


@pytest.mark.slow
def test_bug_in_one_process_shows_its_traceback_and_ends_the_other():
    other, buggy = ends(start("crashes"))
    said = f"transformer: error: process 1 of 2 on {HOST} stopped: RuntimeError: a bug\n"
    assert other == (6, "", said)
    assert buggy[0] == 1
    assert buggy[2].endswith("RuntimeError: a bug\n")


def test_sigterm_reaches_our_handler_and_both_stop():
    processes = start("stops")
    until_running(processes)
    processes[1].send_signal(signal.SIGTERM)
    assert ends(processes) == [(75, "", "transformer: error: saved\n")] * 2


@pytest.mark.skipif(not shutil.which("mpirun"), reason="needs Open MPI's mpirun")
def test_under_mpirun():
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2"]
    done = subprocess.run(
        [*command, sys.executable, str(PROGRAM), "sums", "-", "0", "0"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("total 3") == 2  # mpirun may put both before the ends of their lines


def slurm_is_there() -> bool:
    programs = all(shutil.which(x, path=f"{os.environ['PATH']}:/usr/sbin") for x in ("slurmctld", "munged"))
    return programs and os.geteuid() == 0


@pytest.mark.slow
@pytest.mark.skipif(not slurm_is_there(), reason="needs slurm-wlm, munge and root")
def test_under_slurm():
    """`srun` makes two of it; the job's batch shell alone is one, and says so."""
    program = f"{sys.executable} {PROGRAM} sums - 0 0"
    script = f"salloc --quiet -n 2 sh -c 'srun {program} && {program}'"
    done = subprocess.run(
        [str(SLURM), "bash", "-c", script], env=environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("total 3") == 2  # mpirun may put both before the ends of their lines
    assert done.stdout.count("total 1\n") == 1
    assert done.stderr.count("start it with srun") == 1
