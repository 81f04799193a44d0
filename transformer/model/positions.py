"""Signals of positions added to embeddings (paper, section 3.5), biases and vectors of distances, turns."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def sinusoidal(pos_BT: jax.Array, d_model: int) -> jax.Array:
    """Returns signal_BTD, float32, in the paper's form: sine and cosine interleaved.

    ``PE(pos, 2i) = sin(pos / 10000**(2i / d_model))`` and ``PE(pos, 2i+1) = cos(...)`` of the same
    angle.
    """
    rate_D = 10000.0 ** (-jnp.arange(0, d_model, 2, dtype=jnp.float32) / d_model)
    angle = pos_BT[..., None].astype(jnp.float32) * rate_D
    return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(*pos_BT.shape, d_model)


def sinusoidal_split(pos_BT: jax.Array, d_model: int) -> jax.Array:
    """Returns signal_BTD, float32, in Marian's form: the paper's sines, then its cosines."""
    return (
        sinusoidal(pos_BT, d_model)
        .reshape(*pos_BT.shape, -1, 2)
        .swapaxes(-1, -2)
        .reshape(*pos_BT.shape, d_model)
    )


def sinusoidal_halves(pos_BT: jax.Array, d_model: int) -> jax.Array:
    """Returns signal_BTD, float32, in tensor2tensor's form: all sines, then all cosines.

    The rates run geometrically from 1 to 1/10000, both ends included.
    """
    half = d_model // 2
    rate_D = 10000.0 ** (-jnp.arange(half, dtype=jnp.float32) / max(half - 1, 1))
    angle = pos_BT[..., None].astype(jnp.float32) * rate_D
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


FIXED = {
    "sinusoidal": sinusoidal,
    "sinusoidal_split": sinusoidal_split,
    "sinusoidal_halves": sinusoidal_halves,
}


def rotary(x_BTHK: jax.Array, pos_BT: jax.Array) -> jax.Array:
    """Returns queries or keys turned by their positions (Su et al. 2021, "RoFormer", equation 34).

    The numbers 2i and 2i + 1 of a head are a point in the plane, which position p turns by
    ``p / 10000**(2i / K)``: the product of a query and a key then depends on their distance alone, so
    positions may be counted from anywhere.

    Args:
      x_BTHK: K even.
      pos_BT: int32 positions, or a vector that all rows have.
    """
    K = x_BTHK.shape[-1]
    rate_K = 10000.0 ** (-jnp.arange(0, K, 2, dtype=jnp.float32) / K)
    angle_BT1K = pos_BT[..., None, None].astype(jnp.float32) * rate_K
    sin, cos = jnp.sin(angle_BT1K), jnp.cos(angle_BT1K)
    even, odd = x_BTHK[..., 0::2], x_BTHK[..., 1::2]
    turned = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return turned.reshape(x_BTHK.shape).astype(x_BTHK.dtype)


def alibi(num_heads: int, distance_NTS: jax.Array) -> jax.Array:
    """Returns bias_NHTS, float32: a slope for each head times the distance (Press et al. 2022, "ALiBi").

    Of n heads, n a power of two, head i has the slope ``-2**(-8 i / n)``, i from 1. Of other numbers the
    first heads have the slopes of the next smaller power of two, the others every second one of the next
    larger power. Keys before and after a query are alike; the mask says which may be seen.
    """
    power = 1 << (num_heads.bit_length() - 1)
    slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    slopes += [2 ** (-4 * i / power) for i in range(1, 2 * (num_heads - power), 2)]
    slope_H11 = jnp.array(slopes, jnp.float32)[:, None, None]
    return -(slope_H11 * jnp.abs(distance_NTS)[:, None])


def relative_bias(
    table_XH: jax.Array, distance_NTS: jax.Array, max_distance: int, bidirectional: bool
) -> jax.Array:
    """Returns bias_NHTS, float32, that attention adds to its scores (Raffel et al. 2020, section 2.1).

    Args:
      table_XH: a number for each bucket and head.
      distance_NTS: int32, position of the key less that of the query; of several blocks, or N is 1.
      max_distance, bidirectional: see `buckets`.
    """
    bucket = jnp.asarray(buckets(table_XH.shape[0], max_distance, bidirectional))
    bucket_NTS = bucket[jnp.clip(distance_NTS, -max_distance, max_distance) + max_distance]
    return table_XH[bucket_NTS].astype(jnp.float32).transpose(0, 3, 1, 2)


def buckets(number: int, max_distance: int, bidirectional: bool) -> np.ndarray:
    """Returns the buckets, int32, of the distances from -max_distance to max_distance.

    Half of them are for near distances, one each, half for far ones, by their logarithm. It is a
    table made here, since accelerators' logarithms round differently at the limits of buckets.

    Args:
      number: of buckets.
      max_distance: from which on all are in the last one.
      bidirectional: half of the buckets are for later keys; if false those share bucket 0.
    """
    distance = np.arange(-max_distance, max_distance + 1)
    later = np.zeros_like(distance)
    if bidirectional:
        number //= 2
        later, distance = number * (distance > 0), np.abs(distance)
    else:
        distance = np.maximum(-distance, 0)
    near = number // 2
    logarithm = np.log(np.maximum(distance, near).astype(np.float32) / np.float32(near))
    share = logarithm / np.float32(math.log(max_distance / near))
    far = near + (share * np.float32(number - near)).astype(np.int32)
    return (later + np.where(distance < near, distance, np.minimum(far, number - 1))).astype(np.int32)


def spread(x_BHTX: jax.Array, S: int, first: int) -> jax.Array:
    """Returns x_BHTS: what column X of row t holds for the distance of key s (Shaw et al. 2018, section 3.3).

    It is made of slices alone. In row t the numbers of all T + S - 1 distances lie one place further to the
    right than in the row above; written one after another, and read in rows that are one shorter, they lie
    below each other.

    Args:
      x_BHTX: of each query a number for each distance from -k to k, X = 2 k + 1; farther ones are k, too.
      S: keys.
      first: distance of the first key from the first query.
    """
    (B, H, T), k = x_BHTX.shape[:3], x_BHTX.shape[-1] // 2
    low, high = first - (T - 1), first + S - 1
    x_BHTX = x_BHTX[..., max(low, -k) + k : min(high, k) + k + 1]
    # Not jnp.pad(mode="edge"): on a mesh its gradient sends zeros from head to head.
    before = jnp.broadcast_to(x_BHTX[..., :1], (B, H, T, max(-k - low, 0)))
    after = jnp.broadcast_to(x_BHTX[..., -1:], (B, H, T, max(high - k, 0) + 1))
    x_BHN = jnp.concatenate([before, x_BHTX, after], axis=-1).reshape(B, H, T * (T + S))
    return x_BHN[..., T - 1 : T - 1 + T * (T + S - 1)].reshape(B, H, T, T + S - 1)[..., :S]


def at_distances(x_BHTX: jax.Array, distance_S: jax.Array) -> jax.Array:
    """Returns x_BHTS as `spread` does, of keys whose distance is the same from all queries."""
    k = x_BHTX.shape[-1] // 2
    here_XS = jnp.arange(-k, k + 1)[:, None] == jnp.clip(distance_S, -k, k)
    return jnp.einsum("BHTX,XS->BHTS", x_BHTX, here_XS.astype(x_BHTX.dtype))
