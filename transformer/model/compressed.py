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
    x_BSXGK = _grouped(x_BSGK, len(kernel_XGKK))
    x_BSXGK = jnp.where(_own(seg_BS, len(kernel_XGKK))[..., None, None], x_BSXGK, 0)
    return jnp.einsum("BSXGK,XGKJ->BSGJ", x_BSXGK, kernel_XGKK)


def mask(seg_BT: jax.Array, seg_BS: jax.Array, compression: int) -> jax.Array:
    """Returns mask_B1TS of queries and the keys that `squeeze` makes of those of the row."""
    return segment_mask(seg_BT, _grouped(seg_BS, compression)[..., 0])


def spread(weights_BHTS: jax.Array, seg_BS: jax.Array, compression: int) -> jax.Array:
    """Returns weights_BHTS of all positions: each key's weight, in equal parts, on those it is made of."""
    own_BSX = _own(seg_BS, compression)
    share_BSX = own_BSX / own_BSX.sum(axis=-1, keepdims=True)
    weights_BHTSX = weights_BHTS[..., None] * share_BSX[:, None, None]
    return weights_BHTSX.reshape(*weights_BHTS.shape[:-1], -1)[..., : seg_BS.shape[1]]


def _own(seg_BS: jax.Array, X: int) -> jax.Array:
    """Returns own_BSX: which of each X positions belong to the sentence of the first of them."""
    seg_BSX = _grouped(seg_BS, X)
    return seg_BSX == seg_BSX[..., :1]


def _grouped(x_BS: jax.Array, X: int) -> jax.Array:
    """Returns [B, S / X, X, ...], the last group filled up with zeros."""
    B, S, *rest = x_BS.shape
    x_BS = jnp.pad(x_BS, [(0, 0), (0, -S % X)] + [(0, 0)] * len(rest))
    return x_BS.reshape(B, -1, X, *rest)
