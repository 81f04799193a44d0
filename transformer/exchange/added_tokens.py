"""Tokens that a tokenizer of transformers got beside its vocabulary: languages, sentinels, users' own."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from transformer.exchange.foreign import Foreign, shown, words

SIGNS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


class Added(NamedTuple):
    """One of them.

    Attributes:
      id: its own.
      special: whether it is no text: left out when ids become text.
    """

    id: int
    special: bool


def added_tokens(f: Foreign) -> dict[str, Added]:
    """Returns the tokens that tokenizer.json, tokenizer_config.json or added_tokens.json adds.

    Each of them is from the first of these files that names it. Tokens whose ids are beyond the model's
    tables are there, too.
    """
    found: dict[str, Added] = {}
    named = _named_special(f)
    for token, i in f.optional_json("added_tokens.json").items():
        found |= _added(f, "added_tokens.json", token, i, token in named)
    decoder = f.tokenizer.get("added_tokens_decoder")
    for i, entry in decoder.items() if isinstance(decoder, dict) else ():
        number = int(i) if i.isascii() and i.isdigit() and len(i) < 10 else i
        found |= _entry(f, "tokenizer_config.json: added_tokens_decoder", entry, number)
    listed = f.optional_json("tokenizer.json").get("added_tokens")
    for entry in listed if isinstance(listed, list) else ():
        found |= _entry(f, "tokenizer.json", entry, entry.get("id") if isinstance(entry, dict) else None)
    return found


def _entry(f: Foreign, file: str, entry: Any, i: Any) -> dict[str, Added]:
    if not isinstance(entry, dict):
        f.refuse(f"{file}: token {shown(entry)} cannot be read")
        return {}
    return _added(f, file, entry.get("content"), i, entry.get("special", False))


def _added(f: Foreign, file: str, token: Any, i: Any, special: Any) -> dict[str, Added]:
    sound = isinstance(token, str) and isinstance(special, bool)
    if not sound or isinstance(i, bool) or not isinstance(i, int) or i < 0:
        f.refuse(f"{file}: token {shown(token)} has id {shown(i)}, expected a number")
        return {}
    return {token: Added(i, special)}


def _named_special(f: Foreign) -> set[str]:
    """Returns the tokens that have a role, or are in a list of special ones."""
    roles = {**f.optional_json("special_tokens_map.json"), **f.tokenizer}
    names = [value for key, value in roles.items() if key.endswith("_token")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        names += value if isinstance(value := roles.get(key), list) else []
    return set(spelled(names))


def spelled(tokens: Iterable[Any]) -> list[str]:
    """Returns tokens as text, which files also write as objects."""
    contents = [token.get("content") if isinstance(token, dict) else token for token in tokens]
    return [content for content in contents if isinstance(content, str)]


def with_added(
    f: Foreign,
    ids: Mapping[str, Any],
    guessed: Mapping[str, int],
    rows: int,
    languages: bool = False,
) -> tuple[dict[str, Any], list[int]]:
    """Returns (ids of pieces, of guessed and of added tokens; ids that are no text of the latter two).

    Text is not cut at added tokens here, as it is there: those that may be in a text are told.

    Args:
      f: the folder.
      ids: of pieces.
      guessed: ids of tokens that a family has behind them, unless an added token has the id.
      rows: of the table; added tokens beyond it are left out.
      languages: whether special tokens that are added stand for languages.
    """
    added = added_tokens(f)
    own = {token: a for token, a in added.items() if a.id < rows}
    taken = {a.id for a in own.values()}
    rest = {token: i for token, i in guessed.items() if token not in own and i not in taken}
    known = {*ids, *guessed, *SIGNS}
    if users := [token for token, a in own.items() if token not in known and not (languages and a.special)]:
        f.tell(
            f"added tokens {words(users)}: text is not cut at them here, as it is by transformers; where it "
            "holds them it is read otherwise"
        )
    if lost := [token for token in added if token not in own and token not in known]:
        f.tell(f"added tokens {words(lost)}: have no rows in the model's table; left out")
    hidden = [*rest.values(), *(a.id for a in own.values() if a.special)]
    return {**ids, **rest, **{token: a.id for token, a in own.items()}}, hidden
