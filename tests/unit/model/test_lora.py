"""Adapters against their definition in NumPy, in every kind of matrix, stacked layers too."""

import jax
import numpy as np
import pytest

from transformer.axes import param_specs
from transformer.config import LoraConfig, ModelConfig
from transformer.errors import ConfigError
from transformer.model.lora import merged, new_adapters
from transformer.model.size import parameter_shapes
from transformer.model.transformer import Transformer, unstack_layers
from transformer.paths import by_path, nested

SIZES = dict(d_model=6, d_ff=10, num_heads=3, num_encoder_layers=2, num_decoder_layers=2)
EVERY = LoraConfig(rank=2, alpha=3.0, targets="kernel$|embedding$")
# Where a path ends -> its axes that are inputs.
INPUTS = {"query": 1, "key": 1, "value": 1, "out": 2, "wi": 1, "wo": 1, "shared": 1}


def random_tree(shapes, seed):
    draw = np.random.default_rng(seed)
    return nested({path: draw.normal(size=x.shape).astype(x.dtype) for path, x in by_path(shapes).items()})


def parameters(**changes):
    model = Transformer(ModelConfig(**SIZES, attention_bias=True, **changes), 12, 12)
    return random_tree(parameter_shapes(model), 0)


def test_merged_is_the_definition():
    params = parameters()
    like = jax.eval_shape(lambda: new_adapters(jax.random.key(0), params, EVERY))
    adapters = random_tree(like, 1)
    found, factors = by_path(merged(params, adapters, EVERY)), by_path(adapters)
    for path, before in by_path(params).items():
        *_, parent, name = path.split("/")
        expected = before
        if name in ("kernel", "embedding"):
            a, b = factors[f"{path}/lora_a"], factors[f"{path}/lora_b"]
            rows = np.prod(before.shape[: INPUTS[parent]])
            assert a.shape == (*before.shape[: INPUTS[parent]], 2)
            assert b.shape == (2, *before.shape[INPUTS[parent] :])
            product = a.reshape(rows, 2) @ b.reshape(2, -1)
            expected = before + 3.0 / 2 * product.reshape(before.shape)
        np.testing.assert_allclose(found[path], expected, rtol=1e-5, atol=1e-5)


def test_new_adapters_change_nothing():
    params = parameters()
    adapters = new_adapters(jax.random.key(0), params, EVERY)
    for path, x in by_path(merged(params, adapters, EVERY)).items():
        assert np.array_equal(x, by_path(params)[path])
    drawn = by_path(adapters)["encoder/layer_0/feed_forward/wi/kernel/lora_a"]
    assert not np.array_equal(drawn, by_path(adapters)["encoder/layer_1/feed_forward/wi/kernel/lora_a"])


def test_stacked_layers_get_the_same_as_layers_apart():
    params = parameters(scan_layers=True)
    adapters = random_tree(jax.eval_shape(lambda: new_adapters(jax.random.key(0), params, EVERY)), 1)
    found = by_path(unstack_layers(merged(params, adapters, EVERY)))
    apart = by_path(merged(unstack_layers(params), unstack_layers(adapters), EVERY))
    assert found.keys() == apart.keys()
    for path, x in apart.items():
        np.testing.assert_allclose(found[path], x, rtol=1e-5, atol=1e-5)


def test_adapters_are_divided_as_their_matrices():
    specs = by_path(param_specs(new_adapters(jax.random.key(0), parameters(), EVERY)))
    out = "decoder/layer_0/self_attention/out/kernel"
    assert specs[f"{out}/lora_a"] == jax.sharding.PartitionSpec(("tensor",), None, None)
    assert specs[f"{out}/lora_b"] == jax.sharding.PartitionSpec(None, ("fsdp",))


def test_targets_are_matrices():
    with pytest.raises(ConfigError, match=r"'wi' is found in .*wi/bias, which is no matrix"):
        new_adapters(jax.random.key(0), parameters(), LoraConfig(rank=2, targets="wi"))
    with pytest.raises(ConfigError, match=r"lora.targets: 'querry' is found in no .* mean 'query'"):
        new_adapters(jax.random.key(0), parameters(), LoraConfig(rank=2, targets="querry"))
