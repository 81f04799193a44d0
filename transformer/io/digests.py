"""Digests of the files of a checkpoint: Orbax restores a flipped bit without a word.

The manifest `xxh3_128.json` is written last, before a checkpoint gets its name, so every checkpoint has one.
It covers itself too: `self` is the digest of its list of files. It guards against damage, not against
malice: who can change a checkpoint can change its manifest, so the hash need only be good and fast (on the
machine of docs/reliability.md it takes an eighth of the time of SHA-256, which earlier versions used).
"""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from transformer.io.workdir import write_text

# The hash of each kind of manifest, today's first.
_HASHES: dict[str, Callable[..., Any]] = {"xxh3_128.json": xxhash.xxh3_128, "sha256.json": hashlib.sha256}
_THREADS = min(8, os.cpu_count() or 1)  # hashes let go of the interpreter
_CHUNK = 1 << 20  # bytes; large enough that the interpreter is seldom asked for


def write_digests(folder: Path) -> None:
    """Forces every file under `folder` to the disk, and then records the digest of each.

    They are computed while the disk works.
    """
    manifest = _manifest(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != manifest)
    names = [path.relative_to(folder).as_posix() for path in files]
    with ThreadPoolExecutor(_THREADS) as disk, ThreadPoolExecutor(_THREADS) as processor:
        synced = disk.map(_sync, files)
        digests = dict(zip(names, processor.map(lambda path: _digest(path, manifest), files), strict=True))
        list(synced)
    _write(manifest, digests)


def add_digest(folder: Path, name: str) -> None:
    """Records one more file, or one that was written anew.

    Raises:
      ValueError: if the manifest is damaged.
    """
    manifest = _manifest(folder)
    _write(manifest, _read(manifest) | {name: _digest(folder / name, manifest)})


def digest_arrays(arrays: Mapping[str, Any]) -> str:
    """Returns a digest of arrays by path, whatever files they lie in; hexadecimal."""
    digest = xxhash.xxh3_128()
    for path, x in sorted(arrays.items()):
        digest.update(f"{path} {x.dtype}{list(x.shape)} ".encode())
        digest.update(np.ascontiguousarray(x).view(np.uint8).data)
    return digest.hexdigest()


def find_damage(folder: Path, parts: Collection[str] | None = None) -> str | None:
    """Compares files with what was recorded.

    Args:
      folder: a complete checkpoint.
      parts: sub-folders to look at; None: everything. Files beside them always count.

    Returns:
      The first damaged file and what is wrong with it; None if all are sound.
    """
    manifest = _manifest(folder)
    try:
        recorded = _read(manifest)
    except ValueError as error:
        return str(error)
    names = [n for n in recorded if parts is None or "/" not in n or n.split("/")[0] in parts]
    with ThreadPoolExecutor(_THREADS) as pool:
        damages = pool.map(lambda name: _damage(manifest, name, recorded[name]), names)
        return next(filter(None, damages), None)


def _manifest(folder: Path) -> Path:
    """Returns the file of the digests; its name says of which kind they are."""
    return next((folder / name for name in _HASHES if (folder / name).exists()), folder / next(iter(_HASHES)))


def _damage(manifest: Path, name: str, expected: str) -> str | None:
    try:
        if _digest(manifest.parent / name, manifest) == expected:
            return None
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
    return f"{name} is damaged: it has another {manifest.stem} than when it was saved"


def _read(manifest: Path) -> dict[str, str]:
    """Returns digests by file; raises ValueError with what is wrong."""
    try:
        text = manifest.read_text(encoding="utf-8")
        found = json.loads(text)
        if "files" not in found:  # as it was written before it covered itself
            files = {str(name): str(digest) for name, digest in found.items()}
            sound = all(len(digest) == 64 for digest in files.values())
        else:
            files = found["files"]
            sound = text == _render(manifest, files)
    except FileNotFoundError:
        raise ValueError(f"{manifest.name} is missing") from None
    except OSError as error:
        raise ValueError(f"{manifest.name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise ValueError(f"{manifest.name} is damaged")
    return files


def _write(manifest: Path, files: dict[str, str]) -> None:
    write_text(manifest, _render(manifest, files))


def _render(manifest: Path, files: dict[str, str]) -> str:
    listed = json.dumps(files, sort_keys=True)
    covered = {"self": _HASHES[manifest.name](listed.encode()).hexdigest(), "files": files}
    return json.dumps(covered, indent=2, sort_keys=True) + "\n"


def _digest(path: Path, manifest: Path) -> str:
    digest, buffer = _HASHES[manifest.name](), memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
