"""Other languages for tokenizers that tell the model of them by an id (M2M100, NLLB, mBART)."""

from transformer.data.tokenizer import Tokenizer
from transformer.errors import ConfigError


def with_languages(tokenizer: Tokenizer, source: str, target: str) -> Tokenizer:
    """Returns the tokenizer for other languages.

    Args:
      tokenizer: of an imported model.
      source: code of the source's language, spelled as the tokenizer's ("deu_Latn"; of M2M100 also "de"
        for "__de__"); one that it has not gets a new id, behind all others. Empty: the one it has.
      target: the same of the target's.

    Raises:
      ConfigError: if the tokenizer has no ids of languages.
    """
    special, pieces = tokenizer.special, tokenizer.source_pieces(range(tokenizer.source_vocab))
    signs = {special.pad, special.unk, special.end}
    around = {i for i in (*special.source_prefix, *special.source_suffix) if i not in signs}
    first = {i for i in (special.target_prefix or (special.start,)) if i not in signs}
    if len(around) != 1 or len(first) != 1:
        raise ConfigError(
            "config.init: source_language, target_language: the tokenizer of init.model has no ids of "
            "languages; leave them out"
        )
    (spoken,), (wanted,) = around, first

    def place(code: str, old: int) -> int:
        if not code:
            return old
        form = f"__{code}__" if pieces[old].startswith("__") and not code.startswith("__") else code
        if form not in pieces:
            pieces.append(form)
        found = pieces.index(form)
        if found < tokenizer.source_vocab and found not in special.hidden:
            raise ConfigError(
                f"config.init: '{code}' is a piece of text, and no language, of init.model's tokenizer; "
                f"languages are spelled like '{pieces[old]}'"
            )
        return found

    before, after = place(source, spoken), place(target, wanted)
    changed = special._replace(
        start=after if special.start == wanted else special.start,
        source_prefix=tuple(before if i == spoken else i for i in special.source_prefix),
        source_suffix=tuple(before if i == spoken else i for i in special.source_suffix),
        target_prefix=tuple(after for _ in special.target_prefix),
        hidden=tuple(sorted({*special.hidden, before, after})),
    )
    model, other = tokenizer.models
    return Tokenizer(model, None if model == other else other, (pieces, pieces), changed)
