"""Random configurations: what is accepted trains, and batches, padding, chunks and caches change nothing."""

import dataclasses
import random
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer.config import Config
from transformer.config_mapping import from_config_dict
from transformer.data.batch import Batch, pack_rows, pad_rows
from transformer.errors import ConfigError
from transformer.model.masks import shift_right
from transformer.model.size import flops_per_token, memory_estimate
from transformer.model.transformer import Transformer, empty_cache, unrolled, unstack_layers
from transformer.steps.state import init_state
from transformer.steps.train_step import eval_step, train_step
from transformer.training.optimizer import make_optimizer
from transformer.validation import USES

VOCAB, LABELS, LONGEST = 29, 7, 16
NO_TEXT = {"run.eval_lines": 0, "run.best_metric": "nll"}
ALONE = {"model.kind": "decoder_only", "model.num_encoder_layers": 0}
MASKED = {"model.kind": "encoder_only", **NO_TEXT}
KINDS: list[dict[str, Any]] = [
    {},
    {},
    {"model.source_features": 3, "data.kind": "frames"},
    {**ALONE, "data.kind": "lines", **NO_TEXT},
    {**ALONE, "model.prefix": "causal"},
    {**ALONE, "model.prefix": "bidirectional"},
    MASKED,
    {**MASKED, "data.labels": "word"},
    {**MASKED, "data.labels": "line"},
]
BOTH = (False, True)
CHOICES: dict[str, tuple[Any, ...]] = {
    "model.num_heads": (2, 4),
    "model.num_kv_heads": (0, 1, 2),
    "model.head_size": (0, 6),
    "model.norm": ("post", "pre"),
    "model.norm_type": ("layer", "rms"),
    "model.positions": ("sinusoidal", "learned", "relative", "shaw", "alibi", "rotary", "none"),
    "model.position_offset": (0, 0, 2),
    "model.relative_max_distance": (5, 128),
    "model.relative_buckets": (4, 8),
    "model.relative_shared": BOTH,
    "model.recurrence": ("none", "none", "fixed", "adaptive"),
    "model.tied_embeddings": ("all", "target", "inputs", "none"),
    "model.attention": ("full", "full", "window", "block", "compressed", "alternating"),
    "model.attention_score": ("dot_product", "dot_product", "general", "additive"),
    "model.attention_radius": (1, 3, 20),
    "model.compression": (2, 3),
    "model.global_tokens": (0, 0, 2, 20),
    "model.chunk_length": (0, 0, 3),
    "model.scan_layers": (False, False, True),
    "model.remat": BOTH,
    "model.embedding_norm": (False, False, True),
    "model.gated_feed_forward": BOTH,
    "model.feed_forward_bias": BOTH,
    "model.attention_bias": BOTH,
    "model.logits_bias": BOTH,
    "model.scale_embeddings": BOTH,
    "model.scale_queries": BOTH,
    "model.scale_logits": BOTH,
    "model.dropout_rate": (0.0, 0.1),
    "model.attention_dropout_rate": (0.0, 0.1),
    "model.dtype": ("float32", "float32", "bfloat16"),
    "model.param_dtype": ("float32", "float32", "bfloat16"),
    "data.packing": BOTH,
    "optim.name": ("adam", "adamw", "adafactor", "lion"),
    "optim.accumulation_steps": (1, 1, 2, 3),
    "optim.ema_decay": (0.0, 0.0, 0.9),
    "optim.random_offset": (0, 0, 5),
    "optim.label_smoothing": (0.0, 0.1),
    "optim.loss_chunk": (4, 512),
    "optim.clip_norm": (0.0, 1.0),
}
SIZES = {
    "model.d_model": 16,
    "model.d_ff": 24,
    "model.num_encoder_layers": 2,
    "model.num_decoder_layers": 2,
    "model.max_length": LONGEST,
    "tokenizer.vocab_size": VOCAB,
    "data.batch_tokens": 64,
}


def drawn(seed: int) -> Config:
    """Returns the first random configuration that is accepted."""
    draw = random.Random(seed)
    kind = draw.choice(KINDS)
    while True:
        chosen = {key: draw.choice(values) for key, values in CHOICES.items()}
        # Of two settings that refuse each other both should be seen.
        plain = draw.sample(sorted(CHOICES), k=draw.randrange(len(CHOICES)))
        chosen = {key: value for key, value in chosen.items() if key not in plain}
        for key, (choice, uses) in USES.items():
            if chosen.get(choice, CHOICES[choice][0]) not in uses:  # the first is what it is untouched
                chosen.pop(key, None)
        sections: dict[str, dict[str, Any]] = {}
        for key, value in {**SIZES, **chosen, **kind}.items():
            section, _, name = key.partition(".")
            sections.setdefault(section, {})[name] = value
        try:
            return from_config_dict(sections)
        except ConfigError:
            continue


def made(config: Config) -> Transformer:
    return Transformer(config.model, VOCAB, VOCAB if config.data.labels == "none" else LABELS, 1)


def pairs(config: Config, seed: int) -> list[tuple[Any, Any]]:
    draw, found = np.random.default_rng(seed), []
    for _ in range(3):
        S, T = draw.integers(2, 10), draw.integers(2, 9)
        source: Any = (
            draw.integers(4, VOCAB, S, np.int32) if config.model.reads_source else np.zeros(0, np.int32)
        )
        if features := config.model.source_features:
            source = draw.normal(size=(S, features)).astype(np.float32)
        target = draw.integers(4, VOCAB, T, np.int32)
        if config.model.kind == "encoder_only":
            target = np.where(draw.random(S) < 0.6, draw.integers(0, LABELS, S), -1).astype(np.int32)
            target[0] = 1
        found.append((source, target))
    return found


def rows(config: Config, packed: list[list[Any]], length: int, count: int = 0) -> Batch:
    sides = length * config.model.reads_source, length
    return pack_rows(packed, count or len(packed), *sides)


FEW, MANY = range(4), range(100, 250)


@pytest.mark.parametrize("seed", [*FEW, *(pytest.param(seed, marks=pytest.mark.slow) for seed in MANY)])
def test_what_is_accepted_trains(seed: int) -> None:
    """By shapes and dtypes alone: nothing is compiled."""
    config = drawn(seed)
    model = made(config)
    batch = rows(config, [[pair] for pair in pairs(config, seed)], LONGEST)
    batch = pad_rows(batch, config.optim.accumulation_steps)
    tx = make_optimizer(config.model, config.optim, 10)
    state = jax.eval_shape(lambda: init_state(model, tx, config))
    step = partial(train_step, model=model, tx=tx, config=config)
    new, metrics = jax.eval_shape(step, state, batch, jax.random.key(0), None)
    before, after = (jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (state, new))
    assert before == after and metrics["loss"].shape == ()
    jax.eval_shape(partial(eval_step, model=model, config=config), state.params, batch)
    assert flops_per_token(model, 5.0, 6.0) > 0
    assert memory_estimate(model, config.optim.name, 2, LONGEST, LONGEST, True)["total"] > 0


@pytest.mark.parametrize(
    "seed", [5, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(100, 130))]
)
def test_batches_chunks_and_caches_change_nothing(seed: int) -> None:
    config = drawn(seed)
    exact = dataclasses.replace(config.model, dtype="float32", param_dtype="float32")
    config = dataclasses.replace(config, model=exact)
    model, given = made(config), pairs(config, seed)
    params = random_parameters(model, seed)

    def scores(batch: Batch, model: Transformer = model, params: Any = params) -> list[float]:
        found = jax.jit(partial(eval_step, model=model, config=config))(params, batch)
        return [float(found[key]) for key in sorted(found) if key != "correct"]

    alone = [[pair] for pair in given]
    expected = scores(rows(config, alone, LONGEST))
    assert np.isfinite(expected).all()
    same = partial(np.testing.assert_allclose, desired=expected, rtol=1e-3)
    same(scores(rows(config, alone, 23, 4)))
    if config.data.packing:
        same(scores(rows(config, [given], 32)))
    plain = dataclasses.replace(model, config=dataclasses.replace(exact, chunk_length=0))
    same(scores(rows(config, alone, LONGEST), unrolled(plain), unstack_layers(params)))
    if config.model.kind != "encoder_only":
        batch = rows(config, alone, 12)
        expected_BTV, found_BTV = logits(model, params, batch), decoded(model, params, batch)
        scale, real_BT = np.abs(expected_BTV).max(), batch.tgt_seg_BT > 0
        assert np.abs(found_BTV - expected_BTV)[real_BT].max() < 1e-3 * max(scale, 1)


def random_parameters(model: Transformer, seed: int) -> Any:
    """Returns parameters of which none is 0 or 1."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), *model.smallest())["params"]
    draw = np.random.default_rng(seed)

    def drawn_like(path: Any, x: Any) -> jax.Array:
        return jnp.asarray(draw.normal(path[-1].key == "scale", 0.3, x.shape), x.dtype)

    return jax.tree_util.tree_map_with_path(drawn_like, shapes)


def logits(model: Transformer, params: Any, batch: Batch) -> np.ndarray:
    """Returns logits_BTV of the whole targets at once."""
    inputs = shift_right(batch.tgt_BT, batch.tgt_pos_BT, 1), batch.tgt_seg_BT, batch.tgt_pos_BT

    def apply(params: Any) -> jax.Array:
        y_BTD = model.apply({"params": params}, *batch[:3], *inputs)
        return model.apply({"params": params}, y_BTD, method="logits")

    return np.asarray(jax.jit(apply)(params))


def decoded(model: Transformer, params: Any, batch: Batch) -> np.ndarray:
    """Returns logits_BTV of targets read one by one, beside another hypothesis in the beam."""
    c, W = model.config, 2
    B, T = batch.tgt_BT.shape
    model, params = unrolled(model), {"params": unstack_layers(params)}
    source = batch[:3]
    if not c.reads_source:
        nothing = np.zeros((B, 8), np.int32)
        source = nothing, nothing, np.broadcast_to(np.arange(8), (B, 8))
    inputs_BT = jnp.asarray(shift_right(batch.tgt_BT, batch.tgt_pos_BT, 1))
    own_BWT = jnp.broadcast_to(jnp.arange(W)[None, :, None], (B, W, T))

    def read(params: Any) -> jax.Array:
        remembered = model.apply(params, *source, method="read")

        def step(cache: Any, t: jax.Array) -> tuple[Any, jax.Array]:
            token_BW = jnp.broadcast_to(inputs_BT[:, t][:, None], (B, W)).at[:, 0].set(3)
            inputs = token_BW, t, cache, own_BWT, remembered, source[1]
            logits_BWV, cache = model.apply(params, *inputs, method="decode_step")
            return cache, logits_BWV[:, 1]

        _, logits_TBV = jax.lax.scan(step, empty_cache(c, B, W, T), jnp.arange(T))
        return logits_TBV.swapaxes(0, 1)

    return np.asarray(jax.jit(read)(params))
