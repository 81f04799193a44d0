"""One run at a time in a folder.

A POSIX record lock (`lockf`) on the file `run.lock`: the system gives it back when its process ends in
whatever way, so there is no stale lock to tell from a live one, and NFS 4 keeps it across hosts. `flock`
would do that too, but data workers inherit it, and one that outlives a killed run would keep the folder.
What is written in the file is only for the message.
"""

import contextlib
import datetime
import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from transformer.errors import CheckpointError

_NAME = "run.lock"


@contextlib.contextmanager
def locked(root: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Keeps every other process from training in `root`; one process of a run holds it.

    Args:
      root: the folder; made if missing.
      note: takes a line for the user, if this file system has no locks.

    Raises:
      CheckpointError: if another run holds it, or `root` cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        file = (root / _NAME).open("a+", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{root}: cannot be written: {error.strerror}; choose another --workdir"
        ) from None
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                file.seek(0)
                owner = file.read().strip() or "another process"
                raise CheckpointError(
                    f"{root}: {owner} trains here; wait until it ends, stop it, or choose another --workdir"
                ) from None
            note(f"warning: {root}: no locks here ({error.strerror}): start no second run in this folder")
        file.truncate(0)
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()} (since {since})\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
