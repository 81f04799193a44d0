"""From a folder of transformers to one of ours."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from transformer.config import Config, from_config_dict
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError, did_you_mean
from transformer.exchange.families import FAMILIES, Family
from transformer.exchange.foreign import Foreign, words
from transformer.exchange.layout import joined, our_parameters
from transformer.exchange.tensors import Tensors
from transformer.exchange.vocabularies import TOKENIZERS
from transformer.io.checkpoint import Checkpoints
from transformer.io.workdir import Workdir, write_json
from transformer.model.size import parameter_shapes
from transformer.model.transformer import TABLES, Transformer

# Our rules of the search by their early_stopping.
EARLY = {"False": "huggingface", "True": "huggingface_early", "never": "huggingface_never"}


def import_hf(
    source: str | Path,
    target: str | Path,
    languages: tuple[str, str] = ("", ""),
    note: Callable[[str], None] = print,
) -> None:
    """Makes a model directory of a folder that `save_pretrained` wrote.

    Args:
      source: that folder, with config.json, model.safetensors and the tokenizer's files.
      target: the new folder; it gets what a run has, and `imported.json`: where it came from.
      languages: codes of source and target, for models that need them.
      note: takes a line for the user.

    Raises:
      CheckpointError: if it cannot be read, or with all reasons why our model cannot be that one.
    """
    workdir = Workdir(target)
    if workdir.config_file.exists() or workdir.checkpoints.exists():
        raise CheckpointError(f"{target}: holds a run already; choose another --to, or remove it")
    foreign = Foreign(Path(source))
    kind = str(foreign.config.get("model_type"))
    if kind not in FAMILIES:
        raise CheckpointError(
            f"{source}: model_type '{kind}' is not one that can be imported{did_you_mean(kind, FAMILIES)}"
        )
    family, tensors = FAMILIES[kind], Tensors(foreign)
    model = family.model(foreign, _own_output(family, tensors))
    foreign.check()
    tables = TABLES[model["tied_embeddings"]]
    rows = [
        _rows(foreign, tensors, family.name(f"{table}/embedding", model))
        for table in (tables.source, tables.target)
    ]
    foreign.check()
    tokenizer = TOKENIZERS[kind](foreign, (rows[0], rows[1]), languages)
    config = _config(foreign, model, tokenizer)
    module = Transformer(
        config.model, tokenizer.source_vocab, tokenizer.target_vocab, tokenizer.special.start
    )
    names = _match(foreign, family, model, tensors, module)
    params = our_parameters(tensors.read, names, parameter_shapes(module))
    tokenizer.save(workdir.tokenizer)
    written = Checkpoints(workdir.checkpoints, config.run)
    written.save(0, {"params": params}, {"imported": kind})
    written.close()
    origin = {name: getattr(foreign, name) for name in ("config", "generation", "tokenizer")}
    dtypes = {name: tensors.dtype(name) for name in tensors}
    about = {"family": kind, **origin, "tensors": dtypes, "tokenizer_digest": tokenizer.digest}
    if foreign.has("tokenizer.json"):
        shutil.copyfile(foreign.folder / "tokenizer.json", workdir.imported_tokenizer)
    write_json(workdir.imported, about)
    workdir.seal(config, tokenizer.digest)
    workdir.save_config(config)
    count = sum(x.size for x in jax.tree.leaves(params))
    note(f"{target}: {kind}, {count:,} parameters, {tokenizer.source_vocab:,} source pieces")


def _own_output(family: Family, tensors: Tensors) -> bool:
    """Returns whether there is an output table that is no copy of the shared one."""
    output, shared = (family.name(f"{table}/embedding", {}) for table in ("output", "shared"))
    if output not in tensors or shared not in tensors:
        return output in tensors
    return not np.array_equal(tensors.read(output), tensors.read(shared))


def _rows(foreign: Foreign, tensors: Tensors, name: str) -> int:
    """Returns the rows of a table, as many as its file really holds."""
    if name not in tensors or len(tensors.shape(name)) != 2:
        foreign.refuse(f"{name}: expected a table of rows and columns")
        return 1
    return tensors.shape(name)[0]


def _match(
    foreign: Foreign, family: Family, model: dict[str, Any], tensors: Tensors, module: Transformer
) -> dict[str, list[str]]:
    """Returns {our path: their names}; what is missing, left over or of another size is refused."""
    names = family.names(model, module)
    for path, wanted in jax.tree_util.tree_leaves_with_path(parameter_shapes(module)):
        parts = names[joined(path)]
        for theirs in parts:
            if theirs in tensors and math.prod(tensors.shape(theirs)) * len(parts) != wanted.size:
                shape = list(tensors.shape(theirs))
                foreign.refuse(f"{theirs}: has shape {shape}, the settings say {list(wanted.shape)}")
    known = {name for listed in names.values() for name in listed}
    if missing := known - set(tensors):
        foreign.refuse(f"tensors that are missing: {words(missing)}")
    left = {name for name in tensors if name not in known and not family.derived(name, model)}
    if left:
        foreign.refuse(f"tensors that our model has no place for: {words(left)}")
    foreign.check()
    return names


def _config(foreign: Foreign, model: dict[str, Any], tokenizer: Tokenizer) -> Config:
    """Returns the configuration; faults of it are reasons, too."""
    g = foreign.generation
    decode = dict(
        beam_size=g.get("num_beams") or 1,
        length_penalty=1.0 if g.get("length_penalty") is None else g["length_penalty"],
        rules=EARLY.get(str(g.get("early_stopping") or False), "huggingface"),
    )
    joint = model["tied_embeddings"] in ("all", "inputs")
    sizes = dict(vocab_size=tokenizer.target_vocab, joint=joint)
    row = max(model["max_length"], Config().data.batch_tokens)
    try:
        return from_config_dict(
            {"model": model, "tokenizer": sizes, "decode": decode, "data": {"batch_tokens": row}}
        )
    except ConfigError as error:
        for line in str(error).splitlines():
            foreign.refuse(line)
        foreign.check()
        raise
