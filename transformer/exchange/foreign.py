"""A folder that `save_pretrained` of Hugging Face's transformers wrote: settings of strangers."""

import gc
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformer.errors import CheckpointError, did_you_mean

# Bytes of a file, and values of all JSON in it, by its commas, colons and brackets. A tokenizer.json of
# 256,000 pieces with 513,000 merges has up to 32 million bytes, and 2.05 million values.
_LARGEST = {"tokenizer.json": (40_000_000, 3_000_000)}
_LARGEST_OTHER = (1 << 25, 2_000_000)
NOTHING = object()  # a default: the key is needed


class Foreign:
    """The folder's settings, and all reasons why our model cannot be that one.

    Attributes:
      folder: where it is.
      config: of the model, config.json.
      generation: of the search, generation_config.json, over what config.json says of it.
      tokenizer: tokenizer_config.json.
      reasons: one clause each, in the order in which they were found.
      told: what the user should know, though it is no reason against the model.
    """

    def __init__(self, folder: Path, unwritten: Mapping[str, dict[str, Any]] | None = None):
        """Reads the settings.

        Args:
          folder: with the files.
          unwritten: JSON files by name of a folder that is not there yet; None: they are read.

        Raises:
          CheckpointError: if there are none, or they cannot be read.
        """
        self.folder = folder
        self._unwritten = unwritten
        self._read: dict[str, dict[str, Any]] = {}
        self.reasons: list[str] = []
        self.told: list[str] = []
        if not self.has("config.json"):
            raise CheckpointError(
                f"{folder}: has no config.json; give a folder that save_pretrained wrote, or read Marian's "
                "own files with `transformer import marian`"
            )
        self.config = self.json("config.json")
        self.generation = {**self.config, **self.optional_json("generation_config.json")}
        self.tokenizer = self.optional_json("tokenizer_config.json")

    @property
    def tokenizer_class(self) -> str:
        """Name of the tokenizer's class in transformers; empty if no file says it."""
        return str(self.tokenizer.get("tokenizer_class") or self.config.get("tokenizer_class") or "")

    def has(self, name: str) -> bool:
        """Returns whether the folder has a file of that name."""
        return (self.folder / name).is_file() if self._unwritten is None else name in self._unwritten

    def path(self, name: str) -> Path:
        """Returns where a file is.

        Raises:
          CheckpointError: if it is a link to something outside, other than the Hub's cache makes them.
        """
        path, inside = self.folder / name, [self.folder.resolve()]
        if self.folder.parent.name == "snapshots":
            inside.append(self.folder.parent.parent.resolve() / "blobs")
        if path.resolve().parent not in inside:
            raise CheckpointError(f"{path}: is a link out of the folder; put the file itself there")
        return path

    def json(self, name: str) -> dict[str, Any]:
        """Returns the object in a JSON file, which is read once.

        Raises:
          CheckpointError: if there is none, or it is too large, too deep or something else.
        """
        if self._unwritten is not None:
            return self._unwritten[name]
        if name in self._read:
            return self._read[name]
        path, (most_bytes, most_values) = self.path(name), _LARGEST.get(name, _LARGEST_OTHER)
        try:
            if path.stat().st_size > most_bytes:
                raise CheckpointError(f"{path}: has more than {most_bytes:,} bytes; is it the right file?")
            content = path.read_bytes()
            if sum(map(content.count, (b",", b":", b"[", b"{"))) > most_values:
                raise CheckpointError(f"{path}: has too many values; is it the right file?")
            found = _parsed(content)
        except (OSError, ValueError, RecursionError) as error:
            message = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{path}: cannot be read as JSON: {message}; get it anew") from None
        if not isinstance(found, dict):
            raise CheckpointError(f"{path}: expected a JSON object, got {type(found).__name__}; get it anew")
        self._read[name] = found
        return found

    def optional_json(self, name: str) -> dict[str, Any]:
        """Returns the same, or {} if there is no such file."""
        return self.json(name) if self.has(name) else {}

    def refuse(self, reason: str) -> None:
        """Adds a reason."""
        if reason not in self.reasons:
            self.reasons.append(reason)

    def tell(self, line: str) -> None:
        """Adds a line for the user, once."""
        if line not in self.told:
            self.told.append(line)

    def number(
        self, *keys: str, default: Any = NOTHING, kind: type[int] | type[float] = int, most: int = 1 << 24
    ) -> Any:
        """Returns the number that all of the model's `keys` have; refuses if it is none, or they differ."""
        found = {key: self.config.get(key, default) for key in keys}
        value = found[keys[0]]
        if any(other != value for other in found.values()):
            told = ", ".join(f"{key} {shown(other)}" for key, other in found.items())
            self.refuse(f"{told}: must be equal")
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            told = "nothing" if value is NOTHING else shown(value)
            self.refuse(f"{keys[0]}: expected a number up to {most}, got {told}")
            return kind(1)
        return kind(value)

    def fact(self, key: str, default: bool) -> bool:
        """Returns a setting of the model that is true or false."""
        value = self.config.get(key, default)
        if not isinstance(value, bool):
            self.refuse(f"{key}: expected true or false, got {shown(value)}")
        return bool(value)

    def choice(self, key: str, known: Mapping[str, str], default: str) -> str:
        """Returns our name of a choice."""
        value = self.config.get(key, default)
        if not isinstance(value, str) or value not in known:
            self.refuse(f"{key}: {shown(value)} is not known{did_you_mean(shown(value), known)}")
            return next(iter(known.values()))
        return known[value]

    def id(self, key: str, default: int | None = None) -> int:
        """Returns a token id of the search or the model."""
        value = self.generation.get(key, default)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.refuse(f"{key}: expected one token id, got {shown(value)}")
            return 0
        return value

    def check(self, kind: str = "cannot be represented") -> None:
        """Raises CheckpointError with all reasons, if there are any."""
        if self.reasons:
            raise CheckpointError(f"{self.folder}: {kind}: {'; '.join(self.reasons)}")


def shown(value: Any) -> str:
    """Returns a value of a stranger as a message tells it: short, whatever it is."""
    if isinstance(value, str):
        return repr(value[:40])
    plain = value is None or isinstance(value, bool | int | float)
    return repr(value)[:40] if plain else type(value).__name__


def words(names: Iterable[str], most: int = 3) -> str:
    """Returns the first names, and how many more there are."""
    listed = sorted(names)
    rest = len(listed) - most
    return ", ".join(name[:100] for name in listed[:most]) + (f" and {rest} more" if rest > 0 else "")


def _parsed(content: bytes) -> Any:
    """Returns the value of JSON; it holds no cycles, and looking for some takes longer than reading it."""
    looks = gc.isenabled()
    gc.disable()
    try:
        return json.loads(content.decode("utf-8"))
    finally:
        if looks:
            gc.enable()
