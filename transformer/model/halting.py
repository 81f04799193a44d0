"""Adaptive computation time: how often a layer recurs at each position (Graves 2016)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from transformer.config import ModelConfig

_EPSILON = 0.01  # a position halts when its probabilities sum to 1 less this


class HaltingUnit(nn.Module):
    """The probability that a position halts now: sigmoid(x w + b), in float32."""

    config: ModelConfig

    def setup(self) -> None:
        dtype = jnp.dtype(self.config.param_dtype)
        init = nn.initializers.normal(self.config.d_model**-0.5)
        self.kernel = self.param("kernel", init, (self.config.d_model,), dtype)
        # A probability of 0.73 in the beginning: two steps, from which training goes up or down.
        self.bias = self.param("bias", nn.initializers.ones, (), dtype)

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """Returns p_BT."""
        return jax.nn.sigmoid(x_BTD.astype(jnp.float32) @ self.kernel.astype(jnp.float32) + self.bias)


class Halting(NamedTuple):
    """What has been computed of each position.

    Attributes:
      state_BTD: as its last step left it; a position that has halted keeps it.
      mean_BTD: the sum of its states so far, each weighted by its halting probability.
      total_BT: the sum of these weights, 1 once it has halted.
      running_BT: whether it has not.
      steps_BT: N, how many steps it took.
      remainder_BT: R, the weight of its last step, 0 until then.
    """

    state_BTD: jax.Array
    mean_BTD: jax.Array
    total_BT: jax.Array
    running_BT: jax.Array
    steps_BT: jax.Array
    remainder_BT: jax.Array


def start(x_BTD: jax.Array) -> Halting:
    """Returns the positions before the first step."""
    zero_BT = jnp.zeros(x_BTD.shape[:-1], jnp.float32)
    return Halting(x_BTD, jnp.zeros_like(x_BTD), zero_BT, zero_BT == 0, zero_BT, zero_BT)


def advance(halting: Halting, state_BTD: jax.Array, p_BT: jax.Array, last: bool) -> Halting:
    """Returns the positions after a step.

    Weights are the probabilities, but for the last step of a position, which has what is left to 1
    (Graves 2016, equations 5 to 7, 12 and 13).

    Args:
      halting: before the step.
      state_BTD: what the layer made of all positions.
      p_BT: the probability of halting after this step.
      last: whether there is no further step.
    """
    running_BT = halting.running_BT
    ends_BT = running_BT & ((halting.total_BT + p_BT >= 1 - _EPSILON) | last)
    left_BT = 1 - halting.total_BT
    weight_BT = jnp.where(ends_BT, left_BT, p_BT) * running_BT
    return Halting(
        state_BTD=jnp.where(running_BT[..., None], state_BTD, halting.state_BTD),
        mean_BTD=halting.mean_BTD + weight_BT[..., None].astype(state_BTD.dtype) * state_BTD,
        total_BT=halting.total_BT + weight_BT,
        running_BT=running_BT & ~ends_BT,
        steps_BT=halting.steps_BT + running_BT,
        remainder_BT=jnp.where(ends_BT, left_BT, halting.remainder_BT),
    )
