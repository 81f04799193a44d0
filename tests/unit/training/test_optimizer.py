"""Update rules against NumPy, on a tree with the names that the rules look at."""

from typing import Any

import jax
import numpy as np
import optax
import pytest

from transformer.config import ModelConfig, OptimConfig
from transformer.training.optimizer import make_optimizer, matrices

RATE = 0.01
rng = np.random.default_rng(0)


def tree() -> dict[str, Any]:
    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return {
        "shared": {"embedding": normal(5, 4)},
        "layer": {"wi": {"kernel": normal(4, 3), "bias": normal(3)}, "norm": {"scale": normal(4)}},
        "encoder": {"positions": normal(6, 4)},
    }


PARAMS, GRADS = tree(), [tree() for _ in range(5)]


def run(**choices: Any) -> list[Any]:
    """Returns the parameters after each of five steps at a constant rate."""
    optim = OptimConfig(learning_rate=RATE, schedule="constant", warmup_steps=1, **choices)
    tx = make_optimizer(ModelConfig(), optim, num_steps=5)

    @jax.jit
    def step(params: Any, state: Any, grads: Any) -> tuple[Any, Any]:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, state, history = PARAMS, tx.init(PARAMS), []
    for grads in GRADS:
        params, state = step(params, state, grads)
        history.append(params)
    return history


def adam(params: np.ndarray, grads: list[np.ndarray], decay: float = 0.0) -> list[np.ndarray]:
    """Returns the parameters after each step: Kingma and Ba's algorithm 1, with decoupled decay."""
    b1, b2, eps, x = 0.9, 0.98, 1e-9, params.astype(np.float64)
    m, v, history = np.zeros_like(x), np.zeros_like(x), []
    for t, g in enumerate(grads, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g.astype(np.float64) ** 2
        x = x - RATE * (m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * x)
        history.append(x)
    return history


def expect(found: list[Any], rule: Any, grads: list[Any] = GRADS) -> None:
    """Compares each leaf's course with `rule(path, initial value, gradients)`."""
    for path, initial in jax.tree_util.tree_leaves_with_path(PARAMS):
        course = [dict(jax.tree_util.tree_leaves_with_path(x))[path] for x in (*found, *grads)]
        expected = rule(path[-1].key, initial, course[len(found) :])
        np.testing.assert_allclose(course[: len(found)], expected, rtol=0, atol=2e-6, err_msg=str(path))


def test_adam() -> None:
    expect(run(), lambda name, x, g: adam(x, g))


def test_adamw_decays_matrices_only() -> None:
    decays = {"embedding": 0.5, "kernel": 0.5}
    found = run(name="adamw", weight_decay=0.5)
    expect(found, lambda name, x, g: adam(x, g, decays.get(name, 0.0)))
    assert matrices(PARAMS) == {
        "shared": {"embedding": True},
        "layer": {"wi": {"kernel": True, "bias": False}, "norm": {"scale": False}},
        "encoder": {"positions": False},
    }
    assert matrices({"self_attention": {"compress_key": 0, "score": 0}}) == {
        "self_attention": {"compress_key": True, "score": False}
    }


def test_lion() -> None:
    def lion(name: str, x: np.ndarray, grads: list[np.ndarray]) -> list[np.ndarray]:
        decay = 0.1 if name in ("kernel", "embedding") else 0.0
        m, history, x = np.zeros_like(x), [], x.astype(np.float64)
        for g in grads:
            x = x - RATE * (np.sign(0.9 * m + 0.1 * g) + decay * x)
            m = 0.98 * m + 0.02 * g
            history.append(x)
        return history

    expect(run(name="lion", weight_decay=0.1), lion)


def test_adafactor_steps_downhill() -> None:
    for before, after in zip(jax.tree.leaves(PARAMS), jax.tree.leaves(run(name="adafactor")[0]), strict=True):
        assert np.all(np.isfinite(after))
        assert not np.array_equal(before, after)
    first = run(name="adafactor")[0]
    slope = sum(
        np.vdot(g, after - before)
        for g, before, after in zip(*map(jax.tree.leaves, (GRADS[0], PARAMS, first)), strict=True)
    )
    assert slope < 0


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping_scales_all_gradients_by_one_factor(limit: float) -> None:
    norms = [np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in jax.tree.leaves(g))) for g in GRADS]
    clipped = [
        jax.tree.map(lambda x, norm=norm: (x * min(1, limit / norm)).astype(np.float32), g)
        for g, norm in zip(GRADS, norms, strict=True)
    ]
    expect(run(clip_norm=limit), lambda name, x, g: adam(x, g), clipped)
