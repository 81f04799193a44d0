"""A folder that gets its name when everything in it is written."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from transformer.errors import CheckpointError


@contextlib.contextmanager
def new_folder(target: str | Path) -> Iterator[Path]:
    """Yields a folder to write to, which becomes `target` if no error is raised, and else is removed.

    Raises:
      CheckpointError: if `target` is there already.
    """
    target = Path(target)
    if target.exists():
        raise CheckpointError(f"{target}: is there already; choose another --to, or remove it")
    staging = target.with_name(target.name + ".writing")
    shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
    staging.mkdir(parents=True)
    try:
        yield staging
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
