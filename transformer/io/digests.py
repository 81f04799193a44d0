"""Digests of the files of a checkpoint: Orbax restores a flipped bit without a word."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from transformer.io.workdir import write_json

_NAME = "sha256.json"


def write_digests(folder: Path) -> None:
    """Records the SHA-256 of every file under `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    write_json(folder / _NAME, {path.relative_to(folder).as_posix(): _digest(path) for path in files})


def find_damage(folder: Path, parts: Iterable[str]) -> str | None:
    """Compares the files under the sub-folders `parts` with what was recorded.

    Returns:
      What is wrong with the first damaged file; None if nothing is, or nothing was recorded.
    """
    if not (folder / _NAME).exists():
        return None
    try:
        recorded: dict[str, str] = json.loads((folder / _NAME).read_text())
    except ValueError:
        return f"{_NAME} is damaged"
    for name, digest in recorded.items():
        if name.split("/")[0] in parts:
            if not (folder / name).exists():
                return f"{name} is missing"
            if _digest(folder / name) != digest:
                return f"{name} is damaged: it has another sha256 than when it was saved"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
