"""Tokenizers of transformers' models -> ours, with the ids that they have there."""

from collections.abc import Callable, Mapping
from typing import Any

from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, DataError
from transformer.exchange.foreign import Foreign
from transformer.special_ids import SpecialIds

_LARGEST_MODEL = 1 << 26  # bytes of a SentencePiece model


def marian_tokenizer(f: Foreign, sizes: tuple[int, int], languages: tuple[str, str]) -> Tokenizer:
    """Reads source.spm, target.spm, vocab.json and, with separate vocabularies, target_vocab.json."""
    if languages != ("", ""):
        f.refuse("--source_language and --target_language: begin lines with >>xx<< instead")
    files = ["vocab.json", "target_vocab.json" if f.tokenizer.get("separate_vocabs") else "vocab.json"]
    sides = [spellings(f, name, f.json(name), size) for name, size in zip(files, sizes, strict=True)]
    end, start, pad = f.id("eos_token_id", 0), f.id("decoder_start_token_id"), f.id("pad_token_id")
    special = SpecialIds(
        pad=pad,
        unk=_place(f, files[0], sides[0], "<unk>"),
        start=start,
        end=end,
        forbidden=_forbidden(f),
        source_suffix=(end,),
        hidden=tuple({end, start, pad}),
    )
    if _place(f, files[1], sides[1], "<unk>") != special.unk:
        f.refuse(f"{files[1]}: '<unk>' has another id than in {files[0]}")
    models = [model_file(f, name) for name in ("source.spm", "target.spm")]
    return made(f, models, sides, special)


def made(f: Foreign, models: list[bytes], sides: list[list[str]], special: SpecialIds) -> Tokenizer:
    """Returns the tokenizer of a model and a list of pieces for each side.

    Raises:
      CheckpointError: with all reasons so far, or if a model cannot be read.
    """
    f.check()
    first, *others = models
    second = next((model for model in others if model != first), None)
    try:
        return Tokenizer(first, second, (sides[0], sides[-1]), special)
    except DataError as error:
        raise CheckpointError(f"{f.folder}: {error}") from None


def spellings(f: Foreign, file: str, ids: Mapping[str, Any], size: int) -> list[str]:
    """Returns the piece of each id below `size`, empty where there is none.

    Args:
      f: takes reasons.
      file: that the ids are from, for messages.
      ids: of pieces.
      size: rows of the table; ids beyond it are refused.
    """
    found = [""] * size
    for piece, i in ids.items():
        if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < size:
            f.refuse(f"{file}: piece {piece!r} has id {i!r}, expected 0 to {size - 1}")
        elif found[i]:
            f.refuse(f"{file}: pieces {found[i]!r} and {piece!r} both have id {i}")
        else:
            found[i] = piece
        if len(f.reasons) > 9:
            break
    return found


def model_file(f: Foreign, name: str) -> bytes:
    """Returns the content of a SentencePiece file.

    Raises:
      CheckpointError: if there is none, or it is too large to be one.
    """
    path = f.folder / name
    if not path.is_file():
        raise CheckpointError(f"{path}: is missing; the tokenizer needs it, get it anew")
    if path.stat().st_size > _LARGEST_MODEL:
        raise CheckpointError(f"{path}: has more than {_LARGEST_MODEL:,} bytes; is it the right file?")
    return path.read_bytes()


def _place(f: Foreign, file: str, pieces: list[str], piece: str) -> int:
    """Returns the id of a piece that must be there."""
    if piece not in pieces:
        f.refuse(f"{file}: has no piece '{piece}'")
        return 0
    return pieces.index(piece)


def _forbidden(f: Foreign) -> tuple[int, ...]:
    """Returns the ids that the search must not choose; sequences of several are refused."""
    listed = f.generation.get("bad_words_ids") or []
    if not all(isinstance(ids, list) and len(ids) == 1 and isinstance(ids[0], int) for ids in listed):
        f.refuse("bad_words_ids: only single ids can be forbidden")
        return ()
    return tuple(ids[0] for ids in listed)


# Takes settings, rows of the source's and the target's table, and languages.
TOKENIZERS: dict[str, Callable[[Foreign, tuple[int, int], tuple[str, str]], Tokenizer]] = {
    "marian": marian_tokenizer
}
