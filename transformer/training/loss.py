"""Cross entropy with label smoothing (paper, section 5.4) that never holds all logits.

With smoothing eps over V classes, one token costs
``lse(logits) - (1 - eps) * logit[label] - eps * mean(logits)``: no one-hot matrix is needed. Tokens
are taken in chunks, and their gradients are computed while the chunk's logits exist.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from transformer.axes import spec


def _chunks(x: jax.Array, chunk: int) -> jax.Array:
    """Returns `x` padded with zeros to whole chunks, [N/chunk, chunk, ...]."""
    pad = -x.shape[0] % chunk
    return jnp.pad(x, [(0, pad)] + [(0, 0)] * (x.ndim - 1)).reshape(-1, chunk, *x.shape[1:])


def _per_shard(function: Callable[..., Any], out_letters: Any) -> Callable[..., Any]:
    """Runs `function(rows..., table)` on each device's own rows.

    A scan over the tokens of a sharded batch would otherwise make every device compute all of
    them. Outside a mesh this is `function` itself.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return function
    rows = spec("B")
    specs = jax.tree.map(lambda letter: rows if letter == "B" else PartitionSpec(), out_letters)
    return jax.shard_map(
        function, in_specs=(rows, rows, rows, PartitionSpec()), out_specs=specs, check_vma=False
    )


def _all_sum(x: Any) -> Any:
    mesh = jax.sharding.get_abstract_mesh()
    return x if mesh.empty else jax.lax.psum(x, spec("B")[0])


def _loss_and_grads(
    y_BTD: jax.Array,
    labels_BT: jax.Array,
    weights_BT: jax.Array,
    embedding_VD: jax.Array,
    eps: float,
    chunk: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns (loss sum, nll sum, dy_BTD, dembedding_VD) of one device's rows."""
    V, D = embedding_VD.shape
    table_VD = embedding_VD.astype(y_BTD.dtype)

    def body(total: tuple, part: tuple) -> tuple[tuple, jax.Array]:
        loss, nll, dtable_VD = total
        y_ND, label_N, weight_N = part
        logits_NV = jnp.einsum("ND,VD->NV", y_ND, table_VD).astype(jnp.float32)
        top_N1 = logits_NV.max(axis=-1, keepdims=True)
        exp_NV = jnp.exp(logits_NV - top_N1)
        sum_N1 = exp_NV.sum(axis=-1, keepdims=True)
        lse_N = (jnp.log(sum_N1) + top_N1)[:, 0]
        hit_NV = jnp.arange(V) == label_N[:, None]
        at_label_N = jnp.take_along_axis(logits_NV, label_N[:, None], axis=-1)[:, 0]
        nll += jnp.sum(weight_N * (lse_N - at_label_N))
        loss += jnp.sum(weight_N * (lse_N - (1 - eps) * at_label_N - eps * logits_NV.mean(axis=-1)))
        dlogits_NV = weight_N[:, None] * (exp_NV / sum_N1 - (1 - eps) * hit_NV - eps / V)
        dlogits_NV = dlogits_NV.astype(y_ND.dtype)
        dtable_VD += jnp.einsum("NV,ND->VD", dlogits_NV, y_ND).astype(jnp.float32)
        return (loss, nll, dtable_VD), jnp.einsum("NV,VD->ND", dlogits_NV, table_VD)

    n = labels_BT.size
    parts = tuple(
        _chunks(x.reshape(n, *x.shape[2:]), min(chunk, n))
        for x in (y_BTD, labels_BT, weights_BT.astype(jnp.float32))
    )
    zero = jnp.zeros((), jnp.float32)
    (loss, nll, dtable_VD), dy = jax.lax.scan(body, (zero, zero, jnp.zeros((V, D), jnp.float32)), parts)
    loss, nll, dtable_VD = _all_sum((loss, nll, dtable_VD))
    return loss, nll, dy.reshape(-1, D)[:n].reshape(y_BTD.shape), dtable_VD


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def smoothed_loss(
    y_BTD: jax.Array,
    embedding_VD: jax.Array,
    labels_BT: jax.Array,
    weights_BT: jax.Array,
    label_smoothing: float,
    chunk: int,
) -> tuple[jax.Array, jax.Array]:
    """Returns (sum of smoothed losses, sum of negative log likelihoods), in nats, float32.

    Only the first sum has a gradient, with respect to `y_BTD` and `embedding_VD`.

    Args:
      y_BTD: the decoder's output.
      embedding_VD: the output projection.
      labels_BT: int32 target ids.
      weights_BT: 1 for real tokens, 0 for padding.
      label_smoothing: eps, spread evenly over the whole vocabulary.
      chunk: tokens whose logits exist at one time, on each device.
    """
    return _forward(y_BTD, embedding_VD, labels_BT, weights_BT, label_smoothing, chunk)[0]


def _forward(
    y_BTD: jax.Array,
    embedding_VD: jax.Array,
    labels_BT: jax.Array,
    weights_BT: jax.Array,
    label_smoothing: float,
    chunk: int,
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    run = _per_shard(partial(_loss_and_grads, eps=label_smoothing, chunk=chunk), ("", "", "B", ""))
    loss, nll, dy_BTD, dtable_VD = run(y_BTD, labels_BT, weights_BT, embedding_VD)
    return (loss, nll), (dy_BTD, dtable_VD.astype(embedding_VD.dtype))


def _backward(
    label_smoothing: float,
    chunk: int,
    grads: tuple[jax.Array, jax.Array],
    cotangents: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array | None, ...]:
    scale = cotangents[0]
    return (*((g * scale).astype(g.dtype) for g in grads), None, None)


smoothed_loss.defvjp(_forward, _backward)


def token_log_probs(
    y_BTD: jax.Array, embedding_VD: jax.Array, labels_BT: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """Returns (log_prob_BT of each label, float32; correct_BT, whether it was the likeliest)."""

    def local(y_BTD: jax.Array, labels_BT: jax.Array, _: jax.Array, table_VD: jax.Array) -> tuple:
        def body(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            y_ND, label_N = part
            logits_NV = jnp.einsum("ND,VD->NV", y_ND, table_VD.astype(y_ND.dtype)).astype(jnp.float32)
            at_label_N = jnp.take_along_axis(logits_NV, label_N[:, None], axis=-1)[:, 0]
            return at_label_N - jax.nn.logsumexp(logits_NV, axis=-1), logits_NV.argmax(axis=-1) == label_N

        n = labels_BT.size
        flat = _chunks(y_BTD.reshape(n, -1), min(chunk, n)), _chunks(labels_BT.reshape(n), min(chunk, n))
        return tuple(x.reshape(-1)[:n].reshape(labels_BT.shape) for x in jax.lax.map(body, flat))

    return _per_shard(local, ("B", "B"))(y_BTD, labels_BT, labels_BT, embedding_VD)
