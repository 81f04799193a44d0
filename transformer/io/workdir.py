"""The folder of a run: which file is where, and whether it belongs to a configuration.

config.json       the resolved configuration
seal.json         tokenizer and model that the parameters belong to
model.safetensors parameters of an exported model, which has no checkpoints
imported.json     of an imported model: where it came from
imported_tokenizer.json   and its tokenizer.json, if it had one: to be given back
init.json         of a run that began with another model's parameters: which, and their digest
corpus.json       size and digest of every data file
tokenizer/        SentencePiece models and their digests; names of labels
checkpoints/N/    state after step N
run.lock          held by the process that trains here
data/             encoded pairs; digests of data files, where their lines are (can be made again)
metrics.jsonl, tensorboard/, *.png
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from transformer.config import Config
from transformer.config_mapping import flat, from_config_dict, to_dict
from transformer.continuation import FREE
from transformer.errors import CheckpointError, UserError


class Origin(NamedTuple):
    """Whose parameters a run began with.

    Attributes:
      model: folder of the base.
      step: of its checkpoint.
      digest: of its parameters, as `digests.digest_arrays` computes it.
      settings: the sections of its configuration that this run's started from.
    """

    model: str
    step: int
    digest: str
    settings: dict[str, Any]


class Workdir:
    """Paths of a run, and its configuration on disk."""

    def __init__(self, root: Path | str):
        self.root = Path(root)
        self.config_file = self.root / "config.json"
        self.imported = self.root / "imported.json"
        self.imported_tokenizer = self.root / "imported_tokenizer.json"
        self.init_file = self.root / "init.json"
        self.corpus_file = self.root / "corpus.json"
        self.seal_file = self.root / "seal.json"
        self.tokenizer = self.root / "tokenizer"
        self.weights = self.root / "model.safetensors"
        self.checkpoints = self.root / "checkpoints"
        self.data = self.root / "data"

    def load_config(self) -> Config:
        """Returns the configuration that the run was started with.

        Raises:
          CheckpointError: if there is none or it cannot be read.
        """
        try:
            return from_config_dict(json.loads(self.config_file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise CheckpointError(
                f"{self.root}: not a run: it has no config.json; give the --workdir of a training run"
            ) from None
        except (OSError, ValueError, RecursionError, UserError) as error:
            raise CheckpointError(f"{self.config_file}: cannot be read: {error}") from None

    def load_origin(self) -> Origin | None:
        """Returns whose parameters the run began with; None if they were random.

        Raises:
          CheckpointError: if the record cannot be read.
        """
        try:
            return Origin(**json.loads(self.init_file.read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, RecursionError, TypeError) as error:
            raise CheckpointError(f"{self.init_file}: cannot be read: {error}") from None

    def save_config(self, config: Config) -> None:
        """Writes the resolved configuration."""
        write_json(self.config_file, to_dict(config))

    def seal(self, config: Config, tokenizer_digest: str) -> None:
        """Records which tokenizer and model the parameters here belong to.

        Args:
          config: of the model.
          tokenizer_digest: SHA-256, hexadecimal.

        Raises:
          CheckpointError: if they belong to others already.
        """
        self.check_seal(config, tokenizer_digest)
        if not self.seal_file.exists():
            write_json(self.seal_file, {"tokenizer": tokenizer_digest, "model": _shape(config)})

    def check_seal(self, config: Config, tokenizer_digest: str) -> None:
        """Refuses a tokenizer or a configuration that the parameters were not trained with.

        Folders that were written before there were seals have none, and pass.

        Raises:
          CheckpointError: naming what is another.
        """
        if not self.seal_file.exists():
            return
        try:
            found = json.loads(self.seal_file.read_text(encoding="utf-8"))
            digest, model = str(found["tokenizer"]), dict(found["model"])
        except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.seal_file}: cannot be read: {error}; restore it from a copy of the model"
            ) from None
        if digest != tokenizer_digest:
            raise CheckpointError(
                f"{self.tokenizer}: is not the tokenizer that this model was trained with (sha256 is "
                f"{tokenizer_digest[:12]}..., {self.seal_file.name} says {digest[:12]}...); put that one back"
            )
        now = _shape(config)
        others = [
            f"config.model.{k} is {now[k]!r}, was {v!r}" for k, v in model.items() if now.get(k, v) != v
        ]
        if others:
            raise CheckpointError(
                f"{self.config_file}: is not the configuration that this model was trained with: "
                f"{', '.join(others)}; put the old values back"
            )

    @contextlib.contextmanager
    def data_cache(self) -> Iterator[Path]:
        """Gives the folder of what is known of the data; a temporary one where that cannot be written."""
        with tempfile.TemporaryDirectory() as scratch:
            folder = self.data if self.data.is_dir() else self.root
            yield self.data if os.access(folder, os.W_OK) else Path(scratch)

    def check_config(self, config: Config) -> list[str]:
        """Compares with the configuration that the run was started with.

        Returns:
          One line for each key that changed and may change; empty for a new run.

        Raises:
          CheckpointError: naming every key that changed and may not.
        """
        if not self.config_file.exists():
            return []
        old, new = flat(self.load_config()), flat(config)
        changed = [k for k in new if old[k] != new[k]]
        refused = [k for k in changed if k not in FREE]
        if refused:
            listed = ", ".join(f"{k} (was {old[k]!r}, now {new[k]!r})" for k in refused)
            raise CheckpointError(
                f"{self.root}: holds a run of another configuration: {listed}; "
                "give the old values, or another --workdir"
            )
        return [f"{k}: {old[k]!r} -> {new[k]!r}" for k in changed]


def _shape(config: Config) -> dict[str, Any]:
    """Returns the keys of the model that its parameters depend on."""
    shape = {key.removeprefix("model."): v for key, v in flat(config).items() if key not in FREE}
    return {key: v for key, v in shape.items() if "." not in key}


def write_json(path: Path, value: Any) -> None:
    """Writes JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path`, whole or not at all, also when the machine loses its power.

    What `path` is a link to is written, and a stream is written to as it is.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8", newline="\n")
        return
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_content(path, text.encode())


def replace_content(path: Path, content: bytes) -> None:
    """Puts a file of this content in a file's place when it lies whole on the disk.

    Raises:
      OSError: if it cannot be written; the file is what it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
