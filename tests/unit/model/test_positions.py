"""What belongs to distances comes to each key by slices and sums, against loops over queries and keys."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.model.positions import at_distances, spread


@pytest.mark.parametrize(
    ("T", "S", "first", "k"),
    [(5, 5, 0, 2), (5, 5, 0, 4), (5, 5, 0, 9), (1, 1, 0, 3), (3, 9, -3, 1), (3, 9, -3, 8), (4, 8, -4, 0)],
)
def test_each_key_gets_what_is_of_its_distance(T: int, S: int, first: int, k: int) -> None:
    """Rows of whole length, and blocks with their neighbours; and the way back, which sums by distance."""
    rng = np.random.default_rng(0)
    x_BHTX = rng.normal(size=(2, 3, T, 2 * k + 1)).astype(np.float32)
    back_BHTS = rng.normal(size=(2, 3, T, S)).astype(np.float32)
    expected, summed = np.zeros_like(back_BHTS), np.zeros_like(x_BHTX)
    for t in range(T):
        for s in range(S):
            column = max(-k, min(k, first + s - t)) + k
            expected[:, :, t, s] = x_BHTX[:, :, t, column]
            summed[:, :, t, column] += back_BHTS[:, :, t, s]
    function = partial(spread, S=S, first=first)
    np.testing.assert_array_equal(function(jnp.asarray(x_BHTX)), expected)
    (found,) = jax.linear_transpose(function, jax.ShapeDtypeStruct(x_BHTX.shape, np.float32))(back_BHTS)
    np.testing.assert_allclose(found, summed, rtol=0, atol=1e-5)


def test_queries_of_one_place_share_their_distances() -> None:
    """Also where keys lie in the order of a ring."""
    x_BHTX = np.random.default_rng(0).normal(size=(1, 2, 3, 5)).astype(np.float32)
    distance_S = np.array([0, -3, -2, -1, -9])
    found = at_distances(jnp.asarray(x_BHTX), jnp.asarray(distance_S))
    np.testing.assert_array_equal(found, x_BHTX[..., [2, 0, 0, 1, 0]])
