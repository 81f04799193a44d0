"""Where a model was imported from: itself, or the one that its training began with."""

import json
import shutil
from typing import Any

from transformer.errors import CheckpointError
from transformer.io.workdir import Workdir

_FARTHEST = 20  # runs that began with one another


def read_origin(workdir: Workdir) -> tuple[Workdir, dict[str, Any]]:
    """Returns the folder that was imported, and what its `imported.json` says; {} if none was.

    Raises:
      CheckpointError: if that cannot be read.
    """
    found = workdir
    for _ in range(_FARTHEST):
        if found.imported.exists():
            try:
                return found, dict(json.loads(found.imported.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError) as error:
                message = f"{found.imported}: cannot be read: {error}; import the model anew"
                raise CheckpointError(message) from None
        base = found.load_origin()
        if base is None:
            break
        found = Workdir(base.model)
    return workdir, {}


def keep_origin(source: Workdir, target: Workdir) -> None:
    """Lets a model that was made of another be given back as that one: copies what was imported with it."""
    imported, origin = read_origin(source)
    for file in (imported.imported, imported.imported_tokenizer) if origin else ():
        if file.exists():
            shutil.copyfile(file, target.root / file.name)
