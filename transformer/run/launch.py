"""`transformer launch`: several processes of one run on this machine, started again after a fault."""

import argparse
import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from transformer.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    Interrupted,
    PeerLost,
    Preempted,
)
from transformer.io.standard_error import say

# What starting again cannot mend, the most telling first.
_LASTING = [kind.exit_code for kind in (ConfigError, DataError, CheckpointError, DivergedError)]
_STOPPED = [kind.exit_code for kind in (Interrupted, Preempted)]
_GRACE = 5.0  # seconds that processes get to end by themselves, and then again after SIGTERM
_TICK = 0.05

Command = Callable[[int, int], list[str]]  # (port, process) -> words of a command line


def add_launch(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the verb `launch`; `args.run(args)` returns the exit code."""
    p = verbs.add_parser(
        "launch",
        help="several processes on this machine",
        description="Starts N processes of one training run on this machine, passes signals on to them, "
        "and starts all again when one dies.",
        usage="transformer launch --processes N [--max_restarts R] [--heartbeat S] -- train ...",
    )
    p.add_argument("--processes", type=int, required=True, metavar="N", help="number of processes")
    p.add_argument(
        "--max_restarts", type=int, default=0, metavar="R", help="start again after a fault, R times at most"
    )
    p.add_argument(
        "--heartbeat", type=float, metavar="S", help="seconds of silence after which a process counts as lost"
    )
    p.add_argument("command", nargs=argparse.REMAINDER, metavar="-- train ...", help="the train command")
    p.set_defaults(run=lambda args: launch(args.processes, args.max_restarts, args.heartbeat, args.command))


def launch(processes: int, max_restarts: int, heartbeat: float | None, words: Sequence[str]) -> int:
    """Runs a train command in several processes of this machine; returns the exit code.

    Args:
      processes: number of processes.
      max_restarts: how often all are started again after a fault.
      heartbeat: passed on to them; None: their default.
      words: ``[--] [transformer] train ...``.

    Raises:
      ConfigError: numbers or a command that cannot be used.
    """
    words = list(words)
    for lead in ("--", "transformer"):
        if words[:1] == [lead]:
            del words[0]
    if words[:1] != ["train"]:
        got = " ".join(words) or "nothing"
        raise ConfigError(
            f"launch: after -- comes a train command, not {got!r}; for example -- train --config F"
        )
    if processes < 1 or max_restarts < 0:
        raise ConfigError(
            f"launch: --processes {processes} --max_restarts {max_restarts}: must be at least 1 and 0"
        )
    given = [] if heartbeat is None else ["--heartbeat", f"{heartbeat:g}"]

    def command(port: int, index: int) -> list[str]:
        place = ["--coordinator", f"localhost:{port}", "--num_processes", str(processes)]
        return [
            *(sys.executable, "-m", "transformer", *words, *given, *place),
            *("--process_id", str(index)),
        ]

    return supervise(command, processes, max_restarts)


def supervise(command: Command, processes: int, max_restarts: int) -> int:
    """Runs a command in several processes until they are done, fail for good or are stopped.

    SIGTERM and SIGINT are passed on; SIGHUP, of a terminal that closed, as SIGTERM.

    Args:
      command: gives the command line for a port and a process.
      processes: number of processes.
      max_restarts: how often all are started again after a fault.

    Returns:
      The exit code that tells most: a user's error, else the code of what died of itself, else that
      of those that lost it; 128 + n for a process killed by signal n.
    """
    with _caught_signals() as arrived:
        left = max_restarts
        while True:
            port = _free_port()
            codes = _run([command(port, i) for i in range(processes)], arrived)
            index, code = _most_telling(codes)
            if code in (0, *_LASTING, *_STOPPED) or arrived.ever:
                return code if code >= 0 else 128 - code
            fault = f"launch: process {index} of {processes} {_describe(code)}"
            if not left:
                say(f"{fault}; no restarts left")
                return code if code >= 0 else 128 - code
            left -= 1
            say(f"{fault}; starting all again, {left} restarts left")


class _Arrived:
    """Signals that came and are not passed on yet, and whether any ever came."""

    def __init__(self) -> None:
        self.waiting: list[signal.Signals] = []
        self.ever = False

    def note(self, number: int, frame: types.FrameType | None) -> None:
        """The handler."""
        self.waiting.append(signal.SIGTERM if number == signal.SIGHUP else signal.Signals(number))
        self.ever = True


@contextlib.contextmanager
def _caught_signals() -> Iterator[_Arrived]:
    arrived, before = _Arrived(), {}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            before[number] = signal.signal(number, arrived.note)
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(commands: list[list[str]], arrived: _Arrived) -> dict[int, int]:
    """Runs each command in a process; returns the codes of those that ended by themselves.

    The first fault or error ends all: the others mostly notice and leave with a message of their own,
    and are helped to otherwise.
    """
    children: list[subprocess.Popen[bytes]] = []
    codes: dict[int, int] = {}
    readers = []
    try:
        for i, words in enumerate(commands):
            # A session of its own: Ctrl-C in a terminal would otherwise come twice, and the second one kills.
            stderr = subprocess.PIPE if len(commands) > 1 else None
            children.append(subprocess.Popen(words, stderr=stderr, start_new_session=True))
            if pipe := children[-1].stderr:
                readers.append(threading.Thread(target=_prefix, args=(pipe, i), daemon=True))
                readers[-1].start()
        _wait(children, codes, arrived)
    finally:
        for child in children:
            child.kill()
            child.wait()
        for reader in readers:
            reader.join(timeout=1.0)
    return codes


def _wait(children: list[subprocess.Popen[bytes]], codes: dict[int, int], arrived: _Arrived) -> None:
    failed_at = None
    while True:
        running = [child for i, child in enumerate(children) if i not in codes]
        for number in arrived.waiting[:]:
            arrived.waiting.remove(number)
            for child in running:
                child.send_signal(number)
        for i, child in enumerate(children):
            if i not in codes and (code := child.poll()) is not None:
                codes[i] = code
        if len(codes) == len(children):
            return
        if failed_at is None and any(code not in (0, *_STOPPED) for code in codes.values()):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > _GRACE:
            break
        time.sleep(_TICK)
    for child in running:
        child.terminate()
    deadline = time.monotonic() + _GRACE
    while time.monotonic() < deadline and any(child.poll() is None for child in running):
        time.sleep(_TICK)


def _most_telling(codes: dict[int, int]) -> tuple[int, int]:
    """Returns process and code that say why a run ended."""

    def rank(item: tuple[int, int]) -> int:
        """Lasting errors, then deaths, then losses of others, then stops, then success."""
        code = item[1]
        order = [*_LASTING, None, PeerLost.exit_code, *_STOPPED, 0]
        return order.index(code if code in order else None)

    return min(codes.items(), key=rank)


def _describe(code: int) -> str:
    if code == PeerLost.exit_code:
        return "lost another one"
    if code > 0:
        return f"ended with code {code}"
    return f"was killed by {next((s.name for s in signal.Signals if s == -code), f'signal {-code}')}"


def _prefix(pipe: IO[bytes], index: int) -> None:
    with pipe:
        for line in pipe:
            sys.stderr.write(f"[{index}] {line.decode(errors='replace').rstrip()}\n")
            sys.stderr.flush()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
