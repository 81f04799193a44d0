"""The loop over positions, with no more rows and no longer a cache than it needs."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

State = TypeVar("State", bound=Any)
_FEWER = 4  # a quarter of the rows goes on alone
_MANY = 8  # rows that are worth it


def search(
    is_open: Callable[[State], jax.Array],
    step: Callable[[State], State],
    state: State,
    lengths: tuple[int, int],
    longer: Callable[[Any], Any],
) -> State:
    """Decodes until no row is open.

    Most outputs are hardly longer than their sources, and a few rows keep all others waiting. So the
    search begins with a short cache, and as soon as a quarter of the rows is left, or the cache is
    full, the open rows go on alone with a longer one, so many at a time.

    Args:
      is_open: state -> bool [B], which rows are not done.
      step: decodes position `state.t`.
      state: a NamedTuple before the first step: `t`, a scalar, and pytrees of arrays that begin with B.
      lengths: positions that its `cache` has room for at first, and the number that is never exceeded.
      longer: gives a cache of the first length the last.

    Returns:
      The state after all steps; of `t` and `cache` nothing is promised.
    """
    first, last = lengths
    B = is_open(state).shape[0]

    def run(state: State, most_open: int, length: int) -> State:
        return jax.lax.while_loop(lambda s: (is_open(s).sum() > most_open) & (s.t < length), step, state)

    if B < _MANY or not jax.sharding.get_abstract_mesh().empty:  # rows of a mesh stay on their devices
        return run(state._replace(cache=longer(state.cache)), 0, last)
    few = B // _FEWER
    state = run(state, few, first)
    t, cache = state.t, state.cache

    def finish_some(carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
        whole, left_B = carry
        chosen = jnp.argsort(~left_B, stable=True)[:few]  # filled up with rows that are done
        part = jax.tree.map(lambda x: x[chosen], whole._replace(cache=cache))
        part = part._replace(t=t, cache=longer(part.cache))
        done = run(part, 0, last)._replace(t=None, cache=None)
        # Those went over old positions again: their results are dropped.
        kept = jnp.where(left_B[chosen], chosen, B)
        whole = jax.tree.map(lambda x, new: x.at[kept].set(new, mode="drop"), whole, done)
        return whole, left_B.at[chosen].set(False)

    start = state._replace(t=None, cache=None), is_open(state)
    return jax.lax.while_loop(lambda carry: carry[1].any(), finish_some, start)[0]
