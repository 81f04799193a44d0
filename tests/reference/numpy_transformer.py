"""The Transformer in NumPy float64: one row, one layer, one head at a time.

Written from "Attention Is All You Need" (Vaswani et al., 2017) to be read next to the paper, not to
be fast; section numbers below are the paper's. It imports nothing of `transformer`: a parameter tree
is given as {path: array} ("encoder/layer_0/self_attention/query/kernel"), and a configuration as any
object with the fields of `ModelConfig`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray
Params = Mapping[str, Array]


# 3.5 Positional encoding


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


def positions(params: Params, config: Any, stack: str, pos_T: Array) -> Array:
    """Returns [T, D], the encodings of the positions `pos_T` for `stack` ("encoder" or "decoder")."""
    if config.positions == "learned":
        return params[f"{stack}/positions"][pos_T]
    table = {"sinusoidal": sinusoidal, "sinusoidal_halves": sinusoidal_halves}[config.positions]
    return table(int(pos_T.max()) + 1, config.d_model)[pos_T]


# 3.4 Embeddings


def embedding(params: Params, config: Any, use: str) -> Array:
    """Returns the matrix [V, D] used as "source", "target" or "output"."""
    owner = {
        "all": {"source": "shared", "target": "shared", "output": "shared"},
        "target": {"source": "source", "target": "target", "output": "target"},
        "none": {"source": "source", "target": "target", "output": "output"},
    }[config.tied_embeddings][use]
    return params[f"{owner}/embedding"]


def embed(params: Params, config: Any, use: str, ids_T: Array, pos_T: Array) -> Array:
    """Returns [T, D]: embeddings times sqrt(d_model), plus positions."""
    stack = {"source": "encoder", "target": "decoder"}[use]
    scaled = embedding(params, config, use)[ids_T] * math.sqrt(config.d_model)
    return scaled + positions(params, config, stack, pos_T)


# 3.2 Attention


def attention(q_TK: Array, k_SK: Array, v_SK: Array, allowed_TS: Array) -> Array:
    """Returns [T, K]: softmax(q k^T / sqrt(K)) v over the allowed keys; zero where none is allowed."""
    out = np.zeros((q_TK.shape[0], v_SK.shape[1]))
    for t in range(q_TK.shape[0]):
        keys = np.flatnonzero(allowed_TS[t])
        if keys.size == 0:
            continue
        scores = np.array([q_TK[t] @ k_SK[s] for s in keys]) / math.sqrt(q_TK.shape[1])
        weights = np.exp(scores - scores.max())
        out[t] = (weights / weights.sum()) @ v_SK[keys]
    return out


def multi_head(params: Params, config: Any, path: str, x_TD: Array, y_SD: Array, allowed_TS: Array) -> Array:
    """Returns [T, D]: queries from x, keys and values from y; the heads' outputs summed over W^O."""

    def project(name: str, z: Array, head: int) -> Array:
        z = z @ params[f"{path}/{name}/kernel"][:, head]
        return z + params[f"{path}/{name}/bias"][head] if config.attention_bias else z

    out_TD = np.zeros_like(x_TD)
    for head in range(config.num_heads):
        q, k, v = project("query", x_TD, head), project("key", y_SD, head), project("value", y_SD, head)
        out_TD += attention(q, k, v, allowed_TS) @ params[f"{path}/out/kernel"][head]
    return out_TD + params[f"{path}/out/bias"] if config.attention_bias else out_TD


def allowed_keys(seg_T: Array, seg_S: Array, causal: bool) -> Array:
    """Returns [T, S] bool: equal segments, none of them padding (0); causal: no key after the query."""
    allowed = np.zeros((len(seg_T), len(seg_S)), bool)
    for t, query in enumerate(seg_T):
        for s, key in enumerate(seg_S):
            allowed[t, s] = query == key and query > 0 and (s <= t or not causal)
    return allowed


# 3.3 Feed-forward networks, and 3.1 the stacks

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "swish": lambda x: x / (1 + np.exp(-x)),
}


def feed_forward(params: Params, config: Any, path: str, x_TD: Array) -> Array:
    """Returns [T, D]: activation(x W_1 + b_1) W_2 + b_2."""
    hidden = x_TD @ params[f"{path}/wi/kernel"] + params[f"{path}/wi/bias"]
    hidden = ACTIVATIONS[config.activation](hidden)
    return hidden @ params[f"{path}/wo/kernel"] + params[f"{path}/wo/bias"]


def layer_norm(params: Params, config: Any, path: str, x_TD: Array) -> Array:
    """Returns [T, D] with mean 0 and (biased) variance 1 over D, times scale plus bias."""
    centred = x_TD - x_TD.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    normal = centred / np.sqrt(variance + config.norm_epsilon)
    return normal * params[f"{path}/scale"] + params[f"{path}/bias"]


def residual(
    params: Params, config: Any, path: str, x_TD: Array, sublayer: Callable[[str, Array], Array]
) -> Array:
    """Returns [T, D]: LayerNorm(x + Sublayer(x)), or x + Sublayer(LayerNorm(x)) when pre-norm."""
    norm = f"{path}_norm"
    if config.norm == "pre":
        return x_TD + sublayer(path, layer_norm(params, config, norm, x_TD))
    return layer_norm(params, config, norm, x_TD + sublayer(path, x_TD))


def encode(params: Params, config: Any, ids_S: Array, seg_S: Array, pos_S: Array) -> Array:
    """Returns [S, D], the output of the encoder for one row."""
    allowed_SS = allowed_keys(seg_S, seg_S, causal=False)

    def self_attention(path: str, x: Array) -> Array:
        return multi_head(params, config, path, x, x, allowed_SS)

    def ffn(path: str, x: Array) -> Array:
        return feed_forward(params, config, path, x)

    x_SD = embed(params, config, "source", ids_S, pos_S)
    for i in range(config.num_encoder_layers):
        layer = f"encoder/layer_{i}"
        x_SD = residual(params, config, f"{layer}/self_attention", x_SD, self_attention)
        x_SD = residual(params, config, f"{layer}/feed_forward", x_SD, ffn)
    return layer_norm(params, config, "encoder/final_norm", x_SD) if config.norm == "pre" else x_SD


def decode(
    params: Params,
    config: Any,
    memory_SD: Array,
    src_seg_S: Array,
    ids_T: Array,
    seg_T: Array,
    pos_T: Array,
) -> Array:
    """Returns [T, D], the output of the decoder for one row and the encoder's output `memory_SD`."""
    allowed_TT = allowed_keys(seg_T, seg_T, causal=True)
    allowed_TS = allowed_keys(seg_T, src_seg_S, causal=False)

    def self_attention(path: str, x: Array) -> Array:
        return multi_head(params, config, path, x, x, allowed_TT)

    def cross_attention(path: str, x: Array) -> Array:
        return multi_head(params, config, path, x, memory_SD, allowed_TS)

    def ffn(path: str, x: Array) -> Array:
        return feed_forward(params, config, path, x)

    x_TD = embed(params, config, "target", ids_T, pos_T)
    for i in range(config.num_decoder_layers):
        layer = f"decoder/layer_{i}"
        x_TD = residual(params, config, f"{layer}/self_attention", x_TD, self_attention)
        x_TD = residual(params, config, f"{layer}/cross_attention", x_TD, cross_attention)
        x_TD = residual(params, config, f"{layer}/feed_forward", x_TD, ffn)
    return layer_norm(params, config, "decoder/final_norm", x_TD) if config.norm == "pre" else x_TD


def logits(
    params: Params,
    config: Any,
    src_BS: Array,
    src_seg_BS: Array,
    src_pos_BS: Array,
    tgt_BT: Array,
    tgt_seg_BT: Array,
    tgt_pos_BT: Array,
) -> Array:
    """Returns [B, T, V]; the rows of padding (segment 0) carry no meaning."""
    rows = []
    for src, src_seg, src_pos, tgt, tgt_seg, tgt_pos in zip(
        src_BS, src_seg_BS, src_pos_BS, tgt_BT, tgt_seg_BT, tgt_pos_BT, strict=True
    ):
        memory_SD = encode(params, config, src, src_seg, src_pos)
        y_TD = decode(params, config, memory_SD, src_seg, tgt, tgt_seg, tgt_pos)
        rows.append(y_TD @ embedding(params, config, "output").T)
    return np.stack(rows)


# 5.4 Label smoothing


def token_loss(logits_V: Array, label: int, smoothing: float) -> float:
    """Returns -sum_v q(v) log p(v), in nats, with q = (1 - smoothing) [v = label] + smoothing / V.

    `smoothing` 0 gives the negative log-likelihood.
    """
    log_p = logits_V - logits_V.max()
    log_p = log_p - math.log(np.exp(log_p).sum())
    q = np.full(len(log_p), smoothing / len(log_p))
    q[label] += 1 - smoothing
    return float(-(q * log_p).sum())


def loss_sum(logits_BTV: Array, labels_BT: Array, weights_BT: Array, smoothing: float) -> float:
    """Returns the weighted sum of `token_loss` over the batch, in nats."""
    return sum(
        float(weights_BT[b, t]) * token_loss(logits_BTV[b, t], int(labels_BT[b, t]), smoothing)
        for b, t in np.argwhere(weights_BT)
    )


# Gradients


def slope(
    function: Callable[[Params], float], params: Params, path: str, direction: Array, step: float = 1e-6
) -> float:
    """Returns the derivative of `function` along `direction` in the parameter at `path`.

    It is the central difference, whose error is of order step^2 plus rounding over step (1e-10 in
    float64). A direction of zeros and a single one gives one entry of the gradient.
    """
    up = function({**params, path: params[path] + step * direction})
    down = function({**params, path: params[path] - step * direction})
    return (up - down) / (2 * step)
