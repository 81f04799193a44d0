"""Optimizers by name (paper, section 5.3, and later ones), on optax."""

from typing import Any

import jax
import optax

from transformer.config import ModelConfig, OptimConfig
from transformer.training.schedule import learning_rate


def matrices(params: Any) -> Any:
    """Returns a tree of bools: which parameters weight decay applies to: not biases, norms, scores' own."""
    names = ("kernel", "embedding", "compress_key", "compress_value", "lora_a", "lora_b")
    return jax.tree_util.tree_map_with_path(lambda path, x: path[-1].key in names, params)


def make_optimizer(model: ModelConfig, optim: OptimConfig, num_steps: int) -> optax.GradientTransformation:
    """Returns the update rule: clipping by global norm if asked, then the named optimizer."""
    rate = learning_rate(model, optim, num_steps)
    betas = dict(b1=optim.beta1, b2=optim.beta2)
    if optim.name == "adam":
        rule = optax.adam(rate, **betas, eps=optim.epsilon)
    elif optim.name == "adamw":
        rule = optax.adamw(rate, **betas, eps=optim.epsilon, weight_decay=optim.weight_decay, mask=matrices)
    elif optim.name == "lion":
        rule = optax.lion(rate, **betas, weight_decay=optim.weight_decay, mask=matrices)
    else:
        rule = optax.adafactor(rate)
    # The state has one form with and without clipping, so that a run may be continued with either.
    clip = optax.clip_by_global_norm(optim.clip_norm) if optim.clip_norm else optax.identity()
    return optax.chain(clip, rule)
