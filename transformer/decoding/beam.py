"""Beam search (paper, section 6.1): a pure function that knows no model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from transformer.config import SearchRules
from transformer.decoding.scores import (
    NEVER,
    Allowed,
    Follows,
    Hypotheses,
    StepFn,
    last_token,
    length_penalty,
    likeliest,
    next_token,
)
from transformer.decoding.search import search


class _State(NamedTuple):
    t: jax.Array  # position that is decoded next
    limit_B: jax.Array  # longest output
    open_B: jax.Array  # whether a better output may come
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
    longer: Callable[[Any], Any],
    alpha: float,
    n_best: int | jax.Array,
    allowed: Allowed,
    follows: Follows | None = None,
    rules: SearchRules = "paper",
) -> Hypotheses:
    """Finds the likeliest outputs by beam search.

    The search of a row ends when no hypothesis still alive can become one of its `n_best`: with a
    beam as wide as all continuations it is exhaustive search. By other rules it ends when they say so.

    Args:
      step_fn: the model, see `StepFn`.
      cache: what it keeps of earlier positions, a pytree of arrays that begin with B.
      context: what stays the same, a pytree of arrays that begin with B.
      limit_B: longest output of each row, end mark included; an end mark is forced there.
      beam_size: W, hypotheses kept alive for each row.
      lengths: positions that the cache has room for, see `search`; the last is at least the largest limit.
      longer: gives a cache room for the last of them.
      alpha: exponent of the length penalty.
      n_best: how many outputs are wanted, 1 to W.
      allowed: which outputs there may be.
      follows: which tokens may come after those of a hypothesis; None: all.
      rules: how length counts, when a row ends, and which candidates may end, see `_may_improve`.

    Returns:
      W hypotheses a row, of which the first `n_best` are final.
    """
    B, W = limit_B.shape[0], beam_size
    no_ids_BWT = jnp.zeros((B, W, lengths[-1]), jnp.int32)
    own_1W1, position_T = jnp.arange(W)[None, :, None], jnp.arange(lengths[-1])
    nothing_BW = jnp.full((B, W), NEVER)
    state = _State(
        t=jnp.zeros((), jnp.int32),
        limit_B=limit_B,
        open_B=limit_B > 0,
        alive_BWT=no_ids_BWT,
        log_prob_BW=nothing_BW.at[:, 0].set(0.0),
        ancestor_BWT=no_ids_BWT + own_1W1,
        finished=Hypotheses(no_ids_BWT, nothing_BW, nothing_BW),
        cache=cache,
        context=context,
    )

    def step(state: _State) -> _State:
        token_BW = last_token(state.alive_BWT, state.t, allowed.start)
        logits_BWV, cache = step_fn(token_BW, state.t, state.cache, state.ancestor_BWT, state.context)
        hypotheses = state.log_prob_BW, state.alive_BWT, state.t, state.limit_B
        start_BW, logits_BWV, may_come = next_token(logits_BWV, *hypotheses, allowed, state.context, follows)
        # Of 2 W candidates at most W end, so W that go on are always among them.
        count = min(2 * W, W * logits_BWV.shape[-1])
        top_BC, beam_BC, token_BC = likeliest(start_BW, logits_BWV, may_come, count)
        ids_BCT = _gather(state.alive_BWT, beam_BC).at[:, :, state.t].set(token_BC)
        ends_BC = token_BC == allowed.end
        kept_BC = ends_BC & (top_BC > NEVER / 2)  # early on there are fewer candidates than places for them
        kept_BC &= state.open_B[:, None] & ((rules == "paper") | (jnp.arange(count) < W))
        penalty = length_penalty(state.t + 1, alpha, rules)
        finished = _merge(state.finished, ids_BCT, top_BC, kept_BC, penalty, W)
        alive_BW, kept_BW = jax.lax.top_k(jnp.where(ends_BC, NEVER, top_BC), W)
        parent_BW = jnp.take_along_axis(beam_BC, kept_BW, axis=1)
        t, best_B = state.t + 1, alive_BW[:, 0]
        goes_on_B = _may_improve(best_B, t, state.limit_B, finished.score_BW, alpha, n_best, rules)
        return state._replace(
            t=t,
            open_B=state.open_B & goes_on_B & (t < state.limit_B),
            alive_BWT=_gather(ids_BCT, kept_BW),
            log_prob_BW=jnp.maximum(alive_BW, NEVER),
            ancestor_BWT=jnp.where(position_T <= state.t, _gather(state.ancestor_BWT, parent_BW), own_1W1),
            finished=finished,
            cache=cache,
        )

    return search(lambda state: state.open_B, step, state, lengths, longer).finished


def _may_improve(
    best_B: jax.Array,
    t: jax.Array,
    limit_B: jax.Array,
    score_BW: jax.Array,
    alpha: float,
    n_best: int | jax.Array,
    rules: SearchRules,
) -> jax.Array:
    """Returns for each row whether a hypothesis alive may still change its outputs.

    By the paper's rules that is certain: log-probabilities only fall, so the best that may come divides
    today's by the largest penalty. Hugging Face's (`GenerationMixin._beam_search` of transformers 5) ask
    whether the best alive would, at its length ("never": at the best one), beat the worst of W finished
    ones; with "early" W of them are enough.

    Args:
      best_B: log-probability of the best hypothesis alive.
      t: its length.
      limit_B: longest output.
      score_BW: of the finished ones, the best first.
      alpha, n_best, rules: as in `beam_search`.
    """
    if rules == "huggingface_early":
        return score_BW[:, -1] <= NEVER / 2
    now = length_penalty(t + 1 if rules == "paper" else t, alpha, rules)
    if rules != "huggingface":
        now = jnp.maximum(now, length_penalty(limit_B, alpha, rules))
    worst_B = score_BW[:, n_best - 1] if rules == "paper" else score_BW[:, -1]
    return worst_B < best_B / now


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
