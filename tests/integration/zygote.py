"""Many training processes in little time: what they import is imported once, each is a fork of that.

As a program: reads lines of JSON (the arguments of `_train`), forks a training process for each, and
writes its id and, when it has ended, its exit code.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiny_run import ROOT, Settings, environment, make_config

from transformer.errors import UserError
from transformer.io.checkpoint import Checkpoints
from transformer.run.train import train


class Zygote:
    """The program, from outside: one training process at a time."""

    def __init__(self, process: subprocess.Popen, settings: Settings):
        self._process, self._settings = process, settings

    def start(self, workdir: Path, pause: bool = False) -> int:
        """Makes a training process; returns its id.

        Args:
          workdir: its folder; what it says is in a file beside it.
          pause: wait until it stops before its first save, where SIGCONT lets it go on, or ends.
        """
        order = {"settings": self._settings, "workdir": str(workdir), "pause": pause}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        process = int(self._process.stdout.readline())
        while pause and _state(process) not in ("T", None):
            time.sleep(0.001)
        return process

    def result(self) -> int:
        """Waits until it has ended; returns its exit code, negative for a signal."""
        return int(self._process.stdout.readline())


@contextlib.contextmanager
def zygote(settings: Settings) -> Iterator[Zygote]:
    """Runs the program; what its runs compile is kept for the session."""
    variables = environment() | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(
        [sys.executable, __file__], stdin=-1, stdout=-1, text=True, env=variables
    ) as process:
        try:
            yield Zygote(process, settings)
        finally:
            process.stdin.close()


def _state(process: int) -> str | None:
    """Returns the letter that the system has for what a process does; None if it has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return None


def _train(settings: Settings, workdir: str, pause: bool) -> int:
    os.dup2(os.open(f"{workdir}.said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    save = Checkpoints.save

    def paused(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        Checkpoints.save = save
        save(*args)

    if pause:
        Checkpoints.save = paused
    try:
        train(make_config(settings), workdir)
        return 0
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    except BaseException:
        traceback.print_exc()
        return 1


def _serve() -> None:
    warnings.simplefilter("ignore")  # of forks: nothing of JAX runs here yet
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(_train(**json.loads(line)))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
