"""Dropout (paper, section 5.4) from eight random bits a value."""

import jax
import jax.numpy as jnp
from flax import linen as nn


def keep_mask(key: jax.Array, shape: tuple[int, ...], rate: float) -> jax.Array:
    """Returns a bool array, each value false with probability `rate`, exact to 1/256.

    JAX hashes a 64-bit counter for every value drawn, however few of its bits are used, so one
    32-bit word here decides four neighbours on the last axis: dropout then costs a quarter.
    """
    words = jax.random.bits(key, (*shape[:-1], -(-shape[-1] // 4)), jnp.uint32)
    octets = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(*shape[:-1], -1)
    return octets[..., : shape[-1]] >= round(rate * 256)


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Returns `x` with a share `rate` of its values set to 0 and the others scaled to keep the mean.

    The scale belongs to the rate that `keep_mask` really has, so the mean is kept exactly.
    """
    scale = 256 / (256 - round(rate * 256))
    return jnp.where(keep_mask(key, x.shape, rate), x * scale, 0).astype(x.dtype)


class Dropout(nn.Module):
    """`dropout` with the module's "dropout" random stream; the identity when deterministic or rate 0."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        if deterministic or self.rate == 0:
            return x
        return dropout(x, self.rate, self.make_rng("dropout"))
