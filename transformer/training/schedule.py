"""Learning rate by step (paper, equation 3, and the field's others)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from transformer.config import ModelConfig, OptimConfig

Shape = Callable[[jax.Array, OptimConfig, int], jax.Array]


def _progress(step: jax.Array, optim: OptimConfig, num_steps: int) -> jax.Array:
    """Returns the share of the steps after warm-up that is done, 0 to 1."""
    return jnp.clip((step - optim.warmup_steps) / max(num_steps - optim.warmup_steps, 1), 0.0, 1.0)


def _inverse_sqrt(step: jax.Array, optim: OptimConfig, num_steps: int) -> jax.Array:
    return jnp.sqrt(optim.warmup_steps / jnp.maximum(step, optim.warmup_steps))


def _cosine(step: jax.Array, optim: OptimConfig, num_steps: int) -> jax.Array:
    half = 0.5 * (1 + jnp.cos(jnp.pi * _progress(step, optim, num_steps)))
    return optim.end_ratio + (1 - optim.end_ratio) * half


def _linear(step: jax.Array, optim: OptimConfig, num_steps: int) -> jax.Array:
    return 1 - (1 - optim.end_ratio) * _progress(step, optim, num_steps)


def _wsd(step: jax.Array, optim: OptimConfig, num_steps: int) -> jax.Array:
    """Warm-up, stable, decay: linear to the end over the last `decay_fraction` of the run."""
    last = max(optim.decay_fraction * num_steps, 1)
    return 1 - (1 - optim.end_ratio) * jnp.clip((step - (num_steps - last)) / last, 0.0, 1.0)


def _constant(step: jax.Array, optim: OptimConfig, num_steps: int) -> jax.Array:
    return jnp.ones_like(step)


SHAPES: dict[str, Shape] = {
    "inverse_sqrt": _inverse_sqrt,
    "cosine": _cosine,
    "linear": _linear,
    "wsd": _wsd,
    "constant": _constant,
}


def learning_rate(
    model: ModelConfig, optim: OptimConfig, num_steps: int
) -> Callable[[jax.Array | int], jax.Array]:
    """Returns the function from the number of finished steps to the next step's learning rate.

    Every schedule rises linearly over `warmup_steps` to its peak. With `inverse_sqrt` and the
    peak left at 0 it is the paper's
    ``d_model**-0.5 * min(step**-0.5, step * warmup_steps**-1.5)``, steps counted from 1.
    """
    peak = optim.learning_rate or (model.d_model * optim.warmup_steps) ** -0.5
    shape = SHAPES[optim.schedule]

    def rate(done: jax.Array | int) -> jax.Array:
        step = jnp.asarray(done, jnp.float32) + 1
        return peak * jnp.minimum(step / optim.warmup_steps, 1.0) * shape(step, optim, num_steps)

    return rate
