"""Cross entropy with label smoothing (paper, section 5.4) that never holds all logits.

With smoothing eps over V classes, one token costs
``lse(logits) - (1 - eps) * logit[label] - eps * mean(logits)``: no one-hot matrix is needed. Tokens
are taken in chunks, and their gradients are computed while the chunk's logits exist. Where few tokens
count, as in a masked language model, they come first, and chunks of others are left out.

On a mesh every device has rows of its own (axes `data` and `fsdp`) and a share of the vocabulary
(axis `tensor`), so each product of a token and a piece is computed once. Here V is the device's
share; what the whole vocabulary has to say, a few numbers a token, is summed over `tensor`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from transformer.axes import AXES, GATHERED_AXES, ROW_AXES, copies, spec

_PIECES = AXES["V"]


def _on_mesh() -> bool:
    return not jax.sharding.get_abstract_mesh().empty


def _over(axes: tuple[str, ...], reduce: Callable[..., Any], x: Any) -> Any:
    """Returns `x` reduced over mesh axes by psum, pmax or pmin; as it is outside a mesh."""
    return reduce(x, axes) if _on_mesh() else x


def _per_device(function: Callable[..., Any], out_letters: tuple[str, ...]) -> Callable[..., Any]:
    """Runs `function(y_BTD, labels_BT, weights_BT, table_RVD, bias_V)` on each device's rows and pieces.

    A scan over the tokens of a sharded batch would otherwise make every device compute all of
    them. Outside a mesh this is `function` itself.
    """
    if not _on_mesh():
        return function
    return jax.shard_map(
        function,
        in_specs=(spec("B"), spec("B"), spec("B"), spec("RVD"), spec("V")),
        out_specs=tuple(spec(letters) for letters in out_letters),
        check_vma=False,
    )


def _whole_columns(table_RVD: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Returns table_VD, all columns of this device's copy."""
    table_VD = table_RVD[0].astype(dtype)
    return jax.lax.all_gather(table_VD, GATHERED_AXES, axis=1, tiled=True) if _on_mesh() else table_VD


def _own_columns(dtable_VD: jax.Array) -> jax.Array:
    """Returns dtable_RVD, summed over the devices that share this copy, of which each has its columns."""
    if _on_mesh():
        dtable_VD = jax.lax.psum_scatter(dtable_VD, GATHERED_AXES, scatter_dimension=1, tiled=True)
    return dtable_VD[None]


def _flat(x: jax.Array) -> jax.Array:
    """Returns `x` [B, T, ...] as tokens, [N, ...]."""
    return x.reshape(-1, *x.shape[2:])


def _chunks(x: jax.Array, chunk: int) -> jax.Array:
    """Returns tokens [N, ...], padded with zeros to whole chunks: [chunks, <= `chunk`, ...]."""
    n, chunk = len(x), min(chunk, len(x))
    x = jnp.pad(x, [(0, -n % chunk)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(-1, chunk, *x.shape[1:])


def _counted_first(weights_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the order_N of tokens in which those that count come first, and the most that a device has."""
    counted_N = _flat(weights_BT) != 0
    return jnp.argsort(~counted_N), _over(ROW_AXES, jax.lax.pmax, counted_N.sum())


class _Softmax(NamedTuple):
    """A chunk's logits and what is known of the softmax over the whole vocabulary.

    Attributes:
      logits_NV: float32, this device's pieces.
      exp_NV: exp(logits - the largest one anywhere).
      sum_N1: of exp over all pieces.
      lse_N: log of the sum of exp(logits).
      at_label_N: the label's logit.
      hit_NV: where the label is, if it is here.
      first: number of this device's first piece.
    """

    logits_NV: jax.Array
    exp_NV: jax.Array
    sum_N1: jax.Array
    lse_N: jax.Array
    at_label_N: jax.Array
    hit_NV: jax.Array
    first: jax.Array | int


def _softmax(y_ND: jax.Array, label_N: jax.Array, table_VD: jax.Array, bias_V: jax.Array | None) -> _Softmax:
    V = table_VD.shape[0]
    first = jax.lax.axis_index(_PIECES) * V if _on_mesh() else 0
    logits_NV = jnp.einsum("ND,VD->NV", y_ND, table_VD).astype(jnp.float32)
    if bias_V is not None:
        logits_NV += bias_V
    top_N1 = _over(_PIECES, jax.lax.pmax, logits_NV.max(axis=-1, keepdims=True))
    exp_NV = jnp.exp(logits_NV - top_N1)
    here_N1 = label_N[:, None] - first
    at_label_N1 = jnp.take_along_axis(logits_NV, jnp.clip(here_N1, 0, V - 1), axis=-1)
    at_label_N1 = jnp.where((here_N1 >= 0) & (here_N1 < V), at_label_N1, 0)
    sums = exp_NV.sum(axis=-1, keepdims=True), at_label_N1
    sum_N1, at_label_N1 = _over(_PIECES, jax.lax.psum, sums)
    lse_N = (jnp.log(sum_N1) + top_N1)[:, 0]
    return _Softmax(logits_NV, exp_NV, sum_N1, lse_N, at_label_N1[:, 0], jnp.arange(V) == here_N1, first)


def _loss_and_grads(
    y_BTD: jax.Array,
    labels_BT: jax.Array,
    weights_BT: jax.Array,
    table_RVD: jax.Array,
    bias_V: jax.Array | None,
    eps: float,
    chunk: int,
    sparse: bool,
    vocab: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array | None]:
    """Returns (loss sum, nll sum, dy_BTD, dtable_RVD, dbias_V) on one device."""
    table_VD = _whole_columns(table_RVD, y_BTD.dtype)
    tokens = tuple(_flat(x) for x in (y_BTD, labels_BT, weights_BT.astype(jnp.float32)))
    if sparse:
        order_N, most = _counted_first(weights_BT)
        tokens = tuple(jnp.take(x, order_N, axis=0) for x in tokens)
    parts = tuple(_chunks(x, chunk) for x in tokens)
    count = -(-most // parts[0].shape[1]) if sparse else len(parts[0])

    def body(i: jax.Array, total: tuple) -> tuple:
        loss, nll, dtable_VD, dbias_V, dy = total
        y_ND, label_N, weight_N = (part[i] for part in parts)
        soft = _softmax(y_ND, label_N, table_VD, bias_V)
        mean_N = _over(_PIECES, jax.lax.psum, soft.logits_NV.sum(axis=-1)) / vocab
        nll += jnp.sum(weight_N * (soft.lse_N - soft.at_label_N))
        loss += jnp.sum(weight_N * (soft.lse_N - (1 - eps) * soft.at_label_N - eps * mean_N))
        dlogits_NV = soft.exp_NV / soft.sum_N1 - (1 - eps) * soft.hit_NV - eps / vocab
        dlogits_NV = weight_N[:, None] * dlogits_NV
        if bias_V is not None:
            dbias_V += dlogits_NV.sum(axis=0)
        dlogits_NV = dlogits_NV.astype(y_ND.dtype)
        dtable_VD += jnp.einsum("NV,ND->VD", dlogits_NV, y_ND).astype(jnp.float32)
        return loss, nll, dtable_VD, dbias_V, dy.at[i].set(jnp.einsum("NV,VD->ND", dlogits_NV, table_VD))

    zero = jnp.zeros((), jnp.float32)
    no_bias_V = None if bias_V is None else jnp.zeros(bias_V.shape, jnp.float32)
    start = zero, zero, jnp.zeros(table_VD.shape, jnp.float32), no_bias_V, jnp.zeros_like(parts[0])
    loss, nll, dtable_VD, dbias_V, dy = jax.lax.fori_loop(0, count, body, start)
    loss, nll, dbias_V = _over(ROW_AXES, jax.lax.psum, (loss, nll, dbias_V))
    dy_ND = _flat(dy)[: labels_BT.size]
    if sparse:
        dy_ND = jnp.zeros_like(dy_ND).at[order_N].set(dy_ND, unique_indices=True)
    dy_BTD = _over(_PIECES, jax.lax.psum, dy_ND.reshape(y_BTD.shape))
    return loss, nll, dy_BTD, _own_columns(dtable_VD), dbias_V


def smoothed_loss(
    y_BTD: jax.Array,
    table: jax.Array,
    labels_BT: jax.Array,
    weights_BT: jax.Array,
    label_smoothing: float,
    chunk: int,
    bias_V: jax.Array | None = None,
    sparse: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Returns (sum of smoothed losses, sum of negative log likelihoods), in nats, float32.

    Only the first sum has a gradient, with respect to `y_BTD`, `table` and `bias_V`.

    Args:
      y_BTD: the decoder's output.
      table: the output projection, [V, D], or [R, V, D] as `axes.copies` makes it.
      labels_BT: int32 target ids.
      weights_BT: 1 for real tokens, 0 for padding.
      label_smoothing: eps, spread evenly over the whole vocabulary.
      chunk: tokens whose logits exist at one time, on each device.
      bias_V: added to the logits.
      sparse: whether few tokens count; the others' logits are not computed, whole chunks of them at least.
    """
    forms = label_smoothing, chunk, sparse
    return _smoothed_loss(y_BTD, _in_copies(table), labels_BT, weights_BT, bias_V, *forms)


def _in_copies(table: jax.Array) -> jax.Array:
    return copies(table, "VD") if table.ndim == 2 else table


@partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7))
def _smoothed_loss(
    y_BTD: jax.Array,
    table_RVD: jax.Array,
    labels_BT: jax.Array,
    weights_BT: jax.Array,
    bias_V: jax.Array | None,
    eps: float,
    chunk: int,
    sparse: bool,
) -> tuple[jax.Array, jax.Array]:
    return _forward(y_BTD, table_RVD, labels_BT, weights_BT, bias_V, eps, chunk, sparse)[0]


def _forward(
    y_BTD: jax.Array,
    table_RVD: jax.Array,
    labels_BT: jax.Array,
    weights_BT: jax.Array,
    bias_V: jax.Array | None,
    eps: float,
    chunk: int,
    sparse: bool,
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array | None, ...]]:
    local = partial(_loss_and_grads, eps=eps, chunk=chunk, sparse=sparse, vocab=table_RVD.shape[1])
    run = _per_device(local, ("", "", "B", "RVD", "V"))
    loss, nll, dy_BTD, dtable_RVD, dbias_V = run(y_BTD, labels_BT, weights_BT, table_RVD, bias_V)
    if bias_V is not None:
        dbias_V = dbias_V.astype(bias_V.dtype)
    return (loss, nll), (dy_BTD, dtable_RVD.astype(table_RVD.dtype), dbias_V)


def _backward(
    eps: float,
    chunk: int,
    sparse: bool,
    grads: tuple[jax.Array | None, ...],
    cotangents: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array | None, ...]:
    dy_BTD, dtable_RVD, dbias_V = jax.tree.map(lambda g: (g * cotangents[0]).astype(g.dtype), grads)
    return dy_BTD, dtable_RVD, None, None, dbias_V


_smoothed_loss.defvjp(_forward, _backward)


def token_log_probs(
    y_BTD: jax.Array, table: jax.Array, labels_BT: jax.Array, chunk: int, bias_V: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Returns (log_prob_BT of each label, float32; correct_BT, whether it was the likeliest).

    Of equally likely pieces the first counts as the likeliest. Arguments as in `smoothed_loss`.
    """

    def local(
        y_BTD: jax.Array,
        labels_BT: jax.Array,
        _: jax.Array,
        table_RVD: jax.Array,
        bias_V: jax.Array | None,
    ) -> tuple:
        table_VD = _whole_columns(table_RVD, y_BTD.dtype)

        def body(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            soft = _softmax(*part, table_VD, bias_V)
            return soft.at_label_N - soft.lse_N, _argmax(soft) == part[1]

        found = jax.lax.map(body, (_chunks(_flat(y_BTD), chunk), _chunks(_flat(labels_BT), chunk)))
        return tuple(x.reshape(-1)[: labels_BT.size].reshape(labels_BT.shape) for x in found)

    return _per_device(local, ("B", "B"))(y_BTD, labels_BT, labels_BT, _in_copies(table), bias_V)


def _argmax(soft: _Softmax) -> jax.Array:
    """Returns the number of the likeliest piece of the whole vocabulary, the lowest of several."""
    best_N = soft.first + soft.logits_NV.argmax(axis=-1)
    here_N = soft.logits_NV.max(axis=-1)
    top_N = _over(_PIECES, jax.lax.pmax, here_N)
    # A device whose best is not the best of all names a piece after every real one.
    return _over(_PIECES, jax.lax.pmin, jnp.where(here_N >= top_N, best_N, jnp.iinfo(jnp.int32).max))
