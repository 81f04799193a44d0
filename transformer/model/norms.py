"""LayerNorm (Ba et al. 2016) and RMSNorm (Zhang and Sennrich 2019), with a gradient that keeps less."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from transformer.config import ModelConfig

Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]


class Norm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over D; `norm_type` rms: no mean and no bias."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        c = self.config
        shape, dtype = x_BTD.shape[-1:], jnp.dtype(c.param_dtype)
        scale_D = self.param("scale", nn.initializers.ones, shape, dtype)
        bias_D = self.param("bias", nn.initializers.zeros, shape, dtype) if c.norm_type == "layer" else None
        return normalize(x_BTD.astype(c.dtype), scale_D, bias_D, c.norm_epsilon)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(x_BTD: jax.Array, scale_D: jax.Array, bias_D: jax.Array | None, epsilon: float) -> jax.Array:
    """Returns `x` normalized over D, scaled and shifted, in the dtype of `x`; computed in float32.

    Args:
      x_BTD: the input, of any rank.
      scale_D: factors.
      bias_D: summands; None: the mean is not taken off either.
      epsilon: added to the variance, or to the mean square.
    """
    return _forward(x_BTD, scale_D, bias_D, epsilon)[0]


def _forward(
    x_BTD: jax.Array, scale_D: jax.Array, bias_D: jax.Array | None, epsilon: float
) -> tuple[jax.Array, Residuals]:
    x = x_BTD.astype(jnp.float32)
    if bias_D is not None:
        x -= jnp.mean(x, axis=-1, keepdims=True)
    inverse_BT1 = jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + epsilon)
    unit_BTD = x * inverse_BT1
    y_BTD = unit_BTD * scale_D
    if bias_D is not None:
        y_BTD += bias_D
    return y_BTD.astype(x_BTD.dtype), (unit_BTD.astype(x_BTD.dtype), inverse_BT1, scale_D, bias_D)


def _backward(
    epsilon: float, kept: Residuals, dy_BTD: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    unit_BTD, inverse_BT1, scale_D, bias_D = kept
    dy, unit = dy_BTD.astype(jnp.float32), unit_BTD.astype(jnp.float32)
    rows = tuple(range(dy.ndim - 1))
    dscale_D = jnp.sum(dy * unit, axis=rows).astype(scale_D.dtype)
    dunit = dy * scale_D
    dx = dunit - unit * jnp.mean(dunit * unit, axis=-1, keepdims=True)
    if bias_D is None:
        return (dx * inverse_BT1).astype(dy_BTD.dtype), dscale_D, None
    dx -= jnp.mean(dunit, axis=-1, keepdims=True)
    dbias_D = jnp.sum(dy, axis=rows).astype(bias_D.dtype)
    return (dx * inverse_BT1).astype(dy_BTD.dtype), dscale_D, dbias_D


normalize.defvjp(_forward, _backward)
