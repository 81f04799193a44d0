"""Sentence pairs of prepared TFDS datasets, read from array_record files without TensorFlow.

A prepared dataset describes itself (dataset_info.json, features.json), so it is opened from its
folder. Asking `tfds.builder` for it by name would fail for some: TFDS knows `wmt*_translate` only
after `import tensorflow_datasets.translate`. Nothing is ever downloaded.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from transformer.data.files import FileFact, PieceFile
from transformer.data.lines import UndecodableError
from transformer.data.pairs import Pair
from transformer.errors import ConfigError, DataError, did_you_mean

_BATCH = 1024  # records read together when all are read


class TfdsPairs:
    """Two languages of one split of a dataset."""

    def __init__(
        self,
        name: str,
        split: str,
        tfds_dir: str,
        cache_dir: Path,
        languages: tuple[str, str],
        *,
        skip_undecodable: bool,
    ):
        """Opens the split.

        Args:
          name: "dataset", "dataset/config" or "dataset/config:version"; without a version, the
            newest that is prepared.
          split: in the words of TFDS: "train", "train[:1000]", "train+validation".
          tfds_dir: folder of prepared datasets; empty: where TFDS puts them by itself.
          cache_dir: folder where the digests of the shards are remembered.
          languages: features of source and target.
          skip_undecodable: give None for a pair that is not UTF-8 instead of raising.

        Raises:
          ConfigError: if TFDS is not installed or `name` is empty.
          DataError: if the dataset is not prepared there, is not in array_record format, is damaged,
            or has no such split or language.
        """
        tfds = _import_tfds()
        root = Path(tfds_dir or tfds.core.constants.DATA_DIR).expanduser()
        info, self._records, self._shards = _open(tfds, name, root, split)
        self.name = f"{info.full_name} {split}"
        self._cache_dir = cache_dir
        self._languages = languages
        self._skip = skip_undecodable
        for language in languages:
            if language not in info.features:
                near = did_you_mean(language, info.features)
                raise DataError(f"{info.full_name}: no language {language!r}{near}")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Pair | None:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name}: record {index} of {len(self)}")
        return self._read(range(index, index + 1))[0]

    def __iter__(self) -> Iterator[Pair | None]:
        for first in range(0, len(self), _BATCH):
            yield from self._read(range(first, min(first + _BATCH, len(self))))

    def facts(self) -> tuple[FileFact, ...]:
        """Returns size and digest of each shard, named by dataset and version, not by folder."""
        dataset = self.name.rsplit(" ", 1)[0]
        shards = [PieceFile(path) for path in self._shards]
        return tuple(
            FileFact(f"{dataset}/{shard.path.name}", shard.size, shard.sha256(self._cache_dir))
            for shard in shards
        )

    def _read(self, indices: range) -> list[Pair | None]:
        try:
            records = self._records.__getitems__(indices)
        except RuntimeError as error:
            raise DataError(f"{self.name}: damaged ({error}); prepare the dataset again") from None
        return [self._pair(index, record) for index, record in zip(indices, records, strict=True)]

    def _pair(self, index: int, record: dict[str, Any]) -> Pair | None:
        source, target = (record[language] for language in self._languages)
        if not isinstance(source, bytes) or not isinstance(target, bytes):
            # A shard cut in the middle reads as empty records, without any other complaint.
            raise DataError(f"{self.name}: record {index} holds no text; damaged? prepare the dataset again")
        try:
            return source.decode(), target.decode()
        except UnicodeDecodeError as error:
            if self._skip:
                return None
            raise UndecodableError(
                f"{self.name}: record {index} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset "
                f"{error.start} of a sentence; set config.data.invalid_utf8=skip to leave such pairs out"
            ) from None


def _import_tfds() -> ModuleType:
    try:
        importlib.import_module("array_record")  # TFDS itself would miss it at the first record only
        return importlib.import_module("tensorflow_datasets")
    except ImportError as error:
        raise ConfigError(
            f"config.data.kind=tfds needs packages that are not installed ({error}): "
            "pip install 'transformer[tfds]'"
        ) from None


def _prepared_dir(name: str, root: Path) -> Path:
    """Returns the folder ROOT/dataset[/config]/version of a prepared dataset."""
    if not name:
        raise ConfigError(
            "config.data.tfds_name: names no dataset; set it, for example wmt14_translate/de-en"
        )
    wanted, _, version = name.partition(":")
    prepared: dict[str, list[Path]] = {}
    for pattern in ("*/*/features.json", "*/*/*/features.json"):
        for found in root.glob(pattern):
            folder = found.parent
            if folder.name.replace(".", "").isdigit():
                prepared.setdefault(folder.parent.relative_to(root).as_posix(), []).append(folder)
    folders = prepared.get(wanted, [])
    if version:
        folders = [folder for folder in folders if folder.name == version]
    if not folders:
        known = [f"{key}:{folder.name}" if version else key for key in prepared for folder in prepared[key]]
        near = did_you_mean(name, set(known)) if known else ""
        raise DataError(f"{name}: not prepared in {root}{near}; to prepare it: {_command(name, root)}")
    return max(folders, key=lambda folder: [int(part) for part in folder.name.split(".")])


def _command(name: str, root: Path) -> str:
    """Returns the shell command that prepares a dataset; TFDS's own command needs TensorFlow."""
    return (
        'python -c "import tensorflow_datasets as tfds, tensorflow_datasets.translate; '
        f"tfds.builder('{name}', data_dir='{root}', file_format='array_record').download_and_prepare()\""
    )


def _open(tfds: ModuleType, name: str, root: Path, split: str) -> tuple[Any, Any, list[Path]]:
    """Returns the dataset's info, the records of the split and the files that hold them."""
    folder = _prepared_dir(name, root)
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # whatever TFDS says of a file it cannot parse
        raise DataError(
            f"{folder}: damaged dataset ({error}); delete the folder and prepare it again"
        ) from None
    info = builder.info
    if info.file_format.value != "array_record":
        raise DataError(
            f"{folder}: stored as {info.file_format.value}, which only TensorFlow reads; move it away and "
            f"prepare it again: {_command(name, root)}"
        )
    base_names = {part.split("[")[0].strip() for part in split.split("+")}
    for base in sorted(base_names - set(info.splits)):
        raise DataError(f"{info.full_name}: no split {base!r}{did_you_mean(base, info.splits)}")
    try:
        records = builder.as_data_source(split=split)
        parts = info.splits[split].file_instructions
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{info.full_name}: split {split!r} cannot be read ({reason})") from None
    return info, records, sorted({Path(part.filename) for part in parts})
