"""Our tokenizers -> the files that transformers' tokenizers load; vocabularies.py the other way."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from transformer.data.byte_pairs import BytePairs
from transformer.data.pieces import piece_list
from transformer.data.tokenizer import Tokenizer
from transformer.exchange.vocabularies import ANY_CLASS
from transformer.special_ids import SpecialIds


class Written(NamedTuple):
    """Files of a tokenizer.

    Attributes:
      contents: by name.
      settings: tokenizer_config.json.
      reasons: why theirs cannot be ours; empty if it can.
    """

    contents: dict[str, bytes]
    settings: dict[str, Any]
    reasons: tuple[str, ...] = ()


def ids_of(special: SpecialIds) -> dict[str, int]:
    """Returns the ids that a config.json names."""
    return dict(pad_token_id=special.pad, eos_token_id=special.end, decoder_start_token_id=special.start)


def marian_files(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> Written:
    """Writes source.spm, target.spm, vocab.json and, with separate vocabularies, target_vocab.json."""
    source, target = pieces(tokenizer)
    separate, special = source != target, tokenizer.special
    contents = dict(zip(("source.spm", "target.spm"), tokenizer.models, strict=True))
    contents["vocab.json"] = _vocabulary(source)
    if separate:
        contents["target_vocab.json"] = _vocabulary(target)
    names = dict(eos_token=special.end, unk_token=special.unk, pad_token=special.pad)
    named = {name: source[i] for name, i in names.items()}
    return Written(
        contents,
        {**settings, "tokenizer_class": "MarianTokenizer", "separate_vocabs": separate, **named},
        tuple(f"tokenizer: {name} {names[name]} has no piece" for name in names if not named[name]),
    )


def files_of_languages(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> Written:
    """Writes sentencepiece.bpe.model and, for M2M100, vocab.json; languages are those it was used for."""
    (listed, _), special = pieces(tokenizer), tokenizer.special
    content, _ = tokenizer.models
    contents = {"sentencepiece.bpe.model": content}
    around = [*special.source_prefix, *special.source_suffix]
    codes = [listed[i].strip("_") for i in around if i != special.end]
    codes += [listed[i].strip("_") for i in special.target_prefix or (special.start,)]
    if len(codes) != 2:
        return Written(contents, {**settings}, ("tokenizer: has no languages, this family has",))
    own = [i for i, piece in enumerate(listed) if re.fullmatch("__.+__", piece)]
    if settings.get("tokenizer_class", "") in ANY_CLASS:
        settings = {**settings, "tokenizer_class": _class_of_languages(special, bool(own), codes[1])}
    if settings["tokenizer_class"] == "M2M100Tokenizer":
        contents["vocab.json"] = _vocabulary(listed[: min(own, default=len(listed))])
        extra = {}
    else:
        known = {"<s>", "<pad>", "</s>", "<unk>", "<mask>", *piece_list(content)}
        extra = {"additional_special_tokens": [piece for piece in listed if piece and piece not in known]}
    return Written(contents, {**settings, **extra, "src_lang": codes[0], "tgt_lang": codes[1]})


def _class_of_languages(special: SpecialIds, between_lines: bool, code: str) -> str:
    """Returns the class that lays sentences out like this, and spells languages so."""
    if not special.target_prefix:
        return "MBartTokenizer"
    if between_lines:
        return "M2M100Tokenizer"
    return "MBart50Tokenizer" if re.fullmatch("[a-z]{2}_[A-Z]{2}", code) else "NllbTokenizer"


def t5_files(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> Written:
    """Writes spiece.model; how many sentinels follow its pieces is a setting."""
    listed, _ = pieces(tokenizer)
    content, _ = tokenizer.models
    sentinels = len(set(listed) - {"", *piece_list(content)})
    unk = tokenizer.special.unk
    return Written(
        {"spiece.model": content},
        {"extra_ids": sentinels, "tokenizer_class": "T5Tokenizer", **settings},
        () if unk == 2 else (f"tokenizer: the id of unknown pieces is {unk}, T5Tokenizer's is 2",),
    )


def pieces(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """Returns the piece of each source id and of each target id; empty where an id has none."""
    return (
        tokenizer.source_pieces(range(tokenizer.source_vocab)),
        tokenizer.target_pieces(range(tokenizer.target_vocab)),
    )


def _vocabulary(listed: Sequence[str]) -> bytes:
    ids = {piece: i for i, piece in enumerate(listed) if piece}
    return (json.dumps(ids, ensure_ascii=False, indent=2) + "\n").encode("utf-8", "surrogatepass")


def bart_files(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> Written:
    """Writes vocab.json and merges.txt."""
    listed, _ = pieces(tokenizer)
    content, _ = tokenizer.models
    contents = {"vocab.json": _vocabulary(listed), "merges.txt": content + b"\n"}
    return Written(contents, {"tokenizer_class": "BartTokenizer", **settings})


def byt5_files(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> Written:
    """Writes nothing: bytes are their own ids."""
    return Written({}, {"tokenizer_class": "ByT5Tokenizer", **settings})


_OF_OLD_IDS = ("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens", "extra_ids")
# Takes our tokenizer and the settings that it was imported with.
_WRITERS: dict[str, Callable[[Tokenizer, Mapping[str, Any]], Written]] = {
    "marian": marian_files,
    "m2m_100": files_of_languages,
    "bart": bart_files,
    "mbart": files_of_languages,
    "t5": t5_files,
    "mt5": t5_files,
    "umt5": t5_files,
}


def written_tokenizer(
    kind: str, tokenizer: Tokenizer, settings: Mapping[str, Any], unchanged: bool, title: str = ""
) -> Written:
    """Returns a tokenizer's files.

    Args:
      kind: of the family.
      tokenizer: ours.
      settings: that it was imported with.
      unchanged: whether it is the one that was imported from this family, and so fits as it did there.
      title: name of its class, where the settings do not say it.
    """
    settings = dict(settings)
    if title and not settings.get("tokenizer_class"):
        settings["tokenizer_class"] = title
    if isinstance(extra := settings.get("extra_special_tokens"), list):  # transformers 4 knows the other name
        settings["additional_special_tokens"] = extra
        del settings["extra_special_tokens"]
    if not unchanged:  # other tokens may have these ids now
        settings = {key: value for key, value in settings.items() if key not in _OF_OLD_IDS}
    of_bytes = BytePairs.recognises(tokenizer.models[0])
    if of_bytes and kind == "t5":
        return byt5_files(tokenizer, settings)
    if of_bytes != (kind == "bart"):
        have = "byte pairs" if of_bytes else "a SentencePiece model"
        return Written({}, {}, (f"tokenizer: is {have}, this family's is not",))
    written = _WRITERS[kind](tokenizer, settings)
    return written._replace(reasons=()) if unchanged else written
