"""Low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

An adapter of a matrix W is a pair A, B of rank r: the model computes with W + alpha / r * A B, and
only A and B are trained. It is added to the parameters before they reach the model, which knows
nothing of it: a product of d x r and r x d a matrix and step, and no other attention, cache or search.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from transformer.axes import factor_letters, param_letters, shard
from transformer.config import LoraConfig
from transformer.errors import ConfigError
from transformer.paths import by_path, chosen, nested

_MATRICES = ("kernel", "embedding")


def new_adapters(key: jax.Array, params: Any, lora: LoraConfig) -> Any:
    """Returns the adapters of the matrices that `lora.targets` chooses.

    A (`lora_a`) is drawn from a normal distribution, B (`lora_b`) is zero: the model begins unchanged.

    Args:
      key: of the random numbers.
      params: the model's parameters, or their shapes.
      lora: rank and targets.

    Returns:
      Nested dicts: in the place of each chosen matrix lora_a [inputs, r] and lora_b [r, outputs], of its
      dtype; with heads, H and K are two axes, and scanned layers have an axis L in front.

    Raises:
      ConfigError: if the expression chooses nothing, or something that is no matrix.
    """
    leaves = by_path(params)
    adapters = {}
    for i, path in enumerate(sorted(chosen(lora.targets, leaves, "lora.targets"))):
        x = leaves[path]
        if path.rpartition("/")[2] not in _MATRICES:
            raise ConfigError(
                f"config.lora.targets: {lora.targets!r} is found in {path}, which is no matrix of a "
                "projection or embedding; end it with 'kernel$' or 'embedding$'"
            )
        sizes = dict(zip(param_letters(path, x.ndim), x.shape, strict=True))
        stack, inputs, outputs = factor_letters(param_letters(path, x.ndim))
        before, into, out = ([sizes[letter] for letter in part] for part in (stack, inputs, outputs))
        a = jax.random.normal(jax.random.fold_in(key, i), (*before, *into, lora.rank), x.dtype)
        adapters[f"{path}/lora_a"] = a * math.prod(into) ** -0.5
        adapters[f"{path}/lora_b"] = jnp.zeros((*before, lora.rank, *out), x.dtype)
    return nested(adapters)


def merged(params: Any, adapters: Any, lora: LoraConfig) -> Any:
    """Returns the model's parameters with `adapters` added, W + alpha / r * A B."""
    leaves, factors = by_path(params), by_path(adapters)
    for name, a in factors.items():
        path, _, factor = name.rpartition("/")
        if factor == "lora_a":
            letters = param_letters(path, leaves[path].ndim)
            stack, inputs, outputs = factor_letters(letters)
            product = jnp.einsum(
                f"{stack}{inputs}r,{stack}r{outputs}->{letters}", a, factors[f"{path}/lora_b"]
            )
            leaves[path] = leaves[path] + shard(product * (lora.alpha / lora.rank), letters)
    return nested(leaves)
