"""Tokenizers whose pieces are bytes, or merged from bytes -> ours: BART's and ByT5's."""

from typing import Any

from transformer.data.byte_pairs import CHARACTERS, serialised
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError
from transformer.exchange.added_tokens import SIGNS, with_added
from transformer.exchange.foreign import Foreign, shown
from transformer.exchange.vocabularies import forbidden_ids, made, place, spellings, tokenizer_json
from transformer.special_ids import SpecialIds

_LARGEST_MERGES = 1 << 25  # bytes
_NO_LANGUAGES = "--source_language and --target_language: this family knows no languages"


def bart_tokenizer(f: Foreign, sizes: tuple[int, int], languages: tuple[str, str]) -> Tokenizer:
    """Reads tokenizer.json, or vocab.json and merges.txt."""
    if languages != ("", ""):
        f.refuse(_NO_LANGUAGES)
    file, ids, merges, hidden = _byte_pairs(f, sizes[0])
    pieces = spellings(f, file, ids, sizes[0])
    for left, right in merges:
        if not {left, right, left + right} <= ids.keys():
            f.refuse(f"{file}: merge {shown(f'{left} {right}')}: it or a part of it has no id")
            break
    begin, end = f.id("bos_token_id", 0), f.id("eos_token_id", 2)
    # Older files say by another key that outputs begin with it; targets do in any case.
    old = f.config.get("force_bos_token_to_be_generated") is True
    forced = old or f.generation.get("forced_bos_token_id") is not None
    special = SpecialIds(
        pad=f.id("pad_token_id", 1),
        unk=place(f, file, pieces, "<unk>"),
        start=f.id("decoder_start_token_id", end),
        end=end,
        forbidden=forbidden_ids(f),
        source_prefix=(begin,),
        source_suffix=(end,),
        target_prefix=(f.id("forced_bos_token_id", begin),),
        forced=forced,
        hidden=tuple(sorted({i for i in hidden if 0 <= i < sizes[0]})),
    )
    return made(f, [serialised(merges)], [pieces], special)


def _byte_pairs(f: Foreign, rows: int) -> tuple[str, dict[str, Any], list[tuple[str, str]], list[int]]:
    """Returns (file of the ids, the id of each piece, the merges, ids that are no text).

    Some tables have no row for the mask, the last piece.
    """
    if not f.has("tokenizer.json"):
        ids = f.json("vocab.json") if f.has("vocab.json") else {}
        if f.tokenizer.get("add_prefix_space"):
            f.refuse("tokenizer_config.json: add_prefix_space: true cannot be represented")
        ids, hidden = with_added(f, _within(ids, rows), {}, rows)
        found = [ids.get(piece) for piece in SIGNS]
        return "vocab.json", ids, _merges_file(f), [*hidden, *(i for i in found if isinstance(i, int))]
    content, added = tokenizer_json(f)
    model, cut = content["model"], content.get("pre_tokenizer") or {}
    plain = isinstance(cut, dict) and cut.get("type") == "ByteLevel" and cut.get("use_regex") is not False
    odd = [
        key for key in ("continuing_subword_prefix", "end_of_word_suffix", "ignore_merges") if model.get(key)
    ]
    merges = model.get("merges")
    if (
        model.get("type") != "BPE"
        or not isinstance(model["vocab"], dict)
        or not isinstance(merges, list)
        or not plain
        or odd
        or content.get("normalizer")
    ):
        f.refuse("tokenizer.json: only byte pairs cut as GPT-2's (BPE after ByteLevel) can be represented")
        return "tokenizer.json", added, [], []
    if cut.get("add_prefix_space"):
        f.refuse("tokenizer.json: add_prefix_space: true cannot be represented")
    pairs = [_pair(f, "tokenizer.json", merge) for merge in merges]
    ids, hidden = with_added(f, _within(model["vocab"], rows), {}, rows)
    return "tokenizer.json", ids, pairs, hidden


def _within(ids: dict[str, Any], rows: int) -> dict[str, Any]:
    i = ids.get("<mask>")
    return {p: ids[p] for p in ids if p != "<mask>"} if isinstance(i, int) and i >= rows else ids


def _merges_file(f: Foreign) -> list[tuple[str, str]]:
    path = f.path("merges.txt")
    if not path.is_file():
        raise CheckpointError(f"{path}: is missing; the tokenizer needs it, get it anew")
    if path.stat().st_size > _LARGEST_MERGES:
        raise CheckpointError(f"{path}: has more than {_LARGEST_MERGES:,} bytes; is it the right file?")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except ValueError:
        raise CheckpointError(f"{path}: is not UTF-8; get it anew") from None
    if lines[0].startswith("#version"):
        del lines[0]
    return [_pair(f, "merges.txt", line.rstrip("\r")) for line in lines if line.strip()]


def _pair(f: Foreign, file: str, merge: Any) -> tuple[str, str]:
    """Returns the parts of a merge, which older files write as one text."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    sound = isinstance(parts, list) and len(parts) == 2 and all(isinstance(p, str) and p for p in parts)
    if not sound or any(set(part) & {" ", "\n"} for part in parts):
        raise CheckpointError(f"{f.folder / file}: merge {shown(merge)} is not a pair of pieces; get it anew")
    return parts[0], parts[1]


def is_byt5(f: Foreign) -> bool:
    """Returns whether a T5 reads bytes."""
    return f.tokenizer_class.startswith("ByT5")


def byt5_tokenizer(f: Foreign, sizes: tuple[int, int], languages: tuple[str, str]) -> Tokenizer:
    """Returns ByT5's, which has no files: a byte's id is its value + 3, and sentinels follow."""
    if languages != ("", ""):
        f.refuse(_NO_LANGUAGES)
    special = ["<pad>", "</s>", "<unk>"]
    listed = [*special, *(CHARACTERS[byte] for byte in range(256))]
    sentinels = [f"<extra_id_{i}>" for i in range(sizes[0] - len(listed))]
    pieces = spellings(f, "tokenizer", {p: i for i, p in enumerate([*listed, *sentinels])}, sizes[0])
    end, pad = f.id("eos_token_id", 1), f.id("pad_token_id", 0)
    ids = SpecialIds(
        pad=pad,
        unk=2,
        start=f.id("decoder_start_token_id", pad),
        end=end,
        forbidden=forbidden_ids(f),
        source_suffix=(end,),
        hidden=(0, 1, 2, *range(len(listed), sizes[0])),
    )
    return made(f, [serialised([])], [pieces], ids)
