"""Greedy decoding and sampling: one hypothesis a sentence, one token at a time."""

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
    t: jax.Array
    limit_B: jax.Array
    key_B: jax.Array | None
    ids_B1T: jax.Array
    log_prob_B: jax.Array
    ended_B: jax.Array
    length_B: jax.Array
    cache: Any
    context: Any


def restrict(log_p_BV: jax.Array, temperature: float, top_k: int, top_p: float) -> jax.Array:
    """Returns the logits to sample from: sharpened by temperature, all but the likeliest shut out.

    Args:
      log_p_BV: log-probabilities.
      temperature: divides them; below 1 sharpens.
      top_k: how many stay; 0 keeps all, and so does more than V. Equals of the last one stay too.
      top_p: the likeliest stay whose probabilities, after temperature and `top_k`, first add up to
        this.
    """
    # The likeliest stays at 0 however cold it is, and no heat makes possible what is not.
    below_BV = log_p_BV - log_p_BV.max(axis=-1, keepdims=True)
    scaled_BV = jnp.where(log_p_BV > NEVER, below_BV / temperature, NEVER)
    if 0 < top_k < scaled_BV.shape[-1]:
        smallest_B1 = jax.lax.top_k(scaled_BV, top_k)[0][:, -1:]
        scaled_BV = jnp.where(scaled_BV < smallest_B1, NEVER, scaled_BV)
    if top_p < 1:
        # Compared are values of one array: a second log_softmax might round the likeliest away.
        scaled_BV = jax.nn.log_softmax(scaled_BV)
        ordered_BV = jnp.flip(jnp.sort(scaled_BV, axis=-1), axis=-1)
        before_BV = jnp.cumsum(jnp.exp(ordered_BV), axis=-1) - jnp.exp(ordered_BV)
        smallest_B1 = jnp.where(before_BV < top_p, ordered_BV, jnp.inf).min(axis=-1, keepdims=True)
        scaled_BV = jnp.where(scaled_BV < smallest_B1, NEVER, scaled_BV)
    return scaled_BV


def _choose(
    start_B1: jax.Array,
    logits_B1V: jax.Array,
    may_come: Callable[[jax.Array], jax.Array],
    key_B: jax.Array | None,
    temperature: float,
    top_k: int,
    top_p: float,
) -> tuple[jax.Array, jax.Array]:
    """Returns (the likeliest token_B or a random one, its log-probability).

    Args:
      start_B1, logits_B1V, may_come: as for `likeliest`, of hypotheses with log-probability 0.
      key_B, temperature, top_k, top_p: as in `sample`.
    """
    if temperature == 0 or key_B is None:
        log_p_B1, _, token_B1 = likeliest(start_B1, logits_B1V, may_come, 1)
        return token_B1[:, 0], log_p_B1[:, 0]
    ids_11V = jnp.arange(logits_B1V.shape[-1])[None, None]
    possible_B1V = may_come(ids_11V) & (logits_B1V > NEVER)
    log_p_BV = jnp.where(possible_B1V, logits_B1V + start_B1[..., None], NEVER)[:, 0]
    token_B = jax.vmap(jax.random.categorical)(key_B, restrict(log_p_BV, temperature, top_k, top_p))
    return token_B, jnp.take_along_axis(log_p_BV, token_B[:, None], axis=1)[:, 0]


def sample(
    step_fn: StepFn,
    cache: Any,
    context: Any,
    limit_B: jax.Array,
    key_B: jax.Array | None,
    *,
    lengths: tuple[int, int],
    longer: Callable[[Any], Any],
    alpha: float,
    allowed: Allowed,
    follows: Follows | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    rules: SearchRules = "paper",
) -> Hypotheses:
    """Returns one hypothesis a row: the likeliest token at each step, or a random one.

    Args:
      step_fn, cache, context, limit_B, lengths, longer, alpha, allowed, follows, rules: as in `beam_search`,
        with W = 1.
      key_B: a random key for each row, so that its sample does not depend on the others; unused
        at temperature 0.
      temperature, top_k, top_p: see `restrict`; temperature 0 takes the likeliest token (greedy).
    """

    def step(state: _State) -> _State:
        t, ids_B1T, key_B = state.t, state.ids_B1T, state.key_B
        token_B1 = last_token(ids_B1T, t, allowed.start)
        alone_B1T = jnp.zeros_like(ids_B1T)  # a beam of one place
        logits_B1V, cache = step_fn(token_B1, t, state.cache, alone_B1T, state.context)
        nothing_B1 = jnp.zeros(token_B1.shape)
        rest = allowed, state.context, follows
        following = next_token(logits_B1V, nothing_B1, ids_B1T, t, state.limit_B, *rest)
        if key_B is not None:
            key_B = jax.vmap(jax.random.fold_in, (0, None))(key_B, t)
        token_B, gain_B = _choose(*following, key_B, temperature, top_k, top_p)
        token_B = jnp.where(state.ended_B, 0, token_B).astype(jnp.int32)
        return state._replace(
            t=state.t + 1,
            ids_B1T=state.ids_B1T.at[:, 0, state.t].set(token_B),
            log_prob_B=state.log_prob_B + jnp.where(state.ended_B, 0.0, gain_B),
            ended_B=state.ended_B | (token_B == allowed.end),
            length_B=state.length_B + ~state.ended_B,
            cache=cache,
        )

    B = limit_B.shape[0]
    zeros = dict(ids_B1T=jnp.zeros((B, 1, lengths[-1]), jnp.int32), log_prob_B=jnp.zeros(B))
    counts = dict(ended_B=jnp.zeros(B, bool), length_B=jnp.zeros(B, jnp.int32))
    start = _State(jnp.int32(0), limit_B, key_B, **zeros, **counts, cache=cache, context=context)
    state = search(lambda s: ~s.ended_B, step, start, lengths, longer)
    score_B = state.log_prob_B / length_penalty(state.length_B, alpha, rules)
    return Hypotheses(state.ids_B1T, score_B[:, None], state.log_prob_B[:, None])
