"""The numbers of a foreign folder in their places of a model directory."""

import dataclasses
import math
import shutil
from typing import Any

import jax

from transformer.exchange.foreign import words
from transformer.exchange.layout import all_names, joined, our_parameters
from transformer.exchange.reading import ForeignModel
from transformer.exchange.tensors import DTYPES
from transformer.io.arrays import write_params
from transformer.io.workdir import Workdir, write_json
from transformer.model.size import parameter_shapes
from transformer.model.transformer import Transformer


def place_model(found: ForeignModel, workdir: Workdir) -> int:
    """Writes the model directory, its configuration last; returns the number of parameters.

    Raises:
      CheckpointError: with all reasons why the tensors do not fit, or if they cannot be read or written.
    """
    config, tokenizer = found.config, found.tokenizer
    vocabularies = tokenizer.source_vocab, tokenizer.target_vocab
    shapes = parameter_shapes(Transformer(config.model, *vocabularies, tokenizer.special.start))
    params = our_parameters(found.tensors.read, _match(found, shapes), shapes)
    write_params(workdir.checkpoints, 0, params, {"imported": found.kind})
    tokenizer.save(workdir.tokenizer)
    origin = {name: getattr(found.foreign, name) for name in ("config", "generation", "tokenizer")}
    dtypes = {name: found.tensors.dtype(name) for name in found.tensors}
    about = {"family": found.kind, **origin, "tensors": dtypes, "tokenizer_digest": tokenizer.digest}
    if found.foreign.has("tokenizer.json"):
        shutil.copyfile(found.foreign.path("tokenizer.json"), workdir.imported_tokenizer)
    write_json(workdir.imported, about)
    workdir.seal(config, tokenizer.digest)
    workdir.save_config(config)
    return sum(x.size for x in jax.tree.leaves(shapes))


def _match(found: ForeignModel, shapes: Any) -> dict[str, list[str]]:
    """Returns {our path: their names}; what is missing, left over or of another size is refused."""
    foreign, tensors = found.foreign, found.tensors
    model = dataclasses.asdict(found.config.model)
    names = all_names(found.name, model, shapes)
    if "logits_bias" in names and names["logits_bias"][0] not in tensors:
        names["logits_bias"] = []  # zeros, as for their classes
    for path, wanted in jax.tree_util.tree_leaves_with_path(shapes):
        parts = names[joined(path)]
        for theirs in (name for name in parts if name in tensors):
            if tensors.dtype(theirs) not in DTYPES:
                foreign.refuse(f"{theirs}: dtype {tensors.dtype(theirs)} is not one of {', '.join(DTYPES)}")
            if math.prod(tensors.shape(theirs)) * len(parts) != wanted.size:
                shape = list(tensors.shape(theirs))
                foreign.refuse(f"{theirs}: has shape {shape}, the settings say {list(wanted.shape)}")
    known = {name for listed in names.values() for name in listed}
    if missing := known - set(tensors):
        foreign.refuse(f"tensors that are missing: {words(missing)}")
    left = {name for name in tensors if name not in known and not found.derived(name, model)}
    if left:
        foreign.refuse(f"tensors that our model has no place for: {words(left)}")
    foreign.check()
    return names
