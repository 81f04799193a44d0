"""Additive scores: what they hold at one time, in the gradient, too."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from transformer.model import scoring

B, H, T, K = 2, 3, 64, 5


def sizes(jaxpr: Any) -> Iterator[int]:
    """Yields the numbers in every array of a program, of those in it as well."""
    for equation in jaxpr.eqns:
        yield from (math.prod(x.aval.shape) for x in equation.outvars)
        for value in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "jaxpr")):
            if inner := getattr(value, "jaxpr", None) or (value if hasattr(value, "eqns") else None):
                yield from sizes(inner)


def test_sums_of_all_pairs_never_exist_at_once() -> None:
    def total(*arrays: jax.Array) -> jax.Array:
        return jnp.square(scoring.additive(*arrays)).sum()

    shapes = (B, H, T, K), (B, H, T, K), (H, K)
    program = jax.make_jaxpr(jax.grad(total, argnums=(0, 1, 2)))(*map(jnp.ones, shapes))
    found = list(sizes(program.jaxpr))
    assert len(found) > 30  # loops were looked into
    assert max(found) == B * H * T * T  # the scores themselves, and not K times as much
