"""Attention by a fused kernel gives what attention written out gives, and only training uses it."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import reference_cases as cases

from transformer.config import Config, OptimConfig
from transformer.data.batch import Batch
from transformer.model.attention import attention_weights, fused_attention
from transformer.model.masks import decoder_mask
from transformer.model.size import parameter_shapes
from transformer.model.transformer import unrolled
from transformer.steps.train_step import gradients

WRITTEN_OUT = cases.build(cases.model_config())
FUSED = cases.build(cases.model_config(attention_implementation="cudnn"))


@pytest.fixture
def portable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets JAX compute in its own way what is asked of cuDNN; returns what was asked for, call by call."""
    asked, real = [], jax.nn.dot_product_attention

    def instead(*args: Any, implementation: str, **options: Any) -> jax.Array:
        asked.append(implementation)
        return real(*args, implementation="xla", **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", instead)
    return asked


def test_loss_and_gradients_are_those_of_attention_written_out(portable: list[str]) -> None:
    params = jax.tree.map(jnp.asarray, cases.random_params(WRITTEN_OUT))
    (*source, _, seg_BT, pos_BT), labels_BT = cases.batch(WRITTEN_OUT)
    batch = Batch(*source, labels_BT, seg_BT, pos_BT)
    found = {}
    for model in (WRITTEN_OUT, FUSED):
        config = Config(model=model.config, optim=OptimConfig(loss_chunk=5))
        compiled = jax.jit(partial(gradients, key=jax.random.key(0), model=model, config=config))
        found[model] = compiled(params, batch)
    assert set(portable) == {"cudnn"}
    c = FUSED.config
    assert len(portable) == c.num_encoder_layers + 2 * c.num_decoder_layers
    (expected, expected_grads), (metrics, grads) = found[WRITTEN_OUT], found[FUSED]
    assert float(metrics["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-6)
    for path, value in cases.flatten(expected_grads).items():
        atol = 1e-5 * max(np.abs(value).max(), 1e-3)
        np.testing.assert_allclose(cases.flatten(grads)[path], value, rtol=0, atol=atol, err_msg=path)


def test_only_training_needs_the_kernel(portable: list[str]) -> None:
    """Parameters are made, and lines translated and scored, without it: also where there is no GPU."""
    assert jax.tree.map(jnp.shape, parameter_shapes(FUSED)) == jax.tree.map(
        jnp.shape, parameter_shapes(WRITTEN_OUT)
    )
    FUSED.init(jax.random.key(0), *(jnp.ones((1, 1), jnp.int32),) * 6)
    assert unrolled(FUSED) == unrolled(WRITTEN_OUT)
    assert portable == []


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("length", [64, 256, 1024])
def test_cudnn_gives_what_attention_written_out_gives(length: int) -> None:
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(2, 4, length, 64)), jnp.bfloat16) for _ in range(3))
    seg_BT = np.sort(rng.integers(1, 6, (2, length)), axis=1)
    mask_B1TS = decoder_mask(jnp.asarray(seg_BT))

    def written_out(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
        return jnp.einsum("BHTS,BHSK->BHTK", attention_weights(q, k, mask_B1TS), v)

    def fused(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return fused_attention(q, k, v, mask_B1TS).astype(jnp.float32)

    for found, expected in zip(
        jax.jit(jax.value_and_grad(lambda *x: jnp.sin(fused(*x)).sum(), (0, 1, 2)))(q, k, v)[1],
        jax.jit(jax.value_and_grad(lambda *x: jnp.sin(written_out(*x)).sum(), (0, 1, 2)))(q, k, v)[1],
        strict=True,
    ):
        assert float(jnp.abs(found - expected).max()) < 0.05 * float(jnp.abs(expected).max())
    np.testing.assert_allclose(jax.jit(fused)(q, k, v), jax.jit(written_out)(q, k, v), atol=0.03)
