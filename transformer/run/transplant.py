"""Tables of one tokenizer's pieces made into those of another's (`init.vocabulary=transplant`)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from transformer.config import ModelConfig
from transformer.data.tokenizer import Tokenizer
from transformer.errors import ConfigError, did_you_mean
from transformer.model.transformer import TABLES
from transformer.special_ids import SpecialIds

_MEANINGS = ("pad", "unk", "start", "end")
_LANGUAGE = re.compile(r"__[a-z_]+__|[a-z]{2,3}_[A-Za-z]{2,4}")  # as M2M100, and as NLLB and mBART spell them


class Coverage(NamedTuple):
    """How many pieces of a side have the row of one old piece, of several, or in part of the unknown one."""

    equal: int
    composed: int
    unknown: int


def transplanted(
    params: Mapping[str, np.ndarray], model: ModelConfig, old: Tokenizer, new: Tokenizer, like: str = ""
) -> tuple[dict[str, np.ndarray], dict[str, Coverage]]:
    """Returns arrays whose tables have a row for each new piece, and the coverage of each side.

    A piece that both have keeps its row, a special id that of the same meaning. Any other piece gets the
    mean of the rows of the old pieces it consists of, the longest first; characters that are none of
    them count as the unknown piece. A language that is new gets the row of another, or the mean of all.
    Moments follow their parameters: zeros, with the count of all steps, would make the first updates of
    new rows several times too large.

    Args:
      params: of the base, by path; and moments, of the same shapes and with paths that end alike.
      model: its configuration.
      old: the base's tokenizer.
      new: the run's.
      like: the language whose row new ones get; empty: the mean of all.

    Raises:
      ConfigError: if there is no such language.
    """
    languages = _languages(old, like)
    before = {"source": old.source_pieces(range(old.source_vocab))}
    before["target"] = old.target_pieces(range(old.target_vocab))
    after = {"source": new.source_pieces(range(new.source_vocab))}
    after["target"] = new.target_pieces(range(new.target_vocab))
    parts = {side: _parts(before[side], after[side], old.special, new.special, languages) for side in before}
    names = TABLES[model.tied_embeddings]
    sides = {f"{names.source}/embedding": "source", f"{names.target}/embedding": "target"}
    sides |= {f"{names.output}/embedding": "target", "logits_bias": "target"}
    moved = dict(params)
    for table in sides.keys() & params.keys():
        for path, x in params.items():
            if f"/{path}".endswith(f"/{table}") and x.shape == params[table].shape:
                moved[path] = _means(x, parts[sides[table]])
    return moved, {side: _coverage(found, old.special.unk) for side, found in parts.items()}


def _languages(old: Tokenizer, like: str) -> list[int]:
    """Returns the ids whose rows new languages begin with."""
    ids = {old.source_pieces([i])[0]: i for i in old.special.hidden}
    languages = {piece: i for piece, i in ids.items() if _LANGUAGE.fullmatch(piece)}
    if not like:
        return sorted(languages.values())
    for piece in (like, f"__{like}__"):
        if piece in languages:
            return [languages[piece]]
    guess = did_you_mean(like, [piece.strip("_") for piece in languages])
    raise ConfigError(f"config.init.language_like: {like!r} is no language of init.model{guess}")


def _parts(
    old: Sequence[str], new: Sequence[str], before: SpecialIds, after: SpecialIds, languages: list[int]
) -> list[list[int]]:
    """Returns the old ids that each new id consists of."""
    same = {getattr(after, name): getattr(before, name) for name in _MEANINGS}
    special = {getattr(before, name) for name in _MEANINGS}
    ids = {piece: i for i, piece in enumerate(old) if piece and i not in special}
    longest = max(map(len, ids))

    def parts(i: int, piece: str) -> list[int]:
        if i < len(old) and piece == old[i]:
            return [i]
        if i in after.hidden and piece not in ids and languages and _LANGUAGE.fullmatch(piece):
            return languages
        return [same[i]] if i in same else _cut(piece, ids, longest, before.unk)

    return [parts(i, piece) for i, piece in enumerate(new)]


def _cut(piece: str, ids: Mapping[str, int], longest: int, unknown: int) -> list[int]:
    """Returns the ids of the old pieces that make up a new one, the longest that fits first."""
    parts, start = [], 0
    while start < len(piece):
        ends = range(min(len(piece), start + longest), start, -1)
        end = next((end for end in ends if piece[start:end] in ids), start + 1)
        parts.append(ids.get(piece[start:end], unknown))
        start = end
    return parts or [unknown]


def _means(table: np.ndarray, parts: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns the mean of the rows of each entry of `parts`, in the table's dtype."""
    rows: Any = [np.asarray(table[list(ids)], np.float64).mean(axis=0) for ids in parts]
    return np.stack(rows).astype(table.dtype)


def _coverage(parts: Sequence[Sequence[int]], unknown: int) -> Coverage:
    lost = sum(unknown in ids and ids != [unknown] for ids in parts)
    lost += max(sum(ids == [unknown] for ids in parts) - 1, 0)  # one is the unknown piece itself
    equal = sum(len(ids) == 1 and ids != [unknown] for ids in parts) + 1
    return Coverage(equal, len(parts) - equal - lost, lost)
