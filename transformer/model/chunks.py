"""A few positions at a time: what grows with a position's work is held for a few, and computed again."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn


def in_chunks(
    module: nn.Module, run: Callable[..., jax.Array], xs: tuple[jax.Array, ...], size: int
) -> jax.Array:
    """Returns run(module, *xs), computed for `size` positions at a time, and again in the backward pass.

    Dropout draws other numbers than without chunks; all else is the same.

    Args:
      module: whose parameters are used.
      run: of arrays [B, T, ...] it makes one [B, T, ...], each position by itself.
      xs: the arrays; the last chunk is filled up with zeros.
      size: positions; 0: all at once.
    """
    B, T = xs[0].shape[:2]
    if not 0 < size < T:
        return run(module, *xs)

    def cut(x_BT: jax.Array) -> jax.Array:
        rest = x_BT.shape[2:]
        x_BT = jnp.pad(x_BT, [(0, 0), (0, -T % size)] + [(0, 0)] * len(rest))
        return x_BT.reshape(B, -1, size, *rest).swapaxes(0, 1)

    def body(module: nn.Module, carry: None, parts: tuple[jax.Array, ...]) -> tuple[None, jax.Array]:
        return carry, run(module, *parts)

    scan = nn.scan(
        nn.remat(body, prevent_cse=False),
        variable_broadcast="params",
        split_rngs={"params": False, "dropout": True},
    )
    y_NBT = scan(module, None, tuple(cut(x) for x in xs))[1].swapaxes(0, 1)
    return y_NBT.reshape(B, -1, *y_NBT.shape[3:])[:, :T]
