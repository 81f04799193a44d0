"""Our step beside a plain one of the same model in the same run: a slow-down by a third does not pass."""

import functools
import math
import time

import jax
import numpy as np
import optax
import pytest
from plain_step import Plain

from transformer.config import Config, MeshConfig, ModelConfig
from transformer.data.batch import Batch
from transformer.io.allocator import keep_freed_memory
from transformer.io.devices import make_mesh
from transformer.model.transformer import Transformer
from transformer.special_ids import BOS_ID
from transformer.steps.state import init_state
from transformer.steps.train_step import jit_steps
from transformer.training.loss import smoothed_loss
from transformer.training.optimizer import make_optimizer

V, ROWS, LENGTH = 8000, 32, 64
CONFIG = Config(
    model=ModelConfig(d_model=256, d_ff=1024, num_heads=4, num_encoder_layers=2, num_decoder_layers=2)
)
MEASURED = 0.67  # our time over that of the plain step, on 2 cores: 0.63 to 0.70 in five runs
ROUNDS = 12


@pytest.fixture(scope="module")
def batch():
    """Rows of packed sentences, the last places empty."""
    rng = np.random.default_rng(0)

    def side():
        segments = np.sort(rng.integers(1, 5, (ROWS, LENGTH)), axis=1)
        segments[:, -3:] = 0
        starts = np.diff(segments, axis=1, prepend=-1) != 0
        first = np.maximum.accumulate(np.where(starts, np.arange(LENGTH), 0), axis=1)
        real = segments > 0
        return rng.integers(4, V, (ROWS, LENGTH)) * real, segments, (np.arange(LENGTH) - first) * real

    return Batch(*(x.astype(np.int32) for x in (*side(), *side())))


@pytest.fixture(scope="module")
def steps(batch):
    """A function that does a step, ours or the plain one, the plain model, and their common parameters."""
    model = Transformer(CONFIG.model, V, V)
    tx = make_optimizer(CONFIG.model, CONFIG.optim, 1000)
    mesh = make_mesh(MeshConfig(data=1))
    keep_freed_memory(mesh)  # as training does, and as a test before this one may have done
    state = init_state(model, tx, CONFIG, mesh)
    plain = Plain(CONFIG.model, CONFIG.optim.label_smoothing)
    params = jax.tree.map(np.array, state.params)
    key = jax.random.key(0)
    ours = jit_steps(model, tx, CONFIG, mesh, state)[0]
    adam = optax.adam(1e-3, b2=0.98)
    theirs = jax.jit(functools.partial(plain.step, adam), donate_argnums=0)
    states = {"ours": state, "plain": (params, adam.init(params))}

    def run(name):
        if name == "ours":
            states[name] = ours(states[name], batch, key, None)[0]
        else:
            states[name] = theirs(states[name], batch, key)
        jax.block_until_ready(states[name])

    return run, plain, params


def test_the_plain_step_is_of_the_same_model(steps, batch):
    _, plain, params = steps
    model = Transformer(CONFIG.model, V, V)

    @jax.jit
    def loss(params):
        shifted = np.where(batch.tgt_pos_BT == 0, BOS_ID, np.roll(batch.tgt_BT, 1, axis=1))
        y_BTD = model.apply({"params": params}, *batch[:3], shifted, *batch[4:])
        table, real = params["shared"]["embedding"], batch.tgt_seg_BT > 0
        total, _ = smoothed_loss(y_BTD, table, batch.tgt_BT, real, CONFIG.optim.label_smoothing, 512)
        return total / real.sum()

    expected = jax.jit(lambda params: plain.loss(params, batch, None))(params)
    assert float(loss(params)) == pytest.approx(float(expected), rel=1e-5)


def test_no_slow_down_by_a_third(steps):
    run = steps[0]
    run("ours"), run("plain")  # compiles
    best, ratio = {"ours": math.inf, "plain": math.inf}, math.inf
    for _ in range(ROUNDS):  # the least of each is what noise leaves alone: more rounds, less noise
        for name in best:
            start = time.perf_counter()
            run(name)
            best[name] = min(best[name], time.perf_counter() - start)
        ratio = best["ours"] / best["plain"]
        if ratio < MEASURED * 4 / 3:
            break
    assert ratio < MEASURED * 4 / 3, f"{best['ours']:.3f} s a step, plain {best['plain']:.3f} s"
