"""Positions in NumPy float64: the paper's (3.5), and those of others, each from its own paper.

See `numpy_transformer`, which adds them to embeddings, to scores, or turns heads by them.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray
Params = Mapping[str, Array]


def sinusoidal(length: int, d_model: int) -> Array:
    """Returns [length, d_model]: PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos(same)."""
    table = np.zeros((length, d_model))
    for pos in range(length):
        for i in range(d_model // 2):
            angle = pos / 10000 ** (2 * i / d_model)
            table[pos, 2 * i] = math.sin(angle)
            table[pos, 2 * i + 1] = math.cos(angle)
    return table


def sinusoidal_halves(length: int, d_model: int) -> Array:
    """Returns [length, d_model]: sines in the first half, cosines in the second, as tensor2tensor.

    Timescales run from 1 to 10000 inclusive, hence the divisor d/2 - 1.
    """
    half = d_model // 2
    table = np.zeros((length, d_model))
    for pos in range(length):
        for i in range(half):
            angle = pos * math.exp(-i * math.log(10000) / (half - 1))
            table[pos, i] = math.sin(angle)
            table[pos, half + i] = math.cos(angle)
    return table


def sinusoidal_split(length: int, d_model: int) -> Array:
    """Returns [length, d_model]: the sines of `sinusoidal`, then its cosines, as Marian."""
    table = sinusoidal(length, d_model)
    return np.concatenate([table[:, 0::2], table[:, 1::2]], axis=1)


def positions(params: Params, config: Any, stack: str, pos_T: Array) -> Array:
    """Returns [T, D], the encodings of the positions `pos_T` for `stack` ("encoder" or "decoder")."""
    if config.positions in ("relative", "shaw", "alibi", "rotary", "none"):
        return np.zeros((len(pos_T), config.d_model))
    pos_T = pos_T + config.position_offset
    if config.positions == "learned":
        return params[f"{stack}/positions"][pos_T]
    forms = {
        "sinusoidal": sinusoidal,
        "sinusoidal_split": sinusoidal_split,
        "sinusoidal_halves": sinusoidal_halves,
    }
    return forms[config.positions](int(pos_T.max()) + 1, config.d_model)[pos_T]


def bucket(distance: int, config: Any, stack: str) -> int:
    """Returns the bucket of a key `distance` places after the query (Raffel et al. 2020, section 2.1).

    Half of the buckets are for one near distance each, half for far ones: by their logarithm, up to
    the largest distance. The encoder has the whole twice, for keys before and keys after the query.
    """
    number, first = config.relative_buckets, 0
    if stack == "encoder":
        number //= 2
        first = number if distance > 0 else 0
    elif distance > 0:
        distance = 0
    distance, near = abs(distance), number // 2
    if distance < near:
        return first + distance
    share = math.log(distance / near) / math.log(config.relative_max_distance / near)
    return first + min(number - 1, near + int(share * (number - near)))


def distances(params: Params, config: Any, stack: str, layer: int, length: int) -> Array:
    """Returns [H, T, S], what self-attention of a layer adds to its scores."""
    biases = np.zeros((config.num_heads, length, length))
    if config.positions == "relative":
        table = params[f"{stack}/relative_bias"][0 if config.relative_shared else layer]
        for t in range(length):
            for s in range(length):
                biases[:, t, s] = table[bucket(s - t, config, stack)]
    if config.positions == "alibi":
        for h, slope in enumerate(alibi_slopes(config.num_heads)):
            for t in range(length):
                for s in range(length):
                    biases[h, t, s] = -slope * abs(s - t)
    return biases


def alibi_slopes(heads: int) -> list[float]:
    """Returns each head's slope (Press et al. 2022, section 3): the geometric series 2^(-8/n), 2^(-16/n), ...

    For a number of heads that is no power of two: the slopes of the closest smaller power, then every other
    one of twice that power, from the first on (their footnote and code).
    """
    if heads & (heads - 1) == 0:
        start = 2 ** (-8 / heads)
        return [start ** (i + 1) for i in range(heads)]
    closest = 2 ** math.floor(math.log2(heads))
    return alibi_slopes(closest) + alibi_slopes(2 * closest)[0::2][: heads - closest]


def vectors(params: Params, config: Any, path: str, head: int, length: int) -> tuple[Array, Array]:
    """Returns a^K and a^V [T, S, K] of Shaw et al. 2018, section 3.2: of distances up to k; else zeros."""
    keys = np.zeros((length, length, config.key_size))
    values = np.zeros_like(keys)
    if config.positions == "shaw":
        k = config.relative_max_distance
        for t in range(length):
            for s in range(length):
                row = max(-k, min(k, s - t)) + k
                keys[t, s] = params[f"{path}/distance_key"][row, head]
                values[t, s] = params[f"{path}/distance_value"][row, head]
    return keys, values


def rotate(x_TK: Array, pos_T: Array) -> Array:
    """Returns [T, K]: the rotations of Su et al. 2021 (equation 15), as one matrix a position."""
    out = np.zeros_like(x_TK)
    K = x_TK.shape[1]
    for t, pos in enumerate(pos_T):
        matrix = np.zeros((K, K))
        for i in range(K // 2):
            angle = pos * 10000 ** (-2 * i / K)
            turn = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
            matrix[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = turn
        out[t] = matrix @ x_TK[t]
    return out
