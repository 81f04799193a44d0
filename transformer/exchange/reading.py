"""A foreign folder as one of our models, all but its numbers.

Nothing here imports JAX: what strangers wrote is refused before it is loaded, in little time and memory.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from transformer.config import Config
from transformer.config_mapping import from_config_dict
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError, did_you_mean
from transformer.exchange.families import FAMILIES, Family
from transformer.exchange.foreign import Foreign, shown
from transformer.exchange.tensors import Tensors, folder_tensors

# Our rules of the search by their early_stopping.
EARLY = {"False": "huggingface", "True": "huggingface_early", "never": "huggingface_never"}


class ForeignModel(NamedTuple):
    """What a folder holds.

    Attributes:
      foreign: its settings.
      kind: of its model: a key of `FAMILIES`, "marian-nmt" or "fairseq".
      name, derived: see `Family`.
      tensors: its numbers, not read yet.
      tokenizer: ours.
      config: ours.
    """

    foreign: Foreign
    kind: str
    name: Callable[[str, Mapping[str, Any]], str]
    derived: Callable[[str, Mapping[str, Any]], bool]
    tensors: Tensors
    tokenizer: Tokenizer
    config: Config


def read_model(
    source: Path, languages: tuple[str, str] = ("", ""), allow_pickle: bool = False
) -> ForeignModel:
    """Reads settings, headers of tensors, and the tokenizer.

    Args: as for `import_hf`.

    Raises:
      CheckpointError: if it cannot be read, or with all reasons why our model cannot be that one.
    """
    foreign = Foreign(source)
    kind = str(foreign.config.get("model_type"))[:40]
    if kind not in FAMILIES:
        raise CheckpointError(
            f"{source}: model_type '{kind}' is not one that can be imported{did_you_mean(kind, FAMILIES)}"
        )
    family = FAMILIES[kind]
    tensors = folder_tensors(foreign, family.prefix, allow_pickle)
    model = family.model(foreign, _own_output(family, tensors))
    foreign.check()
    joint = model["tied_embeddings"] in ("all", "inputs")
    tables = ("shared", "shared") if joint else ("source", "target")
    if joint:
        tensors = _with_shared(family, tensors, model)
    rows = [_rows(foreign, tensors, family.name(f"{table}/embedding", model)) for table in tables]
    _check_copies(foreign, family, tensors, model, family.name(f"{tables[1]}/embedding", model))
    foreign.check()
    tokenizer = family.tokenizer(foreign, (rows[0], rows[1]), languages)
    config = configuration(foreign, model, _search(foreign), tokenizer)
    return ForeignModel(foreign, kind, family.name, family.derived, tensors, tokenizer, config)


def _own_output(family: Family, tensors: Tensors) -> bool:
    """Returns whether there is an output table that is no copy of the shared one."""
    output, shared = (family.name(f"{table}/embedding", {}) for table in ("output", "shared"))
    if output not in tensors or shared not in tensors:
        return output in tensors
    return not tensors.same(output, shared)


def _with_shared(family: Family, tensors: Tensors, model: Mapping[str, Any]) -> Tensors:
    """Returns the tensors with the shared table under its name: files may have it under a copy's alone."""
    shared = family.name("shared/embedding", model)
    for name in tensors:
        is_copy = name.endswith("embed_tokens.weight") and family.derived(name, model)
        if is_copy and shared not in tensors:
            return tensors.renamed(name, shared)
    return tensors


def _rows(foreign: Foreign, tensors: Tensors, name: str) -> int:
    """Returns the rows of a table, as many as its file really holds."""
    if name not in tensors or len(tensors.shape(name)) != 2:
        foreign.refuse(f"{name}: expected a table of rows and columns")
        return 1
    return tensors.shape(name)[0]


def _check_copies(
    foreign: Foreign, family: Family, tensors: Tensors, model: Mapping[str, Any], table: str
) -> None:
    """Refuses tables that are called copies of another and hold other numbers: transformers ties no such."""
    for name in tensors:
        is_copy = name.endswith(("embed_tokens.weight", "lm_head.weight")) and family.derived(name, model)
        if is_copy and table in tensors and not tensors.same(name, table):
            foreign.refuse(f"{name}: the settings tie it to {table}, whose numbers are others")


def _search(foreign: Foreign) -> dict[str, Any]:
    """Returns fields of `DecodeConfig`."""
    g = foreign.generation
    for key in ("num_beams", "length_penalty", "early_stopping", "min_length", "no_repeat_ngram_size"):
        if not isinstance(g.get(key), int | float | str | None):
            foreign.refuse(f"{key}: expected one value, got {shown(g[key])}")
    foreign.check()
    # New tokens are counted without the decoder's start, and their number overrides the other.
    new = foreign.id("min_new_tokens", 0)
    longest = foreign.id("max_new_tokens", 0) or max(foreign.id("max_length", 0) - 1, 0)
    return dict(
        beam_size=g.get("num_beams") or 1,
        length_penalty=1.0 if g.get("length_penalty") is None else g["length_penalty"],
        length_limit=longest,
        min_length=new + 1 if new else g.get("min_length") or 0,
        no_repeat_ngram_size=g.get("no_repeat_ngram_size") or 0,
        rules=EARLY.get(str(g.get("early_stopping") or False), "huggingface"),
    )


def configuration(
    foreign: Foreign, model: dict[str, Any], decode: dict[str, Any], tokenizer: Tokenizer
) -> Config:
    """Returns the configuration; faults of it are reasons, too.

    Args:
      foreign: takes reasons.
      model, decode: fields of `ModelConfig` and `DecodeConfig`.
      tokenizer: ours.
    """
    joint = model["tied_embeddings"] in ("all", "inputs")
    sizes = dict(vocab_size=tokenizer.target_vocab, joint=joint)
    row = max(model["max_length"], Config().data.batch_tokens)
    try:
        return from_config_dict(
            {"model": model, "tokenizer": sizes, "decode": decode, "data": {"batch_tokens": row}}
        )
    except ConfigError as error:
        for line in str(error).splitlines():
            foreign.refuse(line[:300])
        foreign.check()
        raise
