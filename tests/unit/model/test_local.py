"""Attention in blocks: the same as full attention that hides what is far, in memory linear in length."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import numpy_transformer as reference
from reference import reference_cases as cases

from transformer.config import ModelConfig
from transformer.model import local
from transformer.model.attention import MultiHeadAttention
from transformer.model.masks import segment_mask
from transformer.model.size import parameter_shapes
from transformer.model.transformer import Transformer, empty_cache, longer_cache

KINDS: dict[str, dict[str, Any]] = {
    "window": dict(attention="window", attention_radius=5),
    "block": dict(attention="block", attention_radius=5),
    "far": dict(attention="window", attention_radius=100),
    "global": dict(attention="window", attention_radius=4, global_tokens=6, positions="alibi"),
    "buckets": dict(
        attention="block",
        attention_radius=3,
        global_tokens=2,
        positions="relative",
        relative_buckets=8,
        relative_max_distance=9,
    ),
}
LENGTH = 23
SEG = np.array([[1] * 12 + [2] * 8 + [0] * 3, [1] * LENGTH], np.int32)  # packed and padded; full


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_blocks_give_what_full_attention_with_a_mask_gives(kind: str, stack: str) -> None:
    """Outputs, gradients of inputs and parameters, and the weights of each layer."""
    own = cases.build(cases.model_config(**KINDS[kind], num_encoder_layers=1))
    full = cases.build(
        cases.model_config(**{**KINDS[kind], "attention": "full", "global_tokens": 0}, num_encoder_layers=1)
    )
    params = jax.tree.map(jnp.asarray, cases.random_params(own))
    causal = stack == "decoder"
    seen_BTT = np.stack([reference.allowed_keys(seg, seg, causal) for seg in SEG])
    # Padding sees padding, which is of no matter but for the gradients.
    seen_BTT |= (SEG[:, :, None] == 0) & (SEG[:, None] == 0)
    seen_BTT &= reference.near(own.config, stack, LENGTH)
    x_BTD = np.random.default_rng(0).normal(size=(2, LENGTH, 12)).astype(np.float32)
    real_BT1 = (SEG > 0)[..., None]

    def run(model: Transformer, mask: Any, params: Any, x_BTD: jax.Array) -> tuple[jax.Array, Any]:
        def forward(module: Transformer) -> jax.Array:
            part = getattr(module, stack)
            cross = (x_BTD, segment_mask(SEG, SEG)) if causal else ()
            given = part.mask(jnp.asarray(SEG)) if mask is None else mask
            return part.run(x_BTD, jnp.asarray(SEG), True, *cross[:1], given, *cross[1:])

        y_BTD, found = model.apply({"params": params}, method=forward, mutable="intermediates")
        layers = found["intermediates"][stack].values()
        weights = [layer["self_attention"]["weights"][0] for layer in layers]
        return (jnp.sin(y_BTD) * real_BT1).sum(), (y_BTD, weights)

    def all_of(model: Transformer, mask: Any) -> Any:
        function = jax.value_and_grad(partial(run, model, mask), argnums=(0, 1), has_aux=True)
        return jax.device_get(jax.jit(function)(params, x_BTD))

    (_, (y_BTD, weights)), (d_params, d_x) = all_of(own, None)
    (_, (expected_BTD, expected)), (dp_expected, dx_expected) = all_of(full, jnp.asarray(seen_BTT)[:, None])
    close = partial(np.testing.assert_allclose, rtol=0)
    close(y_BTD[SEG > 0], expected_BTD[SEG > 0], atol=1e-5)
    close(d_x, dx_expected, atol=1e-5)
    for found_BHTT, wanted_BHTT in zip(weights, expected, strict=True):
        real_BHTT = np.broadcast_to((SEG > 0)[:, None, :, None], wanted_BHTT.shape)
        close(found_BHTT[real_BHTT], wanted_BHTT[real_BHTT], atol=1e-6)
    found, wanted = cases.flatten(d_params), cases.flatten(dp_expected)
    for path, value in wanted.items():
        close(found[path], value, atol=2e-5 * max(np.abs(value).max(), 1), err_msg=path)


@pytest.mark.parametrize(("stack", "kind"), [("encoder", "window"), ("decoder", "block")])
def test_memory_grows_with_the_length_alone(stack: str, kind: str) -> None:
    """By the compiler's plan of forward and backward pass; the other side is short."""
    c = ModelConfig(
        d_model=16,
        d_ff=16,
        num_heads=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        dropout_rate=0.1,
        attention_dropout_rate=0.1,
        attention=kind,
        attention_radius=64,
        max_length=8192,
    )
    model = Transformer(c, 8, 8)

    def loss(params: Any, key: jax.Array, *inputs: jax.Array) -> jax.Array:
        return model.apply({"params": params}, *inputs, deterministic=False, rngs={"dropout": key}).sum()

    def bytes_at(length: int) -> int:
        S, T = (length, 8) if stack == "encoder" else (8, length)
        ids = [jax.ShapeDtypeStruct((1, n), jnp.int32) for n in (S, S, S, T, T, T)]
        key = jax.eval_shape(lambda: jax.random.key(0))
        compiled = jax.jit(jax.grad(loss)).lower(parameter_shapes(model), key, *ids).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    first, second, third = map(bytes_at, (2048, 4096, 8192))
    assert second < 2.2 * first
    assert third < 2.2 * second


def test_a_ring_may_grow_until_it_holds_what_is_seen() -> None:
    """As the search lets caches grow: 2 places, then as many as are ever seen, not one for each position."""
    model = cases.build(cases.model_config(attention="window", attention_radius=3, positions="alibi"))
    params = {"params": jax.tree.map(jnp.asarray, cases.random_params(model))}
    T, seg_BS = 9, np.ones((1, 4), np.int32)
    rng = np.random.default_rng(0)
    src_BS, tgt_BT = rng.integers(1, 11, (1, 4)), rng.integers(1, 11, (1, T))
    place_BS, place_BT = np.arange(4)[None], np.arange(T)[None]

    @jax.jit
    def teacher() -> tuple[jax.Array, Any]:
        encoded_BSD = model.apply(params, src_BS, seg_BS, place_BS, method="encode")
        decode = tgt_BT, np.ones_like(tgt_BT), place_BT, encoded_BSD, seg_BS
        logits_BTV = model.apply(params, model.apply(params, *decode, method="decode"), method="logits")
        return logits_BTV, model.apply(params, encoded_BSD, method="source_keys")

    step = jax.jit(lambda *args: model.apply(params, *args, seg_BS, method="decode_step"))
    (expected_BTV, source), cache = teacher(), empty_cache(model.config, 1, 1, 2)
    for t in range(T):
        if t == 2:
            cache = longer_cache(cache, model.config, 1, T)
            assert cache[0].value.shape[2] == cache[0].key.shape[3] == 4
        inputs = tgt_BT[:, t : t + 1], jnp.int32(t), cache, np.zeros((1, 1, T), np.int32), source
        logits_BWV, cache = step(*inputs)
        np.testing.assert_allclose(logits_BWV[:, 0], expected_BTV[:, t], rtol=0, atol=1e-5)


def test_dropout_of_weights_keeps_the_mean() -> None:
    """Outputs are linear in the weights: over many keys their mean is what comes without dropout."""
    config = cases.model_config(**KINDS["global"], attention_dropout_rate=0.5)
    attention, reach = MultiHeadAttention(config, causal=False), local.reach(config, causal=False)
    assert reach is not None
    x_BTD = jnp.asarray(np.random.default_rng(0).normal(size=(2, LENGTH, 12)), jnp.float32)
    inputs = x_BTD, x_BTD, reach.mask(jnp.asarray(SEG)), local.Parts(None)
    variables = {"params": attention.init(jax.random.key(0), *inputs)["params"]}
    without_BTD = attention.apply(variables, *inputs)

    @jax.jit
    @jax.vmap
    def dropped(key: jax.Array) -> jax.Array:
        return attention.apply(variables, *inputs, deterministic=False, rngs={"dropout": key})

    keys = jax.random.split(jax.random.key(1), 400)
    found = np.asarray(dropped(keys))
    noise = found.std(axis=0)[SEG > 0]
    assert noise.min() > 0
    off = np.abs(found.mean(axis=0) - without_BTD)[SEG > 0]
    assert (off < 5 * noise / len(keys) ** 0.5).all()
