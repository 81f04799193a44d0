"""Tokenizers of transformers' models -> ours, with the ids that they have there."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from transformer.data.pieces import piece_list
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, DataError, did_you_mean
from transformer.exchange.foreign import Foreign
from transformer.special_ids import SpecialIds

_LARGEST_MODEL = 1 << 26  # bytes of a SentencePiece model

# Languages in the order of their ids, which M2M100's files do not tell.
_OF_M2M100 = """
af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr
ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or
pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu
"""
CODES = {"m2m100": _OF_M2M100.split(), "wmt21": ["en", "ha", "is", "ja", "cs", "ru", "zh", "de"]}


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


def many_languages(f: Foreign, sizes: tuple[int, int], languages: tuple[str, str]) -> Tokenizer:
    """Reads what M2M100, NLLB, mBART and mBART-50 have: one model, and an id for each language.

    All but mBART put the source's language before a source (NLLB's legacy behaviour: behind it), and begin
    every output with the target's. mBART puts it behind, and begins the decoder's input with the target's.
    """
    model = model_file(f, "sentencepiece.bpe.model")
    file, ids, hidden = _ids(f, model)
    pieces = spellings(f, file, ids, sizes[0])
    codes = languages[0] or f.tokenizer.get("src_lang"), languages[1] or f.tokenizer.get("tgt_lang")
    source, target = (
        _language(f, ids, str(code or ""), option)
        for code, option in zip(codes, ("--source_language", "--target_language"), strict=True)
    )
    end = f.id("eos_token_id", 2)
    old = f.config["model_type"] == "mbart" and "50" not in str(f.tokenizer.get("tokenizer_class"))
    behind = old or f.tokenizer.get("legacy_behaviour") is True
    start = target if old else f.id("decoder_start_token_id", end)
    special = SpecialIds(
        pad=f.id("pad_token_id", 1),
        unk=_place(f, file, pieces, "<unk>"),
        start=start,
        end=end,
        forbidden=_forbidden(f),
        source_prefix=() if behind else (source,),
        source_suffix=(end, source) if behind else (end,),
        target_prefix=() if old else (target,),
        hidden=tuple(sorted(set(hidden) & set(range(len(pieces))))),
    )
    return made(f, [model], [pieces], special)


def _ids(f: Foreign, model: bytes) -> tuple[str, dict[str, Any], list[int]]:
    """Returns (file that they are from, the id of each piece, those that are no text)."""
    if f.has("vocab.json"):  # M2M100: languages come after all pieces
        ids = f.json("vocab.json")
        codes = CODES.get(str(f.tokenizer.get("language_codes", "m2m100")), ())
        tokens = {f"__{code}__": len(ids) + i for i, code in enumerate(codes)}
        hidden = [ids.get(piece, 0) for piece in ("<s>", "<pad>", "</s>")]
        return "vocab.json", {**ids, **tokens}, [*hidden, *tokens.values()]
    if f.has("tokenizer.json"):
        found = f.json("tokenizer.json")
        try:
            vocabulary = found["model"]["vocab"]
            if isinstance(vocabulary, list):
                vocabulary = {piece: i for i, (piece, _) in enumerate(vocabulary)}
            added = {token["content"]: token["id"] for token in found["added_tokens"]}
            hidden = [token["id"] for token in found["added_tokens"] if token["special"]]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise CheckpointError(f"{f.folder / 'tokenizer.json'}: has no vocabulary; get it anew") from None
        unk = added.get("<unk>")
        return "tokenizer.json", {**vocabulary, **added}, [i for i in hidden if i != unk]
    listed = ["<s>", "<pad>", "</s>", "<unk>", *piece_list(model)[3:]]
    extra = f.tokenizer.get("additional_special_tokens") or f.tokenizer.get("extra_special_tokens") or []
    listed_too = [str(token) for token in extra if str(token) not in listed]
    ids = {piece: i for i, piece in enumerate([*listed, *listed_too, "<mask>"])}
    return "sentencepiece.bpe.model", ids, [0, 1, 2, *range(len(listed), len(ids))]


def _language(f: Foreign, ids: Mapping[str, Any], code: str, option: str) -> int:
    """Returns the id of a language, given as the vocabulary spells it, or as M2M100's users do."""
    for token in (code, f"__{code}__"):
        if token in ids and isinstance(ids[token], int):
            return ids[token]
    known = [t.strip("_") for t in ids if re.fullmatch(r"__[a-z]+__|[a-z]{2,3}_[A-Za-z]{2,4}", t)]
    f.refuse(
        f"{option}: is needed" if not code else f"{option}: '{code}' is not known{did_you_mean(code, known)}"
    )
    return 0


def t5_tokenizer(f: Foreign, sizes: tuple[int, int], languages: tuple[str, str]) -> Tokenizer:
    """Reads spiece.model, whose ids are the model's; sentinels follow, the first one last."""
    if languages != ("", ""):
        f.refuse("--source_language and --target_language: this family is told them in the text")
    model = model_file(f, "spiece.model")
    listed = piece_list(model)
    extra = f.tokenizer.get("extra_ids", 100)
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(extra if isinstance(extra, int) else 0))]
    room = [token for token in sentinels if token not in listed][: sizes[0] - len(listed)]
    pieces = spellings(f, "spiece.model", {p: i for i, p in enumerate([*listed, *room])}, sizes[0])
    end, pad = f.id("eos_token_id", 1), f.id("pad_token_id", 0)
    special = SpecialIds(
        pad=pad,
        unk=_place(f, "spiece.model", pieces, "<unk>"),
        start=f.id("decoder_start_token_id", pad),
        end=end,
        forbidden=_forbidden(f),
        source_suffix=(end,),
        hidden=tuple(sorted({pad, end, *range(len(listed), len(listed) + len(room))})),
    )
    return made(f, [model], [pieces], special)


# Takes settings, rows of the source's and the target's table, and languages.
TOKENIZERS: dict[str, Callable[[Foreign, tuple[int, int], tuple[str, str]], Tokenizer]] = {
    "marian": marian_tokenizer,
    "m2m_100": many_languages,
    "mbart": many_languages,
    "t5": t5_tokenizer,
    "mt5": t5_tokenizer,
    "umt5": t5_tokenizer,
}
