"""A step that trains a part: frozen parameters, and adapters of parameters that stay."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import reference_cases as cases

from transformer.config import Config, InitConfig, LoraConfig, MeshConfig, OptimConfig, RunConfig
from transformer.data.batch import Batch, pack_rows
from transformer.errors import ConfigError
from transformer.io.devices import make_mesh, to_devices
from transformer.model.lora import new_adapters
from transformer.paths import by_path
from transformer.steps.state import TrainState, init_state, model_params, trained_part
from transformer.steps.train_step import dropout_key, jit_steps
from transformer.training.optimizer import make_optimizer

MODEL = cases.model_config(num_encoder_layers=1)
OPTIM = OptimConfig(learning_rate=0.1, warmup_steps=1, schedule="constant", epsilon=1.0, loss_chunk=8)
CONFIG = Config(model=MODEL, optim=OPTIM, run=RunConfig(num_steps=3))
FREEZE = "encoder|shared"
PARAMS = jax.tree.map(jnp.asarray, cases.random_params(cases.build(MODEL)))


def batch() -> Batch:
    draw = np.random.default_rng(0)
    return pack_rows(
        [[(draw.integers(4, 13, 5), draw.integers(4, 13, 6))] for _ in range(3)], rows=3, length=8
    )


def one_step(config: Config, params: Any, ema: Any = None, fixed: Any = None) -> TrainState:
    """Returns the state after one compiled step from `params`."""
    mesh, model = make_mesh(MeshConfig()), cases.build(config.model)
    tx = make_optimizer(config.model, config.optim, 3)
    state = TrainState(jnp.int32(0), params, tx.init(trained_part(params, config.optim.freeze)), ema, fixed)
    state = jax.tree.map(jnp.array, state)
    step = jit_steps(model, tx, config, mesh, state)[0]
    return jax.device_get(step(state, to_devices(batch(), mesh), dropout_key(config.run), None)[0])


@pytest.fixture(scope="module")
def full() -> TrainState:
    return one_step(CONFIG, PARAMS)


def test_frozen_parameters_stay_and_the_others_change_as_ever(full: TrainState) -> None:
    optim = dataclasses.replace(OPTIM, freeze=FREEZE, ema_decay=0.9)
    found = one_step(dataclasses.replace(CONFIG, optim=optim), PARAMS, PARAMS)
    moments, ema = by_path(optax.tree.get(found.opt_state, "mu")), by_path(found.ema)
    expected = by_path(full.params)
    assert found.params.keys() == full.params.keys()
    for path, x in by_path(found.params).items():
        before = by_path(PARAMS)[path]
        frozen = bool(re.search(FREEZE, path))
        assert (path in moments) != frozen
        assert np.array_equal(x, before) == frozen and np.array_equal(ema[path], before) == frozen
        if not frozen:
            np.testing.assert_allclose(x, expected[path], rtol=0, atol=1e-6, err_msg=path)


def test_adapters_get_the_gradients_of_the_product(full: TrainState) -> None:
    """d/dB of W + s A B is s A' dW, and d/dA is s dW B'; dW from the step that trains all."""
    lora = LoraConfig(rank=2, alpha=6.0, targets="wi/kernel$|embedding$")
    config = dataclasses.replace(CONFIG, lora=lora, init=InitConfig(model="a"))
    adapters = new_adapters(jax.random.key(3), PARAMS, lora)
    found = one_step(config, adapters, fixed=PARAMS)
    assert all(np.array_equal(x, by_path(PARAMS)[path]) for path, x in by_path(found.fixed).items())
    full_moments = by_path(optax.tree.get(full.opt_state, "mu"))
    moments = by_path(optax.tree.get(found.opt_state, "mu"))
    assert moments.keys() == by_path(adapters).keys()
    for path in ("encoder/layer_0/feed_forward/wi/kernel", "shared/embedding"):
        a = np.asarray(by_path(adapters)[f"{path}/lora_a"], np.float64)
        expected = 6.0 / 2 * a.T @ full_moments[path]
        np.testing.assert_allclose(moments[f"{path}/lora_b"], expected, rtol=1e-4, atol=1e-6)
        assert not np.any(moments[f"{path}/lora_a"])  # B is zero
    again = one_step(config, found.params, fixed=PARAMS)
    whole = one_step(CONFIG, jax.device_get(model_params(found.params, PARAMS, lora)))
    for path in ("encoder/layer_0/feed_forward/wi/kernel", "shared/embedding"):
        b = np.asarray(by_path(found.params)[f"{path}/lora_b"], np.float64)
        expected = 6.0 / 2 * by_path(optax.tree.get(whole.opt_state, "mu"))[path] @ b.T
        np.testing.assert_allclose(
            by_path(optax.tree.get(again.opt_state, "mu"))[f"{path}/lora_a"], expected, rtol=1e-3, atol=1e-6
        )


def test_what_cannot_be_frozen() -> None:
    with pytest.raises(ConfigError, match=r"optim.freeze: 'encodr' is found in no .* mean 'encoder'"):
        trained_part(PARAMS, "encodr")
    with pytest.raises(ConfigError, match=r"'/' is found in every path; nothing is left to train"):
        trained_part(PARAMS, "/")


def test_the_state_of_a_run_with_adapters_is_small() -> None:
    """Memory of gradients and moments is that of the adapters."""
    config = dataclasses.replace(CONFIG, lora=LoraConfig(rank=1), init=InitConfig(model="a"))
    tx = make_optimizer(config.model, config.optim, 3)
    shapes = jax.eval_shape(lambda: init_state(cases.build(MODEL), tx, config))
    numbers = [sum(x.size for x in jax.tree.leaves(tree)) for tree in (shapes.params, shapes.items())]
    assert numbers[1] <= 3 * numbers[0] + 4  # and Adam's counts
    assert by_path(shapes.fixed).keys() == by_path(PARAMS).keys()
