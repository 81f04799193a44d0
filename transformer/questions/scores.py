"""Questions 1 to 4 and 6: heads, queries and keys, and how these become scores."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from transformer.inference.ablation import each_head_off
from transformer.model import scoring
from transformer.model.positions import rotary
from transformer.paths import by_path, nested
from transformer.questions.measured import Measured, Place, milliseconds
from transformer.questions.subject import Subject, altered

_LENGTH = 128  # positions of the arrays that are timed
_ROWS = 4
_IDLE = 0.01  # nats a token: a head that changes less counts as idle
_MOST = 0.9  # share of a matrix's squares that its directions have to hold


def many_heads(subject: Subject) -> list[Measured]:
    """1. What single heads are worth, and how differently the heads of a layer look."""
    if subject.model.config.num_heads == 1:
        return [Measured("one_head")]
    rows = [Measured("whole", subject.whole, "nat")]
    changes: dict[str, list[tuple[float, int, int]]] = {}
    for kind, layer, head, params in each_head_off(subject.params, subject.model.config.num_heads):
        found = subject.score(params) - subject.whole, layer + 1, head + 1
        changes.setdefault(kind, []).append(found)
    for kind, found_here in changes.items():
        change, layer, head = min(found_here)
        rows.append(Measured("dearest", change, "nat", {"kind": kind, "layer": layer, "head": head}))
    every = [abs(change) for change, _, _ in itertools.chain(*changes.values())]
    rows.append(Measured("idle", sum(x < _IDLE for x in every), "", {"heads": len(every), "limit": _IDLE}))
    return [*rows, Measured("apart", 100 * _apart(subject), "%")]


def _apart(subject: Subject) -> float:
    """Returns what share of their weight two heads of an encoder layer put on different positions, mean."""
    real_BT = subject.real["encoder"]
    by_head_HLNS = subject.weights("encoder").transpose(2, 0, 1, 3, 4)[:, :, real_BT]
    pairs = itertools.combinations(by_head_HLNS, 2)
    return float(np.mean([np.abs(a - b).sum(axis=-1).mean() / 2 for a, b in pairs]))


def queries_and_keys(subject: Subject) -> list[Measured]:
    """2. One matrix for both, in the self-attention of a model that has learned two."""
    config = subject.model.config
    if config.kv_heads != config.num_heads:
        return [Measured("shared_keys", place={"heads": config.num_heads, "groups": config.kv_heads})]
    leaves = by_path(subject.params)
    tied = nested({p: leaves[p.replace("self_attention/key/", "self_attention/query/")] for p in leaves})
    rows = [Measured("whole", subject.whole, "nat"), Measured("tied", subject.score(tied), "nat")]
    if config.attention_score == "dot_product":
        rows.append(Measured("one_way", 100 * _one_way(subject), "%"))
    own = _own_place(subject, subject.weights("encoder"))
    with_tied = _own_place(subject, subject.weights("encoder", subject.activations(tied)))
    return [*rows, Measured("itself", 100 * own, "%"), Measured("itself_tied", 100 * with_tied, "%")]


def _one_way(subject: Subject) -> float:
    """Returns the share of the squares of W^Q W^K^T in its antisymmetric part; mean of encoder heads.

    With M = Q K^T it is (1 - tr(M M) / tr(M M^T)) / 2, of which both are traces of small matrices.
    """
    shares = []
    for q_DK, k_DK in _kernels(subject):
        both_KK = k_DK.T @ q_DK
        squares = np.trace((q_DK.T @ q_DK) @ (k_DK.T @ k_DK))
        shares.append((1 - np.trace(both_KK @ both_KK) / squares) / 2)
    return float(np.mean(shares))


def _kernels(subject: Subject) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns W^Q and W^K, float64 [D, K], of every head of the encoder's self-attention.

    Where a matrix stands between queries and keys it is part of W^Q.
    """
    found = []
    for layer in subject.layers("encoder"):
        attention = subject.parameters("encoder", layer)["self_attention"]
        q_DHK, k_DGK = (np.asarray(attention[name]["kernel"], np.float64) for name in ("query", "key"))
        if subject.model.config.attention_score == "general":
            q_DHK = np.einsum("DHK,HKJ->DHJ", q_DHK, attention["score"])
        group = q_DHK.shape[1] // k_DGK.shape[1]
        found += [(q_DHK[:, h], k_DGK[:, h // group]) for h in range(q_DHK.shape[1])]
    return found


def _own_place(subject: Subject, weights_LBHTS: np.ndarray) -> float:
    """Returns the mean weight that a position gives itself."""
    diagonal_LBHT = np.diagonal(weights_LBHTS, axis1=-2, axis2=-1)
    return float(diagonal_LBHT.transpose(1, 3, 0, 2)[subject.real["encoder"]].mean())


def dot_or_additive(subject: Subject) -> list[Measured]:
    """3. What both cost with the model's own sizes, and how far apart scores of its own vectors lie."""
    config, draw = subject.model.config, np.random.default_rng(0)
    H, G, K = config.num_heads, config.kv_heads, config.key_size
    q_BHTK, k_BGSK = (jnp.asarray(draw.normal(size=(_ROWS, n, _LENGTH, K)), jnp.float32) for n in (H, G))
    v_HK = jnp.asarray(draw.normal(size=(H, K)), jnp.float32)
    v_HK /= jnp.linalg.norm(v_HK, axis=-1, keepdims=True)
    dot, additive = milliseconds(
        partial(jax.jit(scoring.dot_products), q_BHTK, k_BGSK),
        partial(jax.jit(scoring.additive), q_BHTK, k_BGSK, v_HK),
    )
    place: Place = {"heads": H, "size": K, "length": _LENGTH, "rows": _ROWS}
    times = [
        Measured("time_dot", dot, "ms", place),
        Measured("time_additive", additive, "ms", place),
        Measured("times", additive / dot),
    ]
    own, pairs = own_queries_and_keys(subject, 0), _real_pairs(subject)
    if config.attention_score == "additive":
        own_v_HK = subject.parameters("encoder", 0)["self_attention"]["score"][..., 0]
        return [
            *times,
            Measured("spread_own", _spread(np.asarray(scoring.additive(*own, own_v_HK)), pairs)),
            Measured("bound_own", float(jnp.abs(own_v_HK).sum(axis=-1).mean())),
        ]
    products_BHTS = np.asarray(scoring.dot_products(*own))
    return [
        *times,
        Measured("spread_dot", _spread(products_BHTS, pairs)),
        Measured("spread_divided", _spread(products_BHTS / K**0.5, pairs)),
        Measured("spread_additive", _spread(np.asarray(scoring.additive(*own, v_HK)), pairs)),
        Measured("bound_additive", float(jnp.abs(v_HK).sum(axis=-1).mean())),
    ]


def own_queries_and_keys(subject: Subject, layer: int) -> tuple[jax.Array, jax.Array]:
    """Returns (q_BHTK, k_BGSK) of the encoder's self-attention in a layer, as they are multiplied."""
    config = subject.model.config
    read = "self_attention_norm" if config.norm == "pre" else "input"
    x_BTD = subject.seen[f"encoder/layer_{layer}/{read}"]
    attention = subject.parameters("encoder", layer)["self_attention"]
    placed = []
    for part in (attention["query"], attention["key"]):
        y_BTHK = jnp.einsum("BTD,DHK->BTHK", x_BTD.astype(np.float32), part["kernel"]) + part.get("bias", 0.0)
        if config.positions == "rotary":
            y_BTHK = rotary(y_BTHK, jnp.arange(y_BTHK.shape[1]))
        placed.append(y_BTHK.swapaxes(1, 2))
    if config.attention_score == "general":
        placed[0] = scoring.general(placed[0], attention["score"])
    return placed[0], placed[1]


def _real_pairs(subject: Subject) -> np.ndarray:
    """Returns pairs_BTS of source positions that are both no padding."""
    real_BS = subject.real["encoder"]
    return real_BS[:, :, None] & real_BS[:, None, :]


def _spread(scores_BHTS: np.ndarray, pairs_BTS: np.ndarray) -> float:
    """Returns the standard deviation of each head's scores, mean."""
    return float(scores_BHTS.swapaxes(0, 1)[:, pairs_BTS].std(axis=1).mean())


def divided_scores(subject: Subject) -> list[Measured]:
    """4. Variance of products before and after the division, and what the softmax makes of them."""
    config = subject.model.config
    if config.attention_score == "additive":
        return [Measured("additive")]
    if config.attention in ("compressed", "alternating") or config.positions == "shaw":
        return [Measured("other_keys")]
    K, draw = config.key_size, np.random.default_rng(0)
    drawn = np.einsum("NK,NK->N", *draw.normal(size=(2, 20_000, K))).var()
    pairs_BTS = _real_pairs(subject)
    variances, softmaxes = [], []
    for layer in subject.layers("encoder"):
        scores_BHTS = np.asarray(scoring.dot_products(*own_queries_and_keys(subject, layer)))
        variances.append(scores_BHTS.swapaxes(0, 1)[:, pairs_BTS].var(axis=1).mean())
        softmaxes.append(_both_softmaxes(subject, layer, scores_BHTS))
    by_way = np.mean(softmaxes, axis=0)
    other = altered(subject.params, "/query/", lambda x: x * K ** (0.5 if config.scale_queries else -0.5))
    scores = [subject.whole, subject.score(other)]
    divided, undivided = scores if config.scale_queries else scores[::-1]
    return [
        *([] if config.scale_queries else [Measured("never_divides")]),
        Measured("drawn", float(drawn), "", {"size": K}),
        Measured("before", float(np.mean(variances))),
        Measured("after", float(np.mean(variances)) / K),
        Measured("entropy_divided", by_way[0, 0], "nat"),
        Measured("entropy_undivided", by_way[1, 0], "nat"),
        Measured("largest_divided", 100 * by_way[0, 1], "%"),
        Measured("largest_undivided", 100 * by_way[1, 1], "%"),
        Measured("score_divided", divided, "nat"),
        Measured("score_undivided", undivided, "nat"),
    ]


def _both_softmaxes(subject: Subject, layer: int, scores_BHTS: np.ndarray) -> np.ndarray:
    """Returns [divided or not, (mean entropy, mean largest weight)] of one encoder layer.

    The logarithms of the model's own weights are its scores, biases included, but for a constant.
    """
    weights_BHTS = subject.seen[f"encoder/layer_{layer}/self_attention/weights"].astype(np.float64)
    root = subject.model.config.key_size**-0.5
    own = root if subject.model.config.scale_queries else 1.0
    with np.errstate(divide="ignore"):
        logs_BHTS = np.log(weights_BHTS)
    found = []
    for scale in (root, 1.0):
        changed_BHTS = logs_BHTS + (scale - own) * scores_BHTS
        exp_BHTS = np.exp(changed_BHTS - changed_BHTS.max(axis=-1, keepdims=True))
        p_BHTS = exp_BHTS / exp_BHTS.sum(axis=-1, keepdims=True)
        p_NHS = p_BHTS.swapaxes(1, 2)[subject.real["encoder"]]
        entropy = -np.where(p_NHS > 0, p_NHS * np.log(np.maximum(p_NHS, 1e-300)), 0).sum(axis=-1).mean()
        found.append((entropy, p_NHS.max(axis=-1).mean()))
    return np.array(found)


def small_heads(subject: Subject) -> list[Measured]:
    """6. Parameters and time of heads of size d_model / h, and of heads as wide as the model."""
    config, draw = subject.model.config, np.random.default_rng(0)
    H, G, K, D = config.num_heads, config.kv_heads, config.key_size, config.d_model
    attention = subject.params["encoder"]["layer_0"]["self_attention"]
    weights = sum(attention[name]["kernel"].size for name in ("query", "key", "value", "out"))
    is_additive = config.attention_score == "additive"
    scores = jax.jit(scoring.additive if is_additive else scoring.dot_products)
    timed = []
    for size in (K, D):
        shapes = [(_ROWS, H, _LENGTH, size), (_ROWS, G, _LENGTH, size), (H, size)]
        vectors = [jnp.asarray(draw.normal(size=shape), jnp.float32) for shape in shapes]
        timed.append(partial(scores, *vectors[: 2 + is_additive]))
    times = milliseconds(*timed)
    place: Place = {"heads": H, "size": K, "wide": D, "length": _LENGTH, "rows": _ROWS}
    rows = [
        Measured("weights", weights, "", place),
        Measured("weights_wide", weights * D / K, "", place),
        Measured("time", times[0], "ms", place),
        Measured("time_wide", times[1], "ms", place),
    ]
    if is_additive:  # it has no matrix of products
        return rows
    directions = float(np.mean([_directions(*kernels) for kernels in _kernels(subject)]))
    return [*rows, Measured("directions", directions, "", place)]


def _directions(q_DK: np.ndarray, k_DK: np.ndarray) -> int:
    """Returns how many singular values of q k^T hold most of its squares."""
    squares = np.linalg.svd(np.linalg.qr(q_DK).R @ np.linalg.qr(k_DK).R.T, compute_uv=False) ** 2
    return int(np.searchsorted(squares.cumsum() / squares.sum(), _MOST) + 1)
