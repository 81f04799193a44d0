"""What a verb reads: lines of text, or samples of frames in a file of NumPy."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer.data.frames import FrameFile, lengths_beside
from transformer.errors import ConfigError
from transformer.inference.model_directory import LoadedModel
from transformer.io.text import stream_blocks


def read_sources(path: str, loaded: LoadedModel) -> list[Any]:
    """Returns all that the file has of what the model reads."""
    return [source for block in source_blocks(path, 4096, loaded) for source in block]


def source_blocks(path: str | None, size: int, loaded: LoadedModel) -> Iterator[list[Any]]:
    """Yields lists of at most `size` lines, or `Frames`, as soon as there is something to yield.

    Args:
      path: a file; None reads standard input.
      size: most of them in a list.
      loaded: the model, which says what it reads.

    Raises:
      ConfigError: if frames would be standard input.
      DataError: if the file cannot be read.
    """
    if not loaded.config.model.source_features:
        yield from stream_blocks(path, size)
        return
    if path is None:
        raise ConfigError("--input: is needed: the model reads frames, which lie in a file of NumPy (.npy)")
    samples = FrameFile(Path(path))
    for first in range(0, len(samples), size):
        yield [samples[i] for i in range(first, min(first + size, len(samples)))]


def digest_beside(path: str | None, loaded: LoadedModel) -> dict[str, str]:
    """Returns {"lengths": SHA-256} of what is read beside the file; nothing if there is none."""
    if path is None or not loaded.config.model.source_features or not lengths_beside(Path(path)).exists():
        return {}
    return {"lengths": hashlib.sha256(lengths_beside(Path(path)).read_bytes()).hexdigest()}
