"""How a query and a key become a score: the ways that attention may choose from.

Heads of queries (H) may share heads of keys (G): the H / G queries of a group stand one after another,
and are multiplied as if they were positions.
"""

import jax
import jax.numpy as jnp

_TOGETHER = 8  # query positions whose sums with all keys exist at one time


def dot_products(q_BHTK: jax.Array, k_BGSK: jax.Array, keys: str = "BGSK") -> jax.Array:
    """Returns scores_BHTS = q k^T (paper, section 3.2.1, without the scale).

    Args:
      q_BHTK: queries.
      k_BGSK: keys, in the order of axes that `keys` says: "BGSK" or "BGKS".
      keys: see there.
    """
    scores_BGNS = jnp.einsum(f"BGNK,{keys}->BGNS", by_group(q_BHTK, k_BGSK.shape[1]), k_BGSK)
    return scores_BGNS.reshape(*q_BHTK.shape[:3], scores_BGNS.shape[-1])


def weighted(exp_BHTS: jax.Array, v_BGSK: jax.Array) -> jax.Array:
    """Returns y_BHTK, the values summed with these weights."""
    y_BGNK = jnp.einsum("BGNS,BGSK->BGNK", by_group(exp_BHTS, v_BGSK.shape[1]), v_BGSK)
    return y_BGNK.reshape(*exp_BHTS.shape[:3], v_BGSK.shape[-1])


def by_group(x_BHTX: jax.Array, G: int) -> jax.Array:
    """Returns x_BGNX: the rows of the H / G heads of each group one after another."""
    B, H, T, X = x_BHTX.shape
    return x_BHTX if H == G else x_BHTX.reshape(B, G, H // G * T, X)


def general(q_BHTK: jax.Array, weight_HKK: jax.Array) -> jax.Array:
    """Returns the queries q W of Luong et al. (2015, equation 8): their products with keys are q W k^T."""
    return jnp.einsum("BHTK,HKJ->BHTJ", q_BHTK, weight_HKK)


def additive(q_BHTK: jax.Array, k_BGSK: jax.Array, v_HK: jax.Array) -> jax.Array:
    """Returns scores_BHTS = v^T tanh(q + k) (Bahdanau et al. 2015, appendix A.1.2).

    Queries and keys are projected already, by W^Q and W^K. The sums [B, H, T, S, K] exist for a few
    query positions at a time, and are computed again in the backward pass.

    Args:
      q_BHTK, k_BGSK: queries and keys.
      v_HK: what each head multiplies with.
    """
    k_BHSK = jnp.repeat(k_BGSK, q_BHTK.shape[1] // k_BGSK.shape[1], axis=1)

    @jax.checkpoint
    def of_one(q_BHK: jax.Array) -> jax.Array:
        return jnp.einsum("BHSK,HK->BHS", jnp.tanh(q_BHK[:, :, None] + k_BHSK), v_HK)

    scores_TBHS = jax.lax.map(of_one, q_BHTK.transpose(2, 0, 1, 3), batch_size=_TOGETHER)
    return scores_TBHS.transpose(1, 2, 0, 3)
