"""Halting, step by step, with numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from transformer.model.halting import advance, start


def test_the_last_step_has_what_is_left():
    """Three positions: one halts at once, one after three steps, one never by itself."""
    p_NT = np.array([[0.995, 0.6, 0.1], [0.9, 0.3, 0.2], [0.9, 0.2, 0.3]], np.float32)
    states_N = [jnp.full((3, 1), value) for value in (1.0, 10.0, 100.0)]
    halting = start(jnp.zeros((3, 1)))
    for n in range(3):
        halting = advance(halting, states_N[n], p_NT[n], last=n == 2)
    np.testing.assert_allclose(halting.steps_BT, [1, 3, 3])
    np.testing.assert_allclose(halting.remainder_BT, [1, 0.1, 0.7], rtol=1e-5)
    np.testing.assert_allclose(halting.total_BT, 1, rtol=1e-6)
    assert not halting.running_BT.any()
    np.testing.assert_allclose(halting.state_BTD[:, 0], [1, 100, 100])
    means = [1, 0.6 * 1 + 0.3 * 10 + 0.1 * 100, 0.1 * 1 + 0.2 * 10 + 0.7 * 100]
    np.testing.assert_allclose(halting.mean_BTD[:, 0], means, rtol=1e-5)


def test_only_the_remainder_pulls_at_the_probabilities():
    """N + R of a position that halts at its third step falls with the first two probabilities alike."""

    def cost(p_N):
        halting = start(jnp.zeros((1, 1)))
        for n in range(3):
            halting = advance(halting, jnp.zeros((1, 1)), p_N[n : n + 1], last=n == 2)
        return (halting.steps_BT + halting.remainder_BT).sum()

    np.testing.assert_allclose(jax.grad(cost)(jnp.array([0.3, 0.2, 0.4])), [-1, -1, 0])
