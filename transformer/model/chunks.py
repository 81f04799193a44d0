"""A few positions at a time: what grows with a position's work is held for a few, and computed again."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from transformer.axes import sequence_shards, shard


def in_chunks(
    module: nn.Module, run: Callable[..., jax.Array], xs: Mapping[str, jax.Array], size: int
) -> jax.Array:
    """Returns run(module, *xs), computed for `size` positions at a time, and again in the backward pass.

    Dropout draws other numbers than without chunks; all else is the same. Where a mesh divides the positions
    each device takes its share of `size` from its own.

    Args:
      module: whose parameters are used.
      run: of arrays [B, T, ...] it makes one [B, T, ...], each position by itself.
      xs: the arrays by their letters, "BT..." or "BS..."; the last chunk is filled up with zeros.
      size: positions; 0: all at once.
    """
    letters, first = next(iter(xs.items()))
    (B, T), P = first.shape[:2], sequence_shards(letters, first.shape)
    own, size = T // P, -(-size // P)
    if not 0 < size < own:
        return run(module, *xs.values())

    def cut(letters: str, x_BT: jax.Array) -> jax.Array:
        x_BPT = x_BT.reshape(B, P, own, *x_BT.shape[2:])
        x_BPT = jnp.pad(x_BPT, [(0, -own % size if axis == 2 else 0) for axis in range(x_BPT.ndim)])
        x_NBPT = jnp.moveaxis(x_BPT.reshape(B, P, -1, size, *x_BT.shape[2:]), 2, 0)
        return shard(x_NBPT.reshape(-1, B, P * size, *x_BT.shape[2:]), "_" + letters)

    def body(module: nn.Module, carry: None, parts: tuple[jax.Array, ...]) -> tuple[None, jax.Array]:
        return carry, run(module, *parts)

    scan = nn.scan(
        nn.remat(body, prevent_cse=False),
        variable_broadcast="params",
        split_rngs={"params": False, "dropout": True},
    )
    y_NBT = scan(module, None, tuple(cut(*x) for x in xs.items()))[1]
    rest = y_NBT.shape[3:]
    y_BPT = jnp.moveaxis(y_NBT.reshape(-1, B, P, size, *rest), 0, 2).reshape(B, P, -1, *rest)
    return shard(y_BPT[:, :, :own].reshape(B, T, *rest), letters)
