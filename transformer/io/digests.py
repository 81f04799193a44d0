"""Digests of the files of a checkpoint: Orbax restores a flipped bit without a word.

The manifest `sha256.json` is written last, before a checkpoint gets its name, so every checkpoint has one.
It covers itself too: `self` is the digest of its list of files.
"""

import hashlib
import json
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from transformer.io.workdir import write_text

_NAME = "sha256.json"
_THREADS = min(8, os.cpu_count() or 1)  # hashlib lets go of the interpreter
_CHUNK = 1 << 20  # bytes; large enough that the interpreter is seldom asked for


def write_digests(folder: Path) -> None:
    """Forces every file under `folder` to the disk, and then records the SHA-256 of each.

    They are computed while the disk works.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / _NAME)
    names = [path.relative_to(folder).as_posix() for path in files]
    with ThreadPoolExecutor(_THREADS) as disk, ThreadPoolExecutor(_THREADS) as processor:
        synced = disk.map(_sync, files)
        digests = dict(zip(names, processor.map(_digest, files), strict=True))
        list(synced)
    _write(folder, digests)


def add_digest(folder: Path, name: str) -> None:
    """Records one more file, or one that was written anew.

    Raises:
      ValueError: if the manifest is damaged.
    """
    _write(folder, _read(folder) | {name: _digest(folder / name)})


def find_damage(folder: Path, parts: Collection[str] | None = None) -> str | None:
    """Compares files with what was recorded.

    Args:
      folder: a complete checkpoint.
      parts: sub-folders to look at; None: everything. Files beside them always count.

    Returns:
      The first damaged file and what is wrong with it; None if all are sound.
    """
    try:
        recorded = _read(folder)
    except ValueError as error:
        return str(error)
    names = [n for n in recorded if parts is None or "/" not in n or n.split("/")[0] in parts]
    with ThreadPoolExecutor(_THREADS) as pool:
        damages = pool.map(lambda name: _damage(folder / name, name, recorded[name]), names)
        return next(filter(None, damages), None)


def _damage(path: Path, name: str, expected: str) -> str | None:
    try:
        if _digest(path) == expected:
            return None
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return f"{name} is damaged: it has another sha256 than when it was saved"


def _read(folder: Path) -> dict[str, str]:
    """Returns digests by file; raises ValueError with what is wrong."""
    try:
        text = (folder / _NAME).read_text(encoding="utf-8")
        found = json.loads(text)
        if "files" not in found:  # as it was written before it covered itself
            files = {str(name): str(digest) for name, digest in found.items()}
            sound = all(len(digest) == 64 for digest in files.values())
        else:
            files = found["files"]
            sound = text == _render(files)
    except FileNotFoundError:
        raise ValueError(f"{_NAME} is missing") from None
    except OSError as error:
        raise ValueError(f"{_NAME} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise ValueError(f"{_NAME} is damaged")
    return files


def _write(folder: Path, files: dict[str, str]) -> None:
    write_text(folder / _NAME, _render(files))


def _render(files: dict[str, str]) -> str:
    listed = json.dumps(files, sort_keys=True)
    covered = {"self": hashlib.sha256(listed.encode()).hexdigest(), "files": files}
    return json.dumps(covered, indent=2, sort_keys=True) + "\n"


def _digest(path: Path) -> str:
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
