"""The same function with other parameters: what a family always has, a model of ours may get."""

import dataclasses
from typing import Any

import jax
import numpy as np

from transformer.axes import param_letters
from transformer.config import ModelConfig
from transformer.exchange.layout import joined
from transformer.model.size import parameter_shapes
from transformer.model.transformer import Transformer
from transformer.validation import USES

_BIASES = ("attention_bias", "feed_forward_bias", "logits_bias")
# What changes neither what is computed nor the parameters, and what only training reads.
_OF_NO_MATTER = {
    "preset",
    "dropout_rate",
    "attention_dropout_rate",
    "activation_dropout_rate",
    "attention_implementation",
    "dtype",
    "param_dtype",
    "remat",
    "chunk_length",
    "scan_layers",
}


def refitted(model: ModelConfig, wanted: ModelConfig) -> ModelConfig:
    """Returns the configuration nearest to `wanted` that `model` can be written as without any loss.

    Biases that it has not are zeros there. Sines and cosines in turn become all sines, then all cosines:
    that is d_model's axis in another order everywhere.
    """
    biases = {name: getattr(model, name) or getattr(wanted, name) for name in _BIASES}
    split = model.positions == "sinusoidal" and wanted.positions == "sinusoidal_split"
    positions = wanted.positions if split else model.positions
    return dataclasses.replace(model, **biases, positions=positions, scan_layers=False)


def refit(params: Any, module: Transformer, model: ModelConfig) -> Any:
    """Returns the parameters of `module`, whose layers are not scanned, as `refitted` wants them."""
    shapes = parameter_shapes(Transformer(model, module.source_vocab, module.target_vocab))
    found = {joined(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    order = np.arange(model.d_model)
    if module.config.positions != model.positions:
        order = np.concatenate([order[0::2], order[1::2]])

    def one(path: tuple[Any, ...], wanted: jax.ShapeDtypeStruct) -> np.ndarray:
        ours = joined(path)
        if ours not in found:
            return np.zeros(wanted.shape, wanted.dtype)
        array = np.asarray(found[ours])
        if module.config.positions != model.positions:
            for axis, letter in enumerate(param_letters(ours, array.ndim)):
                if letter == "D" or (letter == "_" and array.ndim == 1):  # of norms and of biases
                    array = np.take(array, order, axis)
        return array

    return jax.tree_util.tree_map_with_path(one, shapes)


def differences(ours: ModelConfig, theirs: ModelConfig) -> list[str]:
    """Returns a clause for each field in which two configurations are other models."""
    left_out = set(_OF_NO_MATTER) | {"head_size", "num_kv_heads"}
    for key, (choice, uses) in USES.items():  # what a choice has no use for differs with the choice alone
        if choice.startswith("model.") and getattr(ours, choice.removeprefix("model.")) not in uses:
            left_out.add(key.removeprefix("model."))
    pairs = {
        field.name: (getattr(ours, field.name), getattr(theirs, field.name))
        for field in dataclasses.fields(ModelConfig)
        if field.name not in left_out
    }
    pairs["head_size"] = ours.key_size, theirs.key_size
    pairs["num_kv_heads"] = ours.kv_heads, theirs.kv_heads
    return [f"config.model.{name} is {a!r}, not {b!r}" for name, (a, b) in pairs.items() if a != b]
