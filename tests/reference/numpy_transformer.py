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
from reference.numpy_positions import distances, positions, rotate, vectors
from reference.numpy_recurrence import run_layers

Array = np.ndarray
Params = Mapping[str, Array]


# 3.4 Embeddings


def embedding(params: Params, config: Any, use: str) -> Array:
    """Returns the matrix [V, D] used as "source", "target" or "output"."""
    owner = {
        "all": {"source": "shared", "target": "shared", "output": "shared"},
        "target": {"source": "source", "target": "target", "output": "target"},
        "inputs": {"source": "shared", "target": "shared", "output": "output"},
        "none": {"source": "source", "target": "target", "output": "output"},
    }[config.tied_embeddings][use]
    if use == "output" and "output/embedding" in params:  # of labels
        owner = "output"
    return params[f"{owner}/embedding"]


def embed(params: Params, config: Any, use: str, ids_T: Array, pos_T: Array) -> Array:
    """Returns [T, D]: embeddings times sqrt(d_model), plus positions; then perhaps a norm."""
    stack = {"source": "encoder", "target": "decoder"}[use]
    if config.source_features and use == "source":  # ids_T are frames, [T, C]
        x_TD = ids_T @ params["source/kernel"] + params["source/bias"]
    else:
        scale = math.sqrt(config.d_model) if config.scale_embeddings else 1
        x_TD = embedding(params, config, use)[ids_T] * scale
    if config.recurrence == "none":  # else at each step
        x_TD = x_TD + positions(params, config, stack, pos_T)
    return norm(params, config, f"{stack}/embedding_norm", x_TD) if config.embedding_norm else x_TD


# 3.2 Attention


def attention(
    score: Callable[[Array, Array], float],
    q_TK: Array,
    k_SK: Array,
    v_SK: Array,
    allowed_TS: Array,
    bias_TS: Array,
    far_TSK: tuple[Array, Array] | None = None,
) -> Array:
    """Returns [T, K]: softmax(score(q, k) + bias) v over the allowed keys; zero where none is allowed.

    `far_TSK` are vectors added to k and to v, by the places of query and key.
    """
    key_TSK, value_TSK = far_TSK or (np.zeros((*bias_TS.shape, k_SK.shape[1])),) * 2
    out = np.zeros((q_TK.shape[0], v_SK.shape[1]))
    for t in range(q_TK.shape[0]):
        keys = np.flatnonzero(allowed_TS[t])
        if keys.size == 0:
            continue
        scores = np.array([score(q_TK[t], k_SK[s] + key_TSK[t, s]) + bias_TS[t, s] for s in keys])
        weights = np.exp(scores - scores.max())
        out[t] = (weights / weights.sum()) @ (v_SK[keys] + value_TSK[t, keys])
    return out


def scorer(params: Params, config: Any, path: str, head: int) -> Callable[[Array, Array], float]:
    """Returns the score of a query and a key, both projected (Luong et al. 2015, Bahdanau et al. 2015)."""
    if config.attention_score == "additive":
        return lambda q, k: params[f"{path}/score"][head, :, 0] @ np.tanh(q + k)
    middle = params[f"{path}/score"][head] if config.attention_score == "general" else None

    def product(q: Array, k: Array) -> float:
        dot = q @ k if middle is None else q @ middle @ k
        return dot / math.sqrt(len(q)) if config.scale_queries else dot

    return product


def multi_head(
    params: Params,
    config: Any,
    path: str,
    x_TD: Array,
    y_SD: Array,
    allowed_TS: Array,
    bias_HTS: Array,
    pos_T: Array | None = None,
    seg_S: Array | None = None,
) -> Array:
    """Returns [T, D]: queries from x, keys and values from y; the heads' outputs summed over W^O.

    `pos_T` are the positions of both in self-attention, which rotary positions turn. `seg_S` are the segments
    of keys that are compressed.
    """

    def project(name: str, z: Array, head: int) -> Array:
        z = z @ params[f"{path}/{name}/kernel"][:, head]
        return z + params[f"{path}/{name}/bias"][head] if config.attention_bias else z

    out_TD = np.zeros_like(x_TD)
    for head in range(config.num_heads):
        shared = head * (config.num_kv_heads or config.num_heads) // config.num_heads
        q, k, v = project("query", x_TD, head), project("key", y_SD, shared), project("value", y_SD, shared)
        if config.positions == "rotary" and pos_T is not None:
            q, k = rotate(q, pos_T), rotate(k, pos_T)
        if seg_S is not None:
            k = compress(params[f"{path}/compress_key"][:, shared], k, seg_S)
            v = compress(params[f"{path}/compress_value"][:, shared], v, seg_S)
        score = scorer(params, config, path, head)
        far = None if pos_T is None else vectors(params, config, path, head, len(x_TD))
        y_TK = attention(score, q, k, v, allowed_TS, bias_HTS[head], far)
        out_TD += y_TK @ params[f"{path}/out/kernel"][head]
    return out_TD + params[f"{path}/out/bias"] if config.attention_bias else out_TD


def compress(weight_XKK: Array, z_SK: Array, seg_S: Array) -> Array:
    """Returns [S / X, K]: a convolution of width and stride X (Liu et al. 2018, section 4.2.3).

    What is not of the first one's sentence is left out.
    """
    X, rows = len(weight_XKK), []
    for first in range(0, len(z_SK), X):
        places = range(first, min(first + X, len(z_SK)))
        rows.append(sum(z_SK[s] @ weight_XKK[s - first] for s in places if seg_S[s] == seg_S[first]))
    return np.stack(rows)


def kind(config: Any, stack: str, depth: int) -> str:
    """Returns the self-attention of a layer: where it is compressed in the encoder, the decoder's is full."""
    if config.attention not in ("compressed", "alternating"):
        return config.attention
    alternating = config.attention == "alternating"
    return "full" if stack == "decoder" else "window" if alternating and depth % 2 == 0 else "compressed"


def near(config: Any, stack: str, length: int, depth: int = 0) -> Array:
    """Returns [T, T] bool: what self-attention sees at all (section 4: "restricted self-attention").

    A window is all within `attention_radius` places; a block sees itself and the ones before and after it.
    The encoder's first `global_tokens` see all and are seen by all.
    """
    seen = np.ones((length, length), bool)
    if kind(config, stack, depth) == "full":
        return seen
    r, first = config.attention_radius, config.global_tokens if stack == "encoder" else 0
    for t in range(length):
        for s in range(length):
            block = config.attention == "block"
            close = abs(t // r - s // r) <= 1 if block else abs(t - s) <= r
            seen[t, s] = close or t < first or s < first
    return seen


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
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "swish": lambda x: x / (1 + np.exp(-x)),
}


def feed_forward(params: Params, config: Any, path: str, x_TD: Array) -> Array:
    """Returns [T, D]: activation(x W_1 + b_1) W_2 + b_2; a gate multiplies by x W + b before W_2."""

    def linear(name: str, x: Array) -> Array:
        y = x @ params[f"{path}/{name}/kernel"]
        return y + params[f"{path}/{name}/bias"] if config.feed_forward_bias else y

    hidden = ACTIVATIONS[config.activation](linear("wi", x_TD))
    if config.gated_feed_forward:
        hidden = hidden * linear("wi_linear", x_TD)
    return linear("wo", hidden)


def norm(params: Params, config: Any, path: str, x_TD: Array) -> Array:
    """Returns [T, D] with mean 0 and (biased) variance 1 over D, times scale plus bias.

    RMS norms keep the mean, divide by the root of the mean square, and have no bias.
    """
    if config.norm_type == "rms":
        return (
            x_TD / np.sqrt((x_TD**2).mean(-1, keepdims=True) + config.norm_epsilon) * params[f"{path}/scale"]
        )
    centred = x_TD - x_TD.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    normal = centred / np.sqrt(variance + config.norm_epsilon)
    return normal * params[f"{path}/scale"] + params[f"{path}/bias"]


def residual(
    params: Params, config: Any, path: str, x_TD: Array, sublayer: Callable[[str, Array], Array]
) -> Array:
    """Returns [T, D]: LayerNorm(x + Sublayer(x)), or x + Sublayer(LayerNorm(x)) when pre-norm."""
    if config.norm == "pre":
        return x_TD + sublayer(path, norm(params, config, f"{path}_norm", x_TD))
    return norm(params, config, f"{path}_norm", x_TD + sublayer(path, x_TD))


def encode(params: Params, config: Any, ids_S: Array, seg_S: Array, pos_S: Array) -> Array:
    """Returns [S, D], the output of the encoder for one row."""

    def layer(depth: int, path: str, x_SD: Array) -> Array:
        bias_HSS = distances(params, config, "encoder", depth, len(ids_S))
        compressed = kind(config, "encoder", depth) == "compressed"
        if compressed:
            allowed_SS = allowed_keys(seg_S, seg_S[:: config.compression], causal=False)
        else:
            allowed_SS = allowed_keys(seg_S, seg_S, causal=False) & near(config, "encoder", len(seg_S), depth)

        def self_attention(path: str, x: Array) -> Array:
            seg = seg_S if compressed else None
            return multi_head(params, config, path, x, x, allowed_SS, bias_HSS, pos_S, seg)

        def ffn(path: str, x: Array) -> Array:
            return feed_forward(params, config, path, x)

        x_SD = residual(params, config, f"{path}/self_attention", x_SD, self_attention)
        return residual(params, config, f"{path}/feed_forward", x_SD, ffn)

    x_SD = embed(params, config, "source", ids_S, pos_S)
    x_SD, *_ = run_layers(params, config, "encoder", x_SD, pos_S, layer)
    return norm(params, config, "encoder/final_norm", x_SD) if config.norm == "pre" else x_SD


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
    allowed_TT = allowed_keys(seg_T, seg_T, causal=True) & near(config, "decoder", len(seg_T))
    allowed_TS = allowed_keys(seg_T, src_seg_S, causal=False)

    def layer(depth: int, path: str, x_TD: Array) -> Array:
        bias_HTT = distances(params, config, "decoder", depth, len(ids_T))
        no_bias_HTS = np.zeros((config.num_heads, *allowed_TS.shape))

        def self_attention(path: str, x: Array) -> Array:
            return multi_head(params, config, path, x, x, allowed_TT, bias_HTT, pos_T)

        def cross_attention(path: str, x: Array) -> Array:
            return multi_head(params, config, path, x, memory_SD, allowed_TS, no_bias_HTS)

        def ffn(path: str, x: Array) -> Array:
            return feed_forward(params, config, path, x)

        x_TD = residual(params, config, f"{path}/self_attention", x_TD, self_attention)
        x_TD = residual(params, config, f"{path}/cross_attention", x_TD, cross_attention)
        return residual(params, config, f"{path}/feed_forward", x_TD, ffn)

    x_TD = embed(params, config, "target", ids_T, pos_T)
    x_TD, *_ = run_layers(params, config, "decoder", x_TD, pos_T, layer)
    return norm(params, config, "decoder/final_norm", x_TD) if config.norm == "pre" else x_TD


def continue_sources(
    params: Params, config: Any, source: tuple[Array, ...], target: tuple[Array, ...]
) -> Array:
    """Returns [T, D] of a decoder alone (Liu et al. 2018, section 4.2.3; Raffel et al. 2020, section 3.2.1).

    Both sides of a row are ids, segments and positions. Each source and its target are cut out of their rows,
    and are one sequence from position 0 on; the source, the prefix, may see itself in both directions.
    """
    (src_S, src_seg_S, _), (ids_T, seg_T, _) = source, target
    y_TD = np.zeros((len(ids_T), config.d_model))
    for number in set(seg_T[seg_T > 0]):
        prefix = src_S[src_seg_S == number]
        ids_N = np.concatenate([prefix, ids_T[seg_T == number]])
        N, seen = len(ids_N), len(prefix) if config.prefix == "bidirectional" else 0
        allowed_NN = np.array([[s <= t or s < seen for s in range(N)] for t in range(N)])

        def layer(depth: int, path: str, x_ND: Array, N: int = N, allowed_NN: Array = allowed_NN) -> Array:
            bias_HNN = distances(params, config, "decoder", depth, N)

            def self_attention(path: str, x: Array) -> Array:
                return multi_head(params, config, path, x, x, allowed_NN, bias_HNN, np.arange(N))

            def ffn(path: str, x: Array) -> Array:
                return feed_forward(params, config, path, x)

            x_ND = residual(params, config, f"{path}/self_attention", x_ND, self_attention)
            return residual(params, config, f"{path}/feed_forward", x_ND, ffn)

        x_ND = embed(params, config, "target", ids_N, np.arange(N))
        x_ND, *_ = run_layers(params, config, "decoder", x_ND, np.arange(N), layer)
        x_ND = norm(params, config, "decoder/final_norm", x_ND) if config.norm == "pre" else x_ND
        y_TD[seg_T == number] = x_ND[len(prefix) :]
    return y_TD


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
    """Returns [B, T, V]; the rows of padding (segment 0) carry no meaning.

    Of an encoder alone they are those of the source positions; it reads no target.
    """
    rows = []
    for *source, tgt, tgt_seg, tgt_pos in zip(
        src_BS, src_seg_BS, src_pos_BS, tgt_BT, tgt_seg_BT, tgt_pos_BT, strict=True
    ):
        if config.kind == "decoder_only":
            y_TD = continue_sources(params, config, source, (tgt, tgt_seg, tgt_pos))
        else:
            y_TD = encode(params, config, *source)
        if config.kind == "encoder_decoder":
            y_TD = decode(params, config, y_TD, source[1], tgt, tgt_seg, tgt_pos)
        if config.scale_logits:
            y_TD = y_TD / math.sqrt(config.d_model)
        bias_V = params["logits_bias"] if config.logits_bias else 0
        rows.append(y_TD @ embedding(params, config, "output").T + bias_V)
    return np.stack(rows)
