"""Position signals added to the embeddings (paper, section 3.5)."""

import jax
import jax.numpy as jnp


def sinusoidal(pos_BT: jax.Array, d_model: int) -> jax.Array:
    """Returns signal_BTD, float32, in the paper's form: sine and cosine interleaved.

    ``PE(pos, 2i) = sin(pos / 10000**(2i / d_model))`` and ``PE(pos, 2i+1) = cos(...)`` of the same
    angle.
    """
    rate_D = 10000.0 ** (-jnp.arange(0, d_model, 2, dtype=jnp.float32) / d_model)
    angle = pos_BT[..., None].astype(jnp.float32) * rate_D
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(*pos_BT.shape, d_model)


def sinusoidal_halves(pos_BT: jax.Array, d_model: int) -> jax.Array:
    """Returns signal_BTD, float32, in tensor2tensor's form: all sines, then all cosines.

    The rates run geometrically from 1 to 1/10000, both ends included.
    """
    half = d_model // 2
    rate_D = 10000.0 ** (-jnp.arange(half, dtype=jnp.float32) / max(half - 1, 1))
    angle = pos_BT[..., None].astype(jnp.float32) * rate_D
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


FIXED = {"sinusoidal": sinusoidal, "sinusoidal_halves": sinusoidal_halves}
