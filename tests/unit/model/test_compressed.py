"""Compressed keys and chunks of positions: what they see, what they cost, and that chunks change nothing."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from reference import reference_cases as cases

from transformer.config import ModelConfig
from transformer.model import compressed
from transformer.model.size import count_parameters, parameter_shapes
from transformer.model.transformer import Transformer

X, HEADS, K = 3, 2, 4


def test_padding_and_other_sentences_are_no_part_of_a_key() -> None:
    rng = np.random.default_rng(0)
    kernel_XGKK = rng.normal(size=(X, HEADS, K, K)).astype(np.float32)
    seg_BS = jnp.array([[1, 1, 1, 1, 0, 0, 0], [1, 1, 2, 2, 2, 2, 2]])
    x_BSGK = rng.normal(size=(2, 7, HEADS, K)).astype(np.float32)
    others_BSGK = x_BSGK.copy()
    others_BSGK[0, 4:] = 9  # padding
    others_BSGK[1, 2] = 9  # the second sentence, in a key of the first one's
    found, of_others = (np.asarray(compressed.squeeze(x, kernel_XGKK, seg_BS)) for x in (x_BSGK, others_BSGK))
    assert found.shape == (2, 3, HEADS, K)
    np.testing.assert_array_equal(found[0, :2], of_others[0, :2])
    np.testing.assert_array_equal(found[1], of_others[1])
    whole = sum(x_BSGK[0, i, 1] @ kernel_XGKK[i, 1] for i in range(X))
    np.testing.assert_allclose(found[0, 0, 1], whole, rtol=0, atol=1e-5)
    seen_BTS = np.asarray(compressed.mask(seg_BS, seg_BS, X))[:, 0]
    assert seen_BTS[0, 0].tolist() == [True, True, False]
    assert seen_BTS[1, 1].tolist() == [True, False, False]
    assert seen_BTS[1, 6].tolist() == [False, True, True]


def test_weights_are_shared_by_what_a_key_is_made_of() -> None:
    weights_BHTS = jnp.array([[0.3, 0.5, 0.2], [0.6, 0.4, 0]]).reshape(2, 1, 1, 3)
    seg_BS = jnp.array([[1] * 7, [1] * 5 + [0] * 2])
    found = compressed.spread(weights_BHTS, seg_BS, X)[:, 0, 0]
    np.testing.assert_allclose(found[0], [0.1] * 3 + [0.5 / 3] * 3 + [0.2], rtol=1e-6)
    np.testing.assert_allclose(found[1], [0.2] * 5 + [0] * 2, rtol=1e-6)


def test_captured_weights_are_of_every_position_and_sum_to_one() -> None:
    config = cases.model_config(attention="alternating", attention_radius=2, chunk_length=2)
    model = cases.build(config)
    params, (inputs, _) = cases.random_params(model), cases.batch(model)

    @jax.jit
    def run(params: Any) -> tuple[jax.Array, Any, jax.Array]:
        variables, encoder = {"params": params}, inputs[:3]
        captured = model.apply(variables, *encoder, method="encode", mutable="intermediates")
        return *captured, model.apply(variables, *encoder, method="encode")

    whole_BSD, found, chunked_BSD = run(params)
    np.testing.assert_allclose(chunked_BSD[2], whole_BSD[2], rtol=0, atol=1e-5)
    for layer in ("layer_0", "layer_1"):
        weights_BHTS = found["intermediates"]["encoder"][layer]["self_attention"]["weights"][0]
        assert weights_BHTS.shape == (3, 3, 7, 7)
        np.testing.assert_allclose(weights_BHTS[2].sum(-1), 1, atol=1e-5)  # a full row


def test_dropout_in_chunks_differs_from_chunk_to_chunk_and_keeps_the_mean() -> None:
    config = cases.model_config(chunk_length=2, activation_dropout_rate=0.5, activation="gelu")
    model = cases.build(config)
    params = cases.random_params(model)

    def run(module: Transformer) -> jax.Array:
        x_BTD = jnp.ones((1, 8, config.d_model))
        return module.encoder.layer[0].feed_forward(x_BTD, False)

    @jax.jit
    @jax.vmap
    def dropped(key: jax.Array) -> jax.Array:
        return model.apply({"params": params}, method=run, rngs={"dropout": key})

    found = np.asarray(dropped(jax.random.split(jax.random.key(0), 400)))[:, 0]
    assert len({tuple(row) for row in found[0].round(6).tolist()}) == 8
    mean = found.mean(axis=(0, 1))
    without = jax.jit(lambda: model.apply({"params": params}, method=_feed_forward))()[0, 0]
    assert (np.abs(mean - without) < 5 * found.std(axis=(0, 1)) / (400 * 8) ** 0.5).all()


def _feed_forward(module: Transformer) -> jax.Array:
    return module.encoder.layer[0].feed_forward(jnp.ones((1, 8, module.config.d_model)), True)


def test_memory_grows_with_the_length_alone() -> None:
    """By the compiler's plan of forward and backward pass; hidden vectors are sixteen times the input."""
    c = ModelConfig(
        d_model=16,
        d_ff=256,
        num_heads=2,
        num_encoder_layers=2,
        num_decoder_layers=1,
        attention="alternating",
        chunk_length=64,
        max_length=8192,
    )

    def bytes_at(length: int, config: ModelConfig) -> int:
        model = Transformer(config, 8, 8)

        def loss(params: Any, ids_BS: jax.Array) -> jax.Array:
            return model.apply({"params": params}, ids_BS, ids_BS, ids_BS, method="encode").sum()

        ids_BS = jax.ShapeDtypeStruct((1, length), jnp.int32)
        compiled = jax.jit(jax.grad(loss)).lower(parameter_shapes(model), ids_BS).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    first, second = (bytes_at(n, c) for n in (2048, 4096))
    assert second < 2.2 * first
    assert second < 0.5 * bytes_at(4096, dataclasses.replace(c, chunk_length=0))


def test_each_layer_that_compresses_has_two_convolutions_more() -> None:
    full, own = (cases.build(cases.model_config(attention=a)) for a in ("full", "alternating"))
    assert count_parameters(own)["total"] - count_parameters(full)["total"] == 2 * 3 * 3 * 4 * 4
