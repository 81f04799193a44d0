"""Statistics of dropout, and its effect in the model."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import reference_cases as cases

from transformer.model.dropout import Dropout, dropout, keep_mask
from transformer.model.transformer import Transformer

SHAPE = (400, 501)  # the last axis is not a multiple of the four values of a random word


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_rate_and_mean(rate: float) -> None:
    y = np.asarray(dropout(jnp.ones(SHAPE), rate, jax.random.key(0)))
    dropped = np.mean(y == 0)
    deviation = np.sqrt(rate * (1 - rate) / y.size)
    assert abs(dropped - rate) < 1 / 512 + 5 * deviation
    # The mean is kept exactly: the scale is one over a probability that eight random bits can have.
    assert 256 / y.max() == pytest.approx(round(256 / y.max()), abs=1e-4)
    assert abs(y.mean() - 1) < 5 * deviation / (1 - rate)
    assert len(np.unique(y)) == 2


def test_neighbours_are_independent() -> None:
    """Four neighbours share a random word; each distance within and across words is looked at."""
    centred = np.asarray(keep_mask(jax.random.key(1), SHAPE, 0.25)) - 0.75
    variance = 0.75 * 0.25
    for distance in range(1, 9):
        correlation = np.mean(centred[:, distance:] * centred[:, :-distance]) / variance
        assert abs(correlation) < 5 / np.sqrt(centred.size)
    assert abs(np.mean(centred[1:] * centred[:-1]) / variance) < 5 / np.sqrt(centred.size)


def test_mask_depends_on_the_key_alone() -> None:
    first = keep_mask(jax.random.key(2), SHAPE, 0.5)
    np.testing.assert_array_equal(first, keep_mask(jax.random.key(2), SHAPE, 0.5))
    agreement = np.mean(np.asarray(first) == np.asarray(keep_mask(jax.random.key(3), SHAPE, 0.5)))
    assert abs(agreement - 0.5) < 5 * 0.5 / np.sqrt(first.size)


def test_gradient_is_scaled_and_dropped_alike() -> None:
    x, key = jnp.linspace(1.0, 2.0, 64).reshape(8, 8), jax.random.key(4)
    gradient = jax.grad(lambda x: dropout(x, 0.25, key).sum())(x)
    np.testing.assert_allclose(gradient, dropout(x, 0.25, key) / x, rtol=1e-6)


def test_dtype_is_kept() -> None:
    assert dropout(jnp.ones(8, jnp.bfloat16), 0.5, jax.random.key(0)).dtype == jnp.bfloat16


@pytest.mark.parametrize(("rate", "deterministic"), [(0.5, True), (0.0, False)])
def test_identity_needs_no_random_key(rate: float, deterministic: bool) -> None:
    x = jnp.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(Dropout(rate).apply({}, x, deterministic), x)


def test_model_drops_only_in_training() -> None:
    """Each of the three rates alone changes the encoder's output, repeatably."""
    names = ("dropout_rate", "attention_dropout_rate", "activation_dropout_rate")

    def build(**rates: float) -> Transformer:
        return cases.build(cases.model_config(num_encoder_layers=1, **rates))

    plain = build()
    params, inputs = jax.tree.map(jnp.asarray, cases.random_params(plain)), cases.batch(plain)[0][:3]

    def encode(model: Transformer) -> np.ndarray:
        return np.asarray(jax.jit(partial(model.apply, method="encode"))({"params": params}, *inputs))

    expected = encode(plain)
    np.testing.assert_array_equal(encode(build(**dict.fromkeys(names, 0.5))), expected)
    for name in names:
        model = build(**{name: 0.5})

        @jax.jit
        def train(key: jax.Array, model: Transformer = model) -> jax.Array:
            mode = dict(method="encode", deterministic=False, rngs={"dropout": key})
            return model.apply({"params": params}, *inputs, **mode)

        first, again, other = (np.asarray(train(jax.random.key(seed))) for seed in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert not np.allclose(first, expected)
        assert not np.allclose(first, other)
