"""Beam search (paper, section 6.1): a pure function that knows no model."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from transformer.decoding.scores import (
    NEVER,
    Hypotheses,
    StepFn,
    allowed,
    last_token,
    length_penalty,
    likeliest,
)
from transformer.decoding.search import search


class _State(NamedTuple):
    t: jax.Array  # position that is decoded next
    limit_B: jax.Array  # longest output
    alive_BWT: jax.Array  # hypotheses without an end mark
    log_prob_BW: jax.Array  # their log-probabilities
    ancestor_BWT: jax.Array  # their places in the beam at each position; from t on, their own
    finished: Hypotheses
    cache: Any
    context: Any


def beam_search(
    step_fn: StepFn,
    cache: Any,
    context: Any,
    limit_B: jax.Array,
    *,
    beam_size: int,
    lengths: tuple[int, int],
    alpha: float,
    n_best: int | jax.Array,
    bos_id: int,
    eos_id: int,
    forbidden: tuple[int, ...] = (),
) -> Hypotheses:
    """Finds the likeliest outputs by beam search.

    The search of a row ends when no hypothesis still alive can become one of its `n_best`: with a
    beam as wide as all continuations it is exhaustive search.

    Args:
      step_fn: the model, see `StepFn`.
      cache: what it keeps of earlier positions, a pytree of arrays [B, H, T * W, ...].
      context: what stays the same, a pytree of arrays that begin with B.
      limit_B: longest output of each row, end mark included; an end mark is forced there.
      beam_size: W, hypotheses kept alive for each row.
      lengths: T of the cache, see `search`; the last one is at least the largest limit.
      alpha: exponent of the length penalty.
      n_best: how many outputs are wanted, 1 to W.
      bos_id: first decoder input.
      eos_id: end mark.
      forbidden: ids that are never part of an output.

    Returns:
      W hypotheses a row, of which the first `n_best` are final; the others depend on how long the
      rest of the batch went on.
    """
    B, W = limit_B.shape[0], beam_size
    no_ids_BWT = jnp.zeros((B, W, lengths[-1]), jnp.int32)
    own_1W1, position_T = jnp.arange(W)[None, :, None], jnp.arange(lengths[-1])
    nothing_BW = jnp.full((B, W), NEVER)
    state = _State(
        t=jnp.zeros((), jnp.int32),
        limit_B=limit_B,
        alive_BWT=no_ids_BWT,
        log_prob_BW=nothing_BW.at[:, 0].set(0.0),
        ancestor_BWT=no_ids_BWT + own_1W1,
        finished=Hypotheses(no_ids_BWT, nothing_BW, nothing_BW),
        cache=cache,
        context=context,
    )

    def is_open(state: _State) -> jax.Array:
        # Log-probabilities only fall, so the best that may come divides today's by the largest penalty.
        now, last = length_penalty(state.t + 1, alpha), length_penalty(state.limit_B, alpha)
        possible_B = state.log_prob_BW.max(axis=1) / jnp.maximum(now, last)
        return (state.finished.score_BW[:, n_best - 1] < possible_B) & (state.t < state.limit_B)

    def step(state: _State) -> _State:
        token_BW = last_token(state.alive_BWT, state.t, bos_id)
        logits_BWV, cache = step_fn(token_BW, state.t, state.cache, state.ancestor_BWT, state.context)
        logits_BWV = logits_BWV.astype(jnp.float32)
        allowed_BWV = allowed(logits_BWV, state.t, state.limit_B, eos_id, forbidden)
        # Of 2 W candidates at most W end, so W that go on are always among them.
        count = min(2 * W, W * logits_BWV.shape[-1])
        top_BC, beam_BC, token_BC = likeliest(state.log_prob_BW, logits_BWV, allowed_BWV, count)
        ids_BCT = _gather(state.alive_BWT, beam_BC).at[:, :, state.t].set(token_BC)
        possible_BC = top_BC > NEVER / 2  # early on there are fewer candidates than places for them
        ends_BC = token_BC == eos_id
        finished = _merge(
            state.finished, ids_BCT, top_BC, ends_BC & possible_BC, length_penalty(state.t + 1, alpha), W
        )
        alive_BW, kept_BW = jax.lax.top_k(jnp.where(ends_BC, NEVER, top_BC), W)
        parent_BW = jnp.take_along_axis(beam_BC, kept_BW, axis=1)
        return state._replace(
            t=state.t + 1,
            alive_BWT=_gather(ids_BCT, kept_BW),
            log_prob_BW=jnp.maximum(alive_BW, NEVER),
            ancestor_BWT=jnp.where(position_T <= state.t, _gather(state.ancestor_BWT, parent_BW), own_1W1),
            finished=finished,
            cache=cache,
        )

    return search(is_open, step, state, lengths).finished


def _gather(x: jax.Array, index_BC: jax.Array) -> jax.Array:
    """Returns x[b, index[b, c]] for all b, c."""
    return jax.vmap(lambda row, index: row[index])(x, index_BC)


def _merge(
    old: Hypotheses,
    ids_BCT: jax.Array,
    log_prob_BC: jax.Array,
    ends_BC: jax.Array,
    penalty: jax.Array,
    W: int,
) -> Hypotheses:
    """Returns the W best of the finished hypotheses and the candidates that end now."""
    score_BC = jnp.where(ends_BC, log_prob_BC / penalty, NEVER)
    score_BN = jnp.concatenate([old.score_BW, score_BC], axis=1)
    score_BW, kept_BW = jax.lax.top_k(score_BN, W)
    ids_BNT = jnp.concatenate([old.ids_BWT, ids_BCT], axis=1)
    log_prob_BN = jnp.concatenate([old.log_prob_BW, log_prob_BC], axis=1)
    return Hypotheses(_gather(ids_BNT, kept_BW), score_BW, _gather(log_prob_BN, kept_BW))
