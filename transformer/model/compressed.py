"""Memory-compressed attention: one key for several positions in a row (Liu et al. 2018, section 4.2.3).

After the projections a convolution whose width is its stride makes one key of `compression` neighbouring
ones, and so with values: a query sees the whole row, for a fraction of the scores.
"""

import jax
import jax.numpy as jnp

from transformer.model.masks import segment_mask


def squeeze(x_BSGK: jax.Array, kernel_XGKK: jax.Array, seg_BS: jax.Array) -> jax.Array:
    """Returns [B, S / X, G, K]: of each X keys (or values) of a row one, by each head's own convolution.

    It belongs to the sentence of the first of them; of those of another sentence, or of padding, it has
    nothing. So padding after a sentence changes nothing, but sentences must not begin elsewhere than at a
    multiple of X.

    Args:
      x_BSGK: keys or values; the last group is filled up with zeros.
      kernel_XGKK: the weights of the X places, from one K to the other.
      seg_BS: segment numbers.
    """
    X = len(kernel_XGKK)
    x_BSXGK, seg_BSX = _grouped(x_BSGK, X), _grouped(seg_BS, X)
    own_BSX = seg_BSX == seg_BSX[..., :1]
    x_BSXGK = jnp.where(own_BSX[..., None, None], x_BSXGK, 0)
    return jnp.einsum("BSXGK,XGKJ->BSGJ", x_BSXGK, kernel_XGKK)


def mask(seg_BT: jax.Array, seg_BS: jax.Array, compression: int) -> jax.Array:
    """Returns mask_B1TS of queries and the keys that `squeeze` makes of those of the row."""
    return segment_mask(seg_BT, _grouped(seg_BS, compression)[..., 0])


def spread(weights_BHTS: jax.Array, compression: int, length: int) -> jax.Array:
    """Returns weights_BHTS of all positions: each key's weight, in equal parts, on those it is made of."""
    size_S = jnp.minimum(compression, length - jnp.arange(weights_BHTS.shape[-1]) * compression)
    return jnp.repeat(weights_BHTS / size_S, compression, axis=-1)[..., :length]


def _grouped(x_BS: jax.Array, X: int) -> jax.Array:
    """Returns [B, S / X, X, ...], the last group filled up with zeros."""
    B, S, *rest = x_BS.shape
    x_BS = jnp.pad(x_BS, [(0, 0), (0, -S % X)] + [(0, 0)] * len(rest))
    return x_BS.reshape(B, -1, X, *rest)
