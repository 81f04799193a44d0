"""What every way of decoding shares: hypotheses, their scores, what may come next."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

StepFn = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]]
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


def length_penalty(length: jax.Array | int, alpha: float) -> jax.Array:
    """Returns ``((5 + length) / 6) ** alpha`` (Wu et al. 2016, equation 14; the paper's section 6.1).

    Args:
      length: tokens of the output, end mark included.
      alpha: 0 leaves log-probabilities as they are; above 0 favours longer outputs.
    """
    return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** alpha


def last_token(ids_BWT: jax.Array, t: jax.Array, bos_id: int) -> jax.Array:
    """Returns the decoder input at position `t`, int32 [B, W]."""
    previous_BW = jnp.take(ids_BWT, jnp.maximum(t - 1, 0), axis=2)
    return jnp.where(t == 0, bos_id, previous_BW)


def next_log_probs(
    logits_BWV: jax.Array, t: jax.Array, limit_B: jax.Array, eos_id: int, forbidden: tuple[int, ...]
) -> jax.Array:
    """Returns the model's log-probabilities, with what must not come next at `NEVER`."""
    log_p_BWV = jax.nn.log_softmax(logits_BWV.astype(jnp.float32))
    ids_V = jnp.arange(log_p_BWV.shape[-1])
    for token in forbidden:
        log_p_BWV = jnp.where(ids_V == token, NEVER, log_p_BWV)
    must_end_B11 = (t + 1 >= limit_B)[:, None, None]
    return jnp.where(must_end_B11 & (ids_V != eos_id), NEVER, log_p_BWV)
