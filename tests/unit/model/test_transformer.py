"""What the model must not depend on, and forms of it that must agree with each other."""

import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import numpy_loss
from reference import numpy_transformer as reference
from reference import reference_cases as cases

from transformer import axes
from transformer.config import Config, OptimConfig
from transformer.data.batch import Batch, pack_rows
from transformer.model.masks import decoder_mask, segment_mask, shift_right
from transformer.model.size import parameter_shapes
from transformer.model.transformer import Transformer, empty_cache, unstack_layers
from transformer.special_ids import BOS_ID
from transformer.steps.train_step import gradients

REAL = cases.TGT_SEG > 0


def random_params(model: Transformer) -> Any:
    return jax.tree.map(jnp.asarray, cases.random_params(model))


def assert_trees_close(found: Any, expected: Any, rtol: float = 1e-5) -> None:
    """Compares leaf by leaf, relative to each leaf's largest value."""
    found, expected = cases.flatten(found), cases.flatten(expected)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        atol = rtol * max(np.abs(value).max(), 1e-3)
        np.testing.assert_allclose(found[path], value, rtol=0, atol=atol, err_msg=path)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_who_can_influence_whom(norm: str) -> None:
    """By gradient: a real target position depends on exactly the inputs that the masks allow."""
    model = cases.build(cases.model_config(norm=norm, num_encoder_layers=1))
    params = {"params": random_params(model)}
    src_seg_BS, tgt_seg_BT = jnp.array(cases.SRC_SEG), jnp.array(cases.TGT_SEG)
    (B, S), T, D = src_seg_BS.shape, tgt_seg_BT.shape[1], model.config.d_model

    def forward(module: Transformer, x_BSD: jax.Array, y_BTD: jax.Array) -> jax.Array:
        encoded_BSD = module.encoder.run(x_BSD, src_seg_BS, True, segment_mask(src_seg_BS, src_seg_BS))
        cross = segment_mask(tgt_seg_BT, src_seg_BS)
        return module.decoder.run(y_BTD, tgt_seg_BT, True, encoded_BSD, decoder_mask(tgt_seg_BT), cross)

    rng = np.random.default_rng(0)
    inputs = tuple(rng.normal(size=(B, n, D)).astype(np.float32) for n in (S, T))
    _, pull_back = jax.vjp(lambda *x: model.apply(params, *x, method=forward), *inputs)
    # One cotangent for each target position: random there, zero elsewhere.
    wishes = np.eye(B * T, dtype=np.float32).reshape(-1, B, T, 1) * rng.normal(size=D).astype(np.float32)
    from_source, from_target = jax.jit(jax.vmap(pull_back))(wishes)

    same_row = np.eye(B, dtype=bool)[:, None, :, None]
    target = cases.TGT_SEG[:, :, None, None]
    for found, seg, order in (
        (from_source, cases.SRC_SEG, True),
        (from_target, cases.TGT_SEG, np.tri(T, dtype=bool)[None, :, None, :]),
    ):
        influence = np.any(np.asarray(found) != 0, axis=-1).reshape(B, T, B, -1)
        expected = same_row & (target == seg[None, None]) & order
        np.testing.assert_array_equal(influence[REAL], expected[REAL])


def test_changes_stay_where_they_belong() -> None:
    """By perturbation of ids: padding, other rows, other sentences of the row, later target tokens."""
    model = cases.build(cases.model_config(norm="pre"))
    params = random_params(model)
    inputs, _ = cases.batch(model)

    @jax.jit
    def logits(src: jax.Array, tgt: jax.Array) -> jax.Array:
        y_BTD = model.apply({"params": params}, src, *inputs[1:3], tgt, *inputs[4:])
        return model.apply({"params": params}, y_BTD, method="logits")

    src, tgt = inputs[0], inputs[3]
    before = np.asarray(logits(src, tgt))

    def changed(new_src: np.ndarray, new_tgt: np.ndarray) -> np.ndarray:
        return np.any(np.abs(logits(new_src, new_tgt) - before) > 1e-6, axis=-1) & REAL

    def other(ids: np.ndarray, where: np.ndarray) -> np.ndarray:
        return np.where(where, (ids + 1) % 11, ids)

    assert not changed(other(src, cases.SRC_SEG == 0), other(tgt, cases.TGT_SEG == 0)).any()
    for b, s in np.argwhere(cases.SRC_SEG > 0):
        where = np.zeros_like(src, bool)
        where[b, s] = True
        row = (np.arange(3) == b)[:, None]
        np.testing.assert_array_equal(
            changed(other(src, where), tgt), row & (cases.SRC_SEG[b, s] == cases.TGT_SEG)
        )
    for b, t in np.argwhere(REAL):
        where = np.zeros_like(tgt, bool)
        where[b, t] = True
        later = (np.arange(3) == b)[:, None] & (np.arange(tgt.shape[1]) >= t)
        np.testing.assert_array_equal(
            changed(src, other(tgt, where)), later & (cases.TGT_SEG[b, t] == cases.TGT_SEG)
        )


@pytest.mark.parametrize("prefix", ["causal", "bidirectional"])
def test_a_decoder_alone_sees_what_its_prefix_may(prefix: str) -> None:
    """By perturbation: all of the source changes a target, no later token does; both ways if told so."""
    sizes = dict(kind="decoder_only", prefix=prefix, num_decoder_layers=2)
    model = cases.build(cases.model_config(**sizes))
    params = {"params": random_params(model)}
    rng = np.random.default_rng(0)
    S, T = 4, 3
    src, tgt = (rng.integers(1, 13, (1, n)).astype(np.int32) for n in (S, T))
    sides = [(np.ones((1, n), np.int32), np.arange(n)[None]) for n in (S, T)]

    @jax.jit
    def outputs(src: jax.Array, tgt: jax.Array) -> Any:
        keys = model.apply(params, src, *sides[0], method="read")
        return model.apply(params, src, *sides[0], tgt, *sides[1])[0], keys[1].key[0, 0].T

    before = outputs(src, tgt)

    def changed(new_src: np.ndarray, new_tgt: np.ndarray) -> list[list[bool]]:
        after = outputs(new_src, new_tgt)
        found = [np.abs(a - b).max(axis=-1) > 1e-6 for a, b in zip(after, before, strict=True)]
        return [x.tolist() for x in found]

    for s in range(S):
        other = np.where(np.arange(S) == s, src % 12 + 1, src)
        seen = [prefix == "bidirectional" or place >= s for place in range(S)]
        assert changed(other, tgt) == [[True] * T, seen]
    for t in range(T):
        other = np.where(np.arange(T) == t, tgt % 12 + 1, tgt)
        assert changed(src, other) == [[place >= t for place in range(T)], [False] * S]


@pytest.mark.parametrize(
    "choices",
    [dict(num_encoder_layers=1), cases.ALONE["prefix_buckets"], cases.ALONE["text_gated_additive"]],
    ids=["paper", "prefix_buckets", "text"],
)
def test_packed_and_unpacked_rows_train_alike(choices: dict[str, Any]) -> None:
    config = Config(model=cases.model_config(**choices), optim=OptimConfig(loss_chunk=5))
    model = cases.build(config.model)
    params = random_params(model)
    rng = np.random.default_rng(0)
    pairs = [tuple(rng.integers(1, 13, n) for n in lengths) for lengths in ((3, 2), (1, 4), (4, 1), (2, 3))]
    step = jax.jit(lambda p, *batch: gradients(p, Batch(*batch), jax.random.key(0), model, config))
    # Of one shape, so that one compilation does: 2 packed rows and 2 of padding, or 4 rows.
    if not config.model.reads_source:
        pairs = [(source[:0], target) for source, target in pairs]
    layouts = [
        pack_rows(rows, 4, 8 * config.model.reads_source, 8)
        for rows in ([pairs[:2], pairs[2:]], [[pair] for pair in pairs])
    ]
    results = [step(params, *batch) for batch in layouts]
    for name in ("loss", "nll"):
        assert float(results[0][0][name]) == pytest.approx(float(results[1][0][name]), rel=1e-6)
    assert_trees_close(results[0][1], results[1][1])


@pytest.mark.parametrize(
    "choices",
    [
        dict(),
        dict(norm="pre", positions="learned", attention_bias=True, tied_embeddings="none"),
        *cases.FAMILIES.values(),
        *cases.MECHANISMS.values(),
        *cases.RECURRENCES.values(),
        *cases.ALONE.values(),
    ],
    ids=["paper", "pre", *cases.FAMILIES, *cases.MECHANISMS, *cases.RECURRENCES, *cases.ALONE],
)
def test_cached_steps_equal_teacher_forcing(choices: dict[str, Any]) -> None:
    """Three different hypotheses a sentence, sources of different lengths."""
    model = cases.build(cases.model_config(**{**choices, "num_decoder_layers": 2}))
    params = {"params": random_params(model)}
    B, W, T, S = 2, 3, 6, 5
    rng = np.random.default_rng(0)
    src_BS = rng.integers(1, model.source_vocab, (B, S))
    seg_BS = np.array([[1] * S, [1] * 3 + [0] * 2])
    tgt_BWT = rng.integers(1, model.target_vocab, (B, W, T))

    @jax.jit
    def teacher() -> jax.Array:
        src, seg, tgt = src_BS.repeat(W, 0), seg_BS.repeat(W, 0), tgt_BWT.reshape(B * W, T)
        y_BTD = model.apply(
            params,
            src,
            seg,
            np.arange(S) * seg,
            tgt,
            np.ones_like(tgt),
            np.broadcast_to(np.arange(T), tgt.shape),
        )
        return model.apply(params, y_BTD, method="logits").reshape(B, W, T, -1)

    @jax.jit
    def start() -> Any:
        return model.apply(params, src_BS, seg_BS, np.arange(S) * seg_BS, method="read")

    # The hypotheses change places from step to step, as they do in a beam; the cache does not.
    place_BWT = np.stack([[rng.permutation(W) for _ in range(T + 3)] for _ in range(B)]).swapaxes(1, 2)
    step = jax.jit(lambda *args: model.apply(params, *args, seg_BS, method="decode_step"))
    source, cache = start(), empty_cache(model.config, B, W, T + 2)
    expected = teacher()
    for t in range(T):
        order_BW = np.argsort(place_BWT[:, :, t], axis=1)  # which hypothesis is at each place now
        token_BW = np.take_along_axis(tgt_BWT[:, :, t], order_BW, axis=1)
        ancestor_BWT = np.take_along_axis(place_BWT, order_BW[..., None], axis=1)
        logits_BWV, cache = step(token_BW, jnp.int32(t), cache, ancestor_BWT, source)
        now = np.take_along_axis(expected[:, :, t], order_BW[..., None], axis=1)
        np.testing.assert_allclose(logits_BWV, now, rtol=0, atol=1e-5)


def stack_layers(params: Any) -> Any:
    """Returns parameters "layer_0", ... stacked as "layers": written here to check `unstack_layers`."""
    result = dict(params)
    for stack in ("encoder", "decoder"):
        layers = [k for k in sorted(params[stack]) if k.startswith("layer_")]
        rest = {k: v for k, v in params[stack].items() if k not in layers}
        stacked = jax.tree.map(lambda *x: np.stack(x), *(params[stack][k] for k in layers))
        result[stack] = {**rest, "layers": stacked}
    return result


def test_scanned_and_rematerialised_layers_equal_plain_ones() -> None:
    sizes = dict(norm="pre", positions="learned")
    plain = cases.build(cases.model_config(**sizes))
    params, (inputs, _) = random_params(plain), cases.batch(plain)

    def run(**forms: bool) -> tuple[jax.Array, Any]:
        model = cases.build(cases.model_config(**sizes, **forms))
        given = stack_layers(params) if forms.get("scan_layers") else params
        assert jax.tree.map(np.shape, given) == jax.tree.map(lambda x: x.shape, parameter_shapes(model))

        def total(p: Any) -> jax.Array:
            return (model.apply({"params": p}, *inputs) ** 3 * REAL[..., None]).sum()

        value, gradient = jax.jit(jax.value_and_grad(total))(given)
        return value, unstack_layers(jax.device_get(gradient))

    value, gradient = run()
    for forms in (dict(scan_layers=True), dict(remat=True)):  # both at once: tests/reference
        found, found_gradient = run(**forms)
        assert float(found) == pytest.approx(float(value), rel=1e-5)
        assert_trees_close(found_gradient, gradient)
    params = jax.device_get(params)
    jax.tree.map(np.testing.assert_array_equal, unstack_layers(stack_layers(params)), params)
    jax.tree.map(np.testing.assert_array_equal, unstack_layers(params), params)


def test_scanned_layers_begin_with_different_weights() -> None:
    model = cases.build(cases.model_config(scan_layers=True))
    inputs, _ = cases.batch(model)

    @jax.jit
    def init(key: jax.Array) -> jax.Array:
        return model.init(key, *inputs)["params"]["encoder"]["layers"]["feed_forward"]["wi"]["kernel"]

    kernel = np.asarray(init(jax.random.key(0)))
    assert np.abs(kernel[0] - kernel[1]).min(initial=1.0) > 0


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters() -> None:
    config = Config(model=cases.model_config(dtype="bfloat16", num_encoder_layers=1))
    model = cases.build(config.model)
    inputs, _ = cases.batch(model)
    params = random_params(model)
    assert {x.dtype for x in jax.tree.leaves(parameter_shapes(model))} == {np.dtype("float32")}
    assert jax.eval_shape(model.apply, {"params": params}, *inputs).dtype == jnp.bfloat16
    batch = Batch(*inputs)
    metrics, grads = jax.jit(lambda p: gradients(p, batch, jax.random.key(0), model, config))(params)
    assert {x.dtype for x in jax.tree.leaves((metrics, grads))} == {np.dtype("float32")}
    tgt_in_BT = np.asarray(shift_right(batch.tgt_BT, batch.tgt_pos_BT, BOS_ID))
    logits_BTV = reference.logits(cases.flatten(params), config.model, *inputs[:3], tgt_in_BT, *inputs[4:])
    expected = numpy_loss.loss_sum(logits_BTV, batch.tgt_BT, REAL, 0.1) / REAL.sum()
    assert float(metrics["loss"]) == pytest.approx(expected, rel=0.02)


def test_every_parameter_has_exactly_one_sharding_rule() -> None:
    used = set()
    forms = [dict(), dict(norm="pre", positions="learned", attention_bias=True)]
    forms += [*cases.FAMILIES.values(), *cases.MECHANISMS.values(), *cases.ALONE.values()]
    forms += cases.FRAMES.values()
    kinds = [*itertools.product(("all", "target", "none"), (False, True), forms[:2])]
    kinds += [("all", False, form) for form in (*forms[2:], *cases.RECURRENCES.values())]
    for tied, scan, form in kinds:
        config = cases.model_config(**{**form, "tied_embeddings": tied, "scan_layers": scan})
        shapes = parameter_shapes(cases.build(config))
        specs = jax.tree_util.tree_leaves(
            axes.param_specs(shapes), is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec)
        )
        for (path, x), spec in zip(jax.tree_util.tree_leaves_with_path(shapes), specs, strict=True):
            name = "/".join(k.key for k in path)
            found = [pattern for pattern, _ in axes.PARAM_AXES if re.search(pattern, name)]
            assert len(found) == 1, name
            used.update(found)
            assert len(spec) == x.ndim, name
            named = [a for entry in spec for a in ((entry,) if isinstance(entry, str) else entry or ())]
            assert len(named) == len(set(named)), name
            assert not ("/layers/" in name and spec[0]), name
    assert used == {pattern for pattern, _ in axes.PARAM_AXES}


def test_unknown_parameter_is_an_error_with_its_path() -> None:
    with pytest.raises(ValueError, match="decoder/gate: 0 rules"):
        axes.param_letters("decoder/gate", 2)
    with pytest.raises(ValueError, match="shared/embedding: rank 3"):
        axes.param_letters("shared/embedding", 3)
