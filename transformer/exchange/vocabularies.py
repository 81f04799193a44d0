"""Tokenizers of transformers' models -> ours, with the ids that they have there."""

import re
from collections.abc import Mapping
from typing import Any

from transformer.data.pieces import piece_list
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, DataError, did_you_mean
from transformer.exchange.added_tokens import SIGNS, added_tokens, spelled, with_added
from transformer.exchange.foreign import Foreign, shown, words
from transformer.exchange.trial import try_sentencepiece
from transformer.special_ids import SpecialIds

LANGUAGE_IN_TEXT = "<2[^<>]+>"  # MADLAD-400's pieces that name the target's language
_LARGEST_MODEL = 1 << 24  # bytes of a SentencePiece model; the largest known has 5 million

# Languages in the order of their ids, which the files of M2M100 and mBART need not tell.
_OF_M2M100 = """
af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr
ht hu hy id ig ilo is it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or
pa pl ps pt ro ru sd si sk sl so sq sr ss su sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu
"""
_OF_MBART = """
ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM
ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN
"""
_OF_MBART50 = """
af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF pt_XX sv_SE
sw_KE ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI
"""
CODES = {
    "m2m100": _OF_M2M100.split(),
    "wmt21": ["en", "ha", "is", "ja", "cs", "ru", "zh", "de"],
    "mbart": _OF_MBART.split(),
    "mbart50": (_OF_MBART + _OF_MBART50).split(),
}

_CLASSES = ("M2M100Tokenizer", "NllbTokenizer", "MBartTokenizer", "MBart50Tokenizer")
ANY_CLASS = ("", "PreTrainedTokenizer", "TokenizersBackend")  # tell nothing


def marian_tokenizer(f: Foreign, sizes: tuple[int, int], languages: tuple[str, str]) -> Tokenizer:
    """Reads source.spm, target.spm, vocab.json and, with separate vocabularies, target_vocab.json."""
    if languages != ("", ""):
        f.refuse("--source_language and --target_language: begin lines with >>xx<< instead")
    files = ["vocab.json", "target_vocab.json" if f.tokenizer.get("separate_vocabs") else "vocab.json"]
    sides = [
        spellings(f, name, with_added(f, f.json(name), {}, size)[0], size)
        for name, size in zip(files, sizes, strict=True)
    ]
    end, start, pad = f.id("eos_token_id", 0), f.id("decoder_start_token_id"), f.id("pad_token_id")
    special = SpecialIds(
        pad=pad,
        unk=place(f, files[0], sides[0], "<unk>"),
        start=start,
        end=end,
        forbidden=forbidden_ids(f),
        source_suffix=(end,),
        hidden=tuple({end, start, pad}),
    )
    if place(f, files[1], sides[1], "<unk>") != special.unk:
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
            f.refuse(f"{file}: piece {shown(piece)} has id {shown(i)}, expected 0 to {size - 1}")
        elif found[i]:
            f.refuse(f"{file}: pieces {shown(found[i])} and {shown(piece)} both have id {i}")
        else:
            found[i] = piece
        if len(f.reasons) > 9:
            break
    return found


def model_file(f: Foreign, name: str) -> bytes:
    """Returns the content of a SentencePiece file that can be loaded.

    Raises:
      CheckpointError: if there is none, or it is too large or too damaged to be one.
    """
    path = f.path(name)
    if not path.is_file():
        where = (
            "copy it from the model that this one was trained from"
            if f.has("tokenizer.json")
            else "get it anew"
        )
        raise CheckpointError(f"{path}: is missing; the tokenizer needs it, {where}")
    if path.stat().st_size > _LARGEST_MODEL:
        raise CheckpointError(f"{path}: has more than {_LARGEST_MODEL:,} bytes; is it the right file?")
    content = path.read_bytes()
    try_sentencepiece(path, content)
    return content


def place(f: Foreign, file: str, pieces: list[str], piece: str) -> int:
    """Returns the id of a piece that must be there."""
    if piece not in pieces:
        f.refuse(f"{file}: has no piece '{piece}'")
        return 0
    return pieces.index(piece)


def forbidden_ids(f: Foreign) -> tuple[int, ...]:
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
    if f.tokenizer_class.removesuffix("Fast") not in (*_CLASSES, *ANY_CLASS):
        f.refuse(
            f"tokenizer_class: {shown(f.tokenizer_class)} is not known; of these are {words(_CLASSES, 9)}"
        )
    model = model_file(f, "sentencepiece.bpe.model")
    file, ids, hidden = _ids(f, model, sizes[0])
    pieces = spellings(f, file, ids, sizes[0])
    spoken = {p: i for p, i in ids.items() if isinstance(i, int) and i in hidden and p not in SIGNS}
    old = _is_first_mbart(f)
    # What the search is told counts there, and not what the tokenizer is.
    first = f.generation.get("decoder_start_token_id" if old else "forced_bos_token_id")
    wanted = next((piece for piece, i in spoken.items() if i == first), f.tokenizer.get("tgt_lang"))
    codes = languages[0] or f.tokenizer.get("src_lang"), languages[1] or wanted
    source, target = (
        _language(f, spoken, str(code or ""), option)
        for code, option in zip(codes, ("--source_language", "--target_language"), strict=True)
    )
    end = f.id("eos_token_id", 2)
    behind = old or f.tokenizer.get("legacy_behaviour") is True
    start = target if old else f.id("decoder_start_token_id", end)
    special = SpecialIds(
        pad=f.id("pad_token_id", 1),
        unk=place(f, file, pieces, "<unk>"),
        start=start,
        end=end,
        forbidden=forbidden_ids(f),
        source_prefix=() if behind else (source,),
        source_suffix=(end, source) if behind else (end,),
        target_prefix=() if old else (target,),
        hidden=tuple(sorted(set(hidden) & set(range(len(pieces))))),
    )
    return made(f, [model], [pieces], special)


def _ids(f: Foreign, model: bytes, rows: int) -> tuple[str, dict[str, Any], set[int]]:
    """Returns (file that they are from, the id of each piece, those that are no text)."""
    guessed: dict[str, int] = {}
    if f.has("vocab.json"):  # M2M100: languages come after all pieces
        file, ids = "vocab.json", f.json("vocab.json")
        codes = CODES.get(str(f.tokenizer.get("language_codes", "m2m100")), [])
        guessed = {f"__{code}__": len(ids) + i for i, code in enumerate(codes)}
    elif f.has("tokenizer.json"):
        file, (found, _) = "tokenizer.json", tokenizer_json(f)
        ids = found["model"]["vocab"]
        if isinstance(ids, list):
            ids = {piece: i for i, (piece, _) in enumerate(ids)}
    else:
        file, listed = "sentencepiece.bpe.model", ["<s>", "<pad>", "</s>", "<unk>", *piece_list(model)[3:]]
        ids = {piece: i for i, piece in enumerate(listed)}
        codes = (
            [] if f.config["model_type"] != "mbart" else CODES["mbart" if _is_first_mbart(f) else "mbart50"]
        )
        extra = f.tokenizer.get("additional_special_tokens") or f.tokenizer.get("extra_special_tokens")
        later = added_tokens(f)
        extra = [token for token in spelled(extra if isinstance(extra, list) else []) if token not in later]
        others = dict.fromkeys(token for token in (*codes, *extra, "<mask>") if token not in ids)
        guessed = {piece: len(ids) + i for i, piece in enumerate(others)}
    ids, hidden = with_added(f, ids, guessed, rows, languages=True)
    signs = [i for sign in ("<s>", "<pad>", "</s>") if isinstance(i := ids.get(sign), int)]
    return file, ids, {i for i in (*hidden, *signs) if i != ids.get("<unk>")}


def tokenizer_json(f: Foreign) -> tuple[dict[str, Any], dict[str, int]]:
    """Returns the content of tokenizer.json, and the ids of the tokens that were added to its vocabulary.

    Raises:
      CheckpointError: if it has neither.
    """
    found = f.json("tokenizer.json")
    try:
        vocabulary = found["model"]["vocab"]
        pairs = vocabulary.items() if isinstance(vocabulary, dict) else [(p, s) for p, s in vocabulary]
        sound = all(isinstance(piece, str) for piece, _ in pairs)
        added = {token["content"]: token["id"] for token in found["added_tokens"]}
        sound &= all(
            isinstance(t["content"], str) and isinstance(t["id"], int) and isinstance(t["special"], bool)
            for t in found["added_tokens"]
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        sound, added = False, {}
    if not sound:
        raise CheckpointError(f"{f.folder / 'tokenizer.json'}: has no vocabulary; get it anew")
    return found, added


def _is_first_mbart(f: Foreign) -> bool:
    """Returns whether it is mBART, not mBART-50; where no class says it, the decoder's start does."""
    if f.config["model_type"] != "mbart":
        return False
    name = f.tokenizer_class.removesuffix("Fast")
    return name == "MBartTokenizer" if name in _CLASSES else f.generation.get("decoder_start_token_id") != 2


def _language(f: Foreign, spoken: Mapping[str, int], code: str, option: str) -> int:
    """Returns the id of a language, given as the vocabulary spells it, or as M2M100's users do."""
    for token in (code, f"__{code}__"):
        if token in spoken:
            return spoken[token]
    known = [token.strip("_") for token in spoken]
    f.refuse(
        f"{option}: is needed" if not code else f"{option}: '{code}' is not known{did_you_mean(code, known)}"
    )
    return 0


def t5_tokenizer(f: Foreign, sizes: tuple[int, int], languages: tuple[str, str]) -> Tokenizer:
    """Reads spiece.model, whose ids are the model's; sentinels follow, the first one last.

    MADLAD-400 is told the target's language by a piece <2xx> before the source.
    """
    model = model_file(f, "spiece.model")
    listed = piece_list(model)
    prefix: tuple[int, ...] = ()
    if languages[1] and f"<2{languages[1]}>" in listed:
        prefix = (listed.index(f"<2{languages[1]}>"),)
    elif languages[1]:
        known = [piece[2:-1] for piece in listed if re.fullmatch(LANGUAGE_IN_TEXT, piece)]
        hint = did_you_mean(languages[1], known) if known else "; this family is told it in the text"
        f.refuse(f"--target_language: '{languages[1]}' is not known{hint}")
    if languages[0]:
        f.refuse("--source_language: is not told to this family")
    extra = f.tokenizer.get("extra_ids", 100)
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(min(extra, sizes[0]) if is_count(extra) else 0))]
    room = [token for token in sentinels if token not in listed][: max(sizes[0] - len(listed), 0)]
    guessed = {token: i for i, token in enumerate(room, len(listed))}
    ids, hidden = with_added(f, {piece: i for i, piece in enumerate(listed)}, guessed, sizes[0])
    pieces = spellings(f, "spiece.model", ids, sizes[0])
    end, pad = f.id("eos_token_id", 1), f.id("pad_token_id", 0)
    special = SpecialIds(
        pad=pad,
        unk=place(f, "spiece.model", pieces, "<unk>"),
        start=f.id("decoder_start_token_id", pad),
        end=end,
        forbidden=forbidden_ids(f),
        source_prefix=prefix,
        source_suffix=(end,),
        hidden=tuple(sorted(i for i in {pad, end, *hidden} if i != ids.get("<unk>"))),
    )
    return made(f, [model], [pieces], special)


def is_count(value: Any) -> bool:
    """Returns whether a setting is a whole number, 0 or above."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
