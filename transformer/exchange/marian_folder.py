"""A folder of Marian's own files: its options, its tensors, its vocabularies."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from transformer.data.pieces import piece_list
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError
from transformer.exchange.flat_yaml import flat_yaml, typed
from transformer.exchange.foreign import Foreign
from transformer.exchange.npz_file import npz_tensors
from transformer.exchange.safetensors_file import StoredTensor
from transformer.exchange.vocabularies import made, model_file, place, spellings
from transformer.special_ids import SpecialIds

_OPTIONS = "special:model.yml"  # the member of model.npz that holds them
_LARGEST_YAML = 1 << 24  # bytes; a vocabulary of 65,000 pieces has 1 million


def open_folder(folder: Path) -> tuple[Foreign, dict[str, StoredTensor]]:
    """Returns (options of the model over those of decoder.yml, tensors by Marian's names).

    Raises:
      CheckpointError: if there is no model, or what is there cannot be read.
    """
    foreign = Foreign(folder, {"config.json": {}})
    search = _yaml(foreign, "decoder.yml") if (folder / "decoder.yml").is_file() else {}
    listed = _files(search.get("models")) or [path.name for path in folder.glob("*.npz")]
    if len(listed) != 1 or not listed[0].endswith(".npz"):
        told = ", ".join(sorted(listed)[:4])[:200] or "none"
        raise CheckpointError(
            f"{folder}: expected one model.npz of Marian, found {told}; leave one there, and name it in "
            "decoder.yml under models"
        )
    path = _file(foreign, listed[0])
    tensors = npz_tensors(path)
    stored = tensors.pop(_OPTIONS, None)
    if stored is None or stored.dtype != "I8" or stored.nbytes > _LARGEST_YAML:
        raise CheckpointError(f"{path}: has no {_OPTIONS} with the model's options; is it Marian's?")
    content = np.fromfile(path, np.uint8, stored.nbytes, offset=stored.start).tobytes().rstrip(b"\0")
    foreign.config = {key: typed(x) for key, x in {**search, **_mapping(path, content)}.items()}
    foreign.generation = foreign.config
    return foreign, tensors


def marian_nmt_tokenizer(f: Foreign, rows: tuple[int, int], total: int) -> Tokenizer:
    """Reads the vocabularies that decoder.yml names, or the only ones that are there.

    A SentencePiece model has the ids itself; beside a YAML file with ids lie source.spm and target.spm,
    which cut the text, as in the folders of OPUS-MT.

    Args:
      f: the folder.
      rows: of Marian's tables of the source and of the target.
      total: rows of ours, in both tables; the last one begins the decoder's input and is padding.
    """
    models, sides = [], []
    files = _vocabularies(f)
    for file, cutter, size in zip(files, ("source.spm", "target.spm"), rows, strict=True):
        if file.endswith(".spm"):
            model = model_file(f, file)
            ids: Mapping[str, object] = {piece: i for i, piece in enumerate(piece_list(model))}
        else:
            ids = {piece: typed(i) for piece, i in _yaml(f, file).items()}
            model = model_file(f, cutter)
        models.append(model)
        own = "<pad>" if "<pad>" not in ids else ""
        sides.append([*spellings(f, file, ids, size), *[""] * (total - 1 - size), own])
    ends, unknown = (
        [place(f, file, side, piece) for file, side in zip(files, sides, strict=True)]
        for piece in ("</s>", "<unk>")
    )
    if len({*ends}) > 1 or len({*unknown}) > 1:
        f.refuse(f"{files[1]}: '</s>' or '<unk>' has another id than in {files[0]}")
    start = total - 1
    special = SpecialIds(
        pad=start,
        unk=unknown[0],
        start=start,
        end=ends[0],
        forbidden=(start,) if f.fact("allow-unk", False) else (unknown[0], start),
        source_suffix=(ends[0],),
        hidden=(ends[0], start),
    )
    return made(f, models, sides, special)


def _vocabularies(f: Foreign) -> list[str]:
    """Returns the names of the source's and the target's."""
    listed = _files(f.config.get("vocabs"))
    if not listed:
        listed = sorted(path.name for path in f.folder.glob("*vocab*") if path.suffix in (".yml", ".spm"))
        named = [name for side in ("src", "trg") for name in listed if f".{side}." in f".{name}"]
        listed = listed * 2 if len(listed) == 1 else named
    if len(listed) != 2 or not all(name.endswith((".yml", ".yaml", ".spm")) for name in listed):
        told = ", ".join(listed[:4])[:200] or "none"
        raise CheckpointError(
            f"{f.folder}: expected the vocabularies of both sides as .yml or .spm, found {told}; name them "
            "in decoder.yml under vocabs"
        )
    return listed


def _files(named: object) -> list[str]:
    """Returns the names of files that an option has: wherever they were, they are looked for here."""
    listed = named if isinstance(named, list) else [named] if named else []
    return [Path(str(name)).name for name in listed]


def _file(f: Foreign, name: str) -> Path:
    path = f.path(name)
    if not path.is_file():
        raise CheckpointError(f"{path}: is missing; put it beside the others")
    return path


def _yaml(f: Foreign, name: str) -> dict[str, str | list[str]]:
    path = _file(f, name)
    try:
        if path.stat().st_size > _LARGEST_YAML:
            raise CheckpointError(f"{path}: has more than {_LARGEST_YAML:,} bytes; is it the right file?")
        return _mapping(path, path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}; get it anew") from None


def _mapping(path: Path, content: bytes) -> dict[str, str | list[str]]:
    try:
        return flat_yaml(content.decode("utf-8"))
    except ValueError as error:
        message = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: cannot be read as Marian's YAML: {message}; get it anew") from None
