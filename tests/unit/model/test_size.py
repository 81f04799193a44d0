"""Parameters, FLOPs and memory against the paper's sizes, XLA's own counts and real trees."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from transformer.config import Config, ModelConfig, OptimConfig
from transformer.config_mapping import from_config_dict
from transformer.data.batch import Batch
from transformer.model.size import count_parameters, flops_per_token, memory_estimate, parameter_shapes
from transformer.model.transformer import Transformer
from transformer.steps.train_step import gradients
from transformer.training.optimizer import make_optimizer

VOCAB = 37_000
FAST = {"xla_backend_optimization_level": 0}  # counts and buffers are settled before machine code
# d_model, d_ff, layers of each stack: table 3 of the paper for base and big.
SIZES = {"tiny": (128, 256, 4), "small": (256, 1024, 3), "base": (512, 2048, 6), "big": (1024, 4096, 6)}
SMALL = ModelConfig(
    d_model=64, d_ff=192, num_heads=4, num_encoder_layers=2, num_decoder_layers=3, dropout_rate=0.0
)


@pytest.mark.parametrize("preset", SIZES)
def test_parameters_of_presets(preset: str) -> None:
    d, f, layers = SIZES[preset]
    attention, feed_forward, norm = 4 * d * d, d * f + f + f * d + d, 2 * d
    expected = {
        "embeddings": VOCAB * d,
        "encoder": layers * (attention + feed_forward + 2 * norm),
        "decoder": layers * (2 * attention + feed_forward + 3 * norm),
        "output": 0,
    }
    config = from_config_dict({"model": {"preset": preset}}).model
    found = count_parameters(Transformer(config, VOCAB, VOCAB))
    assert found == {**expected, "total": sum(expected.values())}
    if preset == "base":
        assert 63e6 < found["total"] < 65e6


def test_parameters_of_every_option() -> None:
    d, f, v, w = 8, 12, 30, 20
    config = ModelConfig(
        d_model=d,
        d_ff=f,
        num_heads=2,
        num_encoder_layers=2,
        num_decoder_layers=1,
        max_length=16,
        norm="pre",
        positions="learned",
        attention_bias=True,
        tied_embeddings="none",
        scan_layers=True,
    )
    attention, feed_forward, norm, positions = 4 * d * d + 4 * d, 2 * d * f + f + d, 2 * d, 16 * d
    expected = {
        "embeddings": (v + w) * d,
        "encoder": 2 * (attention + feed_forward + 2 * norm) + norm + positions,
        "decoder": 2 * attention + feed_forward + 3 * norm + norm + positions,
        "output": w * d,
    }
    assert count_parameters(Transformer(config, v, w)) == {**expected, "total": sum(expected.values())}


def test_parameters_of_other_families() -> None:
    d, f, v, h, k = 8, 12, 30, 2, 3
    config = ModelConfig(
        d_model=d,
        d_ff=f,
        num_heads=h,
        head_size=k,
        num_encoder_layers=2,
        num_decoder_layers=3,
        norm="pre",
        norm_type="rms",
        embedding_norm=True,
        gated_feed_forward=True,
        feed_forward_bias=False,
        positions="relative",
        relative_shared=False,
        tied_embeddings="inputs",
        logits_bias=True,
    )
    attention, feed_forward, distances = 4 * d * h * k, 3 * d * f, 32 * h
    expected = {
        "embeddings": v * d,
        "encoder": 2 * (attention + feed_forward + 2 * d + distances) + 2 * d,
        "decoder": 3 * (2 * attention + feed_forward + 3 * d + distances) + 2 * d,
        "output": v * d + v,
    }
    assert count_parameters(Transformer(config, v, v)) == {**expected, "total": sum(expected.values())}


def test_parameters_of_a_language_model() -> None:
    d, f, v, layers, longest = 8, 12, 30, 3, 16
    config = ModelConfig(
        kind="decoder_only",
        d_model=d,
        d_ff=f,
        num_heads=2,
        num_decoder_layers=layers,
        max_length=longest,
        norm="pre",
        positions="learned",
    )
    layer = 4 * d * d + d * f + f + f * d + d + 2 * 2 * d
    expected = {
        "embeddings": v * d,
        "encoder": 0,
        "decoder": layers * layer + 2 * d + longest * d,
        "output": 0,
    }
    assert count_parameters(Transformer(config, v, v)) == {**expected, "total": sum(expected.values())}
    # A prefix and what follows it have twice as many positions.
    with_prefix = dataclasses.replace(config, prefix="causal", tied_embeddings="inputs")
    expected |= {"decoder": expected["decoder"] + longest * d, "output": v * d}
    assert count_parameters(Transformer(with_prefix, v, v)) == {**expected, "total": sum(expected.values())}


@pytest.mark.parametrize(
    "form",
    [
        dict(),
        dict(kind="decoder_only", positions="relative", relative_shared=False),
        dict(scan_layers=True, num_decoder_layers=2),
        dict(norm="pre", positions="learned", position_offset=2),
        dict(positions="relative", relative_shared=False, norm_type="rms", logits_bias=True),
        dict(positions="shaw", attention_score="general", num_kv_heads=2),
    ],
)
def test_shapes_are_those_of_an_initialised_model(form: dict) -> None:
    model = Transformer(dataclasses.replace(SMALL, **form), 30, 30)
    ids = jnp.ones((1, 1), jnp.int32)
    assert parameter_shapes(model) == jax.eval_shape(model.init, jax.random.key(0), *(ids,) * 6)["params"]


@pytest.mark.parametrize(
    "form",
    [
        dict(),
        dict(gated_feed_forward=True, head_size=24),
        dict(attention_score="general", num_kv_heads=1, positions="none"),
        dict(attention="window", attention_radius=5, global_tokens=3),
        dict(positions="shaw", relative_max_distance=12),
        dict(kind="decoder_only", prefix="causal"),
        dict(kind="decoder_only"),
    ],
    ids=["paper", "gated", "general_multi_query", "window", "shaw", "prefix", "text"],
)
def test_forward_flops_are_what_xla_counts(form: dict) -> None:
    model, rows, T = Transformer(dataclasses.replace(SMALL, **form), 500, 500), 2, 40
    S = 24 * model.config.reads_source
    src, tgt = jax.ShapeDtypeStruct((rows, S), jnp.int32), jax.ShapeDtypeStruct((rows, T), jnp.int32)
    variables = {"params": parameter_shapes(model)}

    def forward(variables: dict, *inputs: jax.Array) -> jax.Array:
        return model.apply(variables, model.apply(variables, *inputs), method="logits")

    cost = jax.jit(forward).lower(variables, src, src, src, tgt, tgt, tgt).compile(FAST).cost_analysis()
    # XLA also counts softmax, norms and additions: a few percent at this size.
    assert rows * T * flops_per_token(model, S, T) / 3 == pytest.approx(cost["flops"], rel=0.06)


@pytest.mark.parametrize("recurrence", ["none", "adaptive"])  # which has a parameter without axes
@pytest.mark.parametrize("name", ["adam", "adamw", "lion", "adafactor"])
def test_memory_of_parameters_and_optimizer_is_exact(name: str, recurrence: str) -> None:
    sizes = {"preset": "small", "tied_embeddings": "none", "recurrence": recurrence}
    config = from_config_dict({"model": sizes}).model
    model = Transformer(config, 1000, 2000)
    shapes = parameter_shapes(model)
    tx = make_optimizer(config, OptimConfig(name=name), num_steps=10)
    state = jax.tree.leaves(jax.eval_shape(tx.init, shapes))
    found = memory_estimate(model, name, rows=2, source_length=16, target_length=16, ema=True)
    parameters = 4 * count_parameters(model)["total"]
    assert found["parameters"] == found["gradients"] == found["ema"] == parameters
    # Left out are step counters, and Adafactor's placeholders of one number.
    small = 8 + 8 * len(jax.tree.leaves(shapes))
    assert 0 <= sum(x.size * x.dtype.itemsize for x in state) - found["optimizer"] <= small
    assert found["total"] == sum(n for part, n in found.items() if part != "total")
    assert memory_estimate(model, name, rows=2, source_length=16, target_length=16, ema=False)["ema"] == 0


@pytest.mark.parametrize(
    ("form", "lengths"),
    [
        (dict(), (64, 64)),
        (dict(), (192, 16)),
        (dict(remat=True), (64, 64)),
        (dict(kind="decoder_only", prefix="causal"), (64, 64)),
        (dict(kind="decoder_only"), (0, 64)),
    ],
    ids=["plain", "long_sources", "remat", "prefix", "text"],
)
def test_activations_are_about_what_xla_allocates(form: dict, lengths: tuple[int, int]) -> None:
    config = Config(model=ModelConfig(**{**vars(SMALL), "scan_layers": True, **form}))
    model, rows = Transformer(config.model, 500, 500), 32
    source, target = (jax.ShapeDtypeStruct((rows, n), jnp.int32) for n in lengths)
    key = jax.eval_shape(lambda: jax.random.key(0))
    step = jax.jit(partial(gradients, model=model, config=config))
    batch = Batch(*(source,) * 3, *(target,) * 3)
    compiled = step.lower(parameter_shapes(model), batch, key).compile(FAST)
    found = memory_estimate(model, "adam", rows, *lengths, ema=False)["activations"]
    assert found == pytest.approx(compiled.memory_analysis().temp_size_in_bytes, rel=0.35)
