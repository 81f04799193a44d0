"""What every way of decoding shares: hypotheses, their scores, what may come next."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from transformer.config import SearchRules

# (token_BW, t, cache, ancestor_BWT, context) -> (logits_BWV of the next token, cache with position t
# written). The cache is never reordered: at position s, hypothesis w was at place ancestor_BWT[b, w, s] of
# the beam. The context is what stays the same from step to step.
StepFn = Callable[[jax.Array, jax.Array, Any, jax.Array, Any], tuple[jax.Array, Any]]
# (ids_BWT, t, limit_B, context) -> which tokens may stand at position t of each hypothesis, bool [B, W, V].
Follows = Callable[[jax.Array, jax.Array, jax.Array, Any], jax.Array]
NEVER = -1e9  # log-probability of what must not happen; finite, so that sums and gathers stay finite


class Hypotheses(NamedTuple):
    """Finished outputs, the best first.

    Attributes:
      ids_BWT: int32 token ids; after the end mark, padding (0).
      score_BW: log-probability over the length penalty; `NEVER` where there is none.
      log_prob_BW: sum of the tokens' log-probabilities, end mark included, in nats.
    """

    ids_BWT: jax.Array
    score_BW: jax.Array
    log_prob_BW: jax.Array


class Allowed(NamedTuple):
    """Which outputs there may be.

    Attributes:
      start: first decoder input.
      end: end mark.
      forbidden: ids that are never part of an output.
      prefix: ids that every output begins with; they are given, so they cost nothing.
      min_length: no end mark comes before this many tokens, itself counted, unless the limit is reached.
      no_repeat_ngram_size: so many tokens in a row come once only, see `without_repeats`; 0: more often.
    """

    start: int
    end: int
    forbidden: tuple[int, ...] = ()
    prefix: tuple[int, ...] = ()
    min_length: int = 0
    no_repeat_ngram_size: int = 0


def length_penalty(length: jax.Array | int, alpha: float, rules: SearchRules = "paper") -> jax.Array:
    """Returns ``((5 + length) / 6) ** alpha`` (Wu et al. 2016, equation 14; the paper's section 6.1).

    Args:
      length: tokens of the output, end mark included.
      alpha: 0 leaves log-probabilities as they are; above 0 favours longer outputs.
      rules: by those of Hugging Face it is ``length ** alpha``.
    """
    length = jnp.asarray(length, jnp.float32)
    return ((5.0 + length) / 6.0 if rules == "paper" else length) ** alpha


def last_token(ids_BWT: jax.Array, t: jax.Array, bos_id: int) -> jax.Array:
    """Returns the decoder input at position `t`, int32 [B, W]."""
    previous_BW = jnp.take(ids_BWT, jnp.maximum(t - 1, 0), axis=2)
    return jnp.where(t == 0, bos_id, previous_BW)


def next_token(
    logits_BWV: jax.Array,
    log_prob_BW: jax.Array,
    ids_BWT: jax.Array,
    t: jax.Array,
    limit_B: jax.Array,
    allowed: Allowed,
    context: Any = (),
    follows: Follows | None = None,
) -> tuple[jax.Array, jax.Array, Callable[[jax.Array], jax.Array]]:
    """Returns what `likeliest` takes: (start_BW, logits_BWV, may_come).

    Args:
      logits_BWV: of the token at position `t`, as the model has them.
      log_prob_BW: log-probabilities of the hypotheses.
      ids_BWT: the hypotheses so far.
      t: scalar int32.
      limit_B: longest output of each row.
      allowed: which outputs there may be; the probability of what may not be is not shared out among them.
      context: of the rows, for `follows`.
      follows: which tokens may come after those of a hypothesis; None: all.
    """
    logits_BWV = _begun(logits_BWV.astype(jnp.float32), t, allowed.prefix)
    start_BW = log_prob_BW - jax.nn.logsumexp(logits_BWV, axis=-1)
    if allowed.no_repeat_ngram_size:
        logits_BWV = without_repeats(logits_BWV, ids_BWT, t, limit_B, allowed)
    if follows is not None:
        logits_BWV = jnp.where(follows(ids_BWT, t, limit_B, context), logits_BWV, NEVER)
    return start_BW, logits_BWV, partial(_may_come, t=t, limit_B=limit_B, allowed=allowed)


def _may_come(token: jax.Array, t: jax.Array, limit_B: jax.Array, allowed: Allowed) -> jax.Array:
    """Returns whether tokens [B or 1, ...] may come at position `t` of each row, [B, ...]."""
    must_end_B = (t + 1 >= limit_B).reshape(-1, *(1,) * (token.ndim - 1))
    ends = token == allowed.end
    possible = ~jnp.isin(token, jnp.array(allowed.forbidden, jnp.int32)) & (~must_end_B | ends)
    if allowed.min_length:
        possible &= must_end_B | ~ends | (t + 1 >= allowed.min_length)
    return possible


def without_repeats(
    logits_BWV: jax.Array, ids_BWT: jax.Array, t: jax.Array, limit_B: jax.Array, allowed: Allowed
) -> jax.Array:
    """Returns the logits, `NEVER` for tokens that would end an n-gram which the hypothesis has already.

    As in Hugging Face's processor of that name, the first decoder input is part of the hypothesis, and
    neither what outputs begin with nor the end mark at the limit is banned.

    Args: as for `next_token`.
    """
    (B, W, T), n = ids_BWT.shape, allowed.no_repeat_ngram_size
    count = T + 2 - n  # n-grams of the longest hypothesis
    if count < 1:
        return logits_BWV
    seen_BWT = jnp.concatenate([jnp.full_like(ids_BWT[..., :1], allowed.start), ids_BWT], axis=2)
    banned_BWC = jnp.broadcast_to(jnp.arange(count) + n <= t + 1, (B, W, count))
    for i in range(n - 1):
        last_BW1 = jnp.take(seen_BWT, jnp.maximum(t + 2 - n + i, 0), axis=2)[..., None]
        banned_BWC &= seen_BWT[..., i : i + count] == last_BW1
    token_BWC = seen_BWT[..., n - 1 :]
    must_end_B11 = (t + 1 >= limit_B)[:, None, None]
    banned_BWC &= (t >= len(allowed.prefix)) & ~(must_end_B11 & (token_BWC == allowed.end))
    token_BWC = jnp.where(banned_BWC, token_BWC, logits_BWV.shape[-1])  # beyond the last one: dropped
    place = jnp.arange(B)[:, None, None], jnp.arange(W)[None, :, None], token_BWC
    return logits_BWV.at[place].set(NEVER, mode="drop")


def _begun(logits_BWV: jax.Array, t: jax.Array, prefix: tuple[int, ...]) -> jax.Array:
    """Returns the logits; where `t` is in the prefix, with all probability on its token."""
    ids_V = jnp.arange(logits_BWV.shape[-1])
    for place, token in enumerate(prefix):
        logits_BWV = jnp.where(t == place, jnp.where(ids_V == token, 0.0, NEVER), logits_BWV)
    return logits_BWV


def _block(V: int) -> int:
    """Returns the length of the blocks in which V values are looked through."""
    whole = max(n for n in range(1, min(V, 128) + 1) if V % n == 0)
    return whole if whole >= min(V, 32) else 64


def likeliest(
    start_BW: jax.Array, logits_BWV: jax.Array, may_come: Callable[[jax.Array], jax.Array], k: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the k likeliest continuations of each row's hypotheses, as one `jax.lax.top_k` would.

    That takes long for W * V values on the CPU, so first come blocks of them: the k largest values lie
    in those k blocks whose largest values are the largest.

    Args:
      start_BW: makes log-probabilities of hypotheses with one more token of the logits, when added.
      logits_BWV: of that token.
      may_come: tells of tokens [B or 1, ...] which may, bool [B, ...]; the others have `NEVER`.
      k: 1 to W * V.

    Returns:
      (log_prob_BK, the largest first; place_BK, the hypothesis; token_BK), the last two int32.
    """
    B, W, V = logits_BWV.shape
    block = _block(V)
    width = V + -V % block

    def masked(x: jax.Array, number: jax.Array) -> jax.Array:
        token = number % width
        return jnp.where(may_come(token), x, jnp.where(token < V, NEVER, -jnp.inf))

    padded_BWV = jnp.pad(logits_BWV, ((0, 0), (0, 0), (0, width - V)), constant_values=-jnp.inf)
    blocks_BMN = padded_BWV.reshape(B, -1, block)
    M = blocks_BMN.shape[1]
    start_BM = jnp.repeat(start_BW, M // W, axis=1)
    number_1MN = jnp.arange(M * block, dtype=jnp.int32).reshape(1, M, block)
    most_BM = masked(blocks_BMN, number_1MN).max(axis=-1)
    _, chosen_BK = jax.lax.top_k(most_BM + start_BM, min(k, M))
    chosen_BK = jnp.sort(chosen_BK, axis=-1)  # of equal values the first one counts as the larger
    # Masked again, since the masked whole would have to be written to memory for this.
    near_BKN = jnp.take_along_axis(blocks_BMN, chosen_BK[..., None], axis=1)
    near_BKN = masked(near_BKN, chosen_BK[..., None] * block + jnp.arange(block))
    near_BKN += jnp.take_along_axis(start_BM, chosen_BK, axis=1)[..., None]
    top_BK, index_BK = jax.lax.top_k(near_BKN.reshape(B, -1), k)
    found_BK = jnp.take_along_axis(chosen_BK, index_BK // block, axis=1) * block + index_BK % block
    return top_BK, found_BK // width, (found_BK % width).astype(jnp.int32)
