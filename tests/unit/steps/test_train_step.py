"""Loss, gradients and steps: what they are means of, and what they must not depend on."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import numpy_loss
from reference import numpy_transformer as reference
from reference import reference_cases as cases

from transformer.config import Config, MeshConfig, OptimConfig, RunConfig
from transformer.data.batch import Batch, pack_rows, pad_rows
from transformer.io.devices import make_mesh, to_devices
from transformer.model.masks import shift_right
from transformer.special_ids import BOS_ID
from transformer.steps.state import TrainState
from transformer.steps.train_step import dropout_key, gradients, jit_steps
from transformer.training.optimizer import make_optimizer

EPS, VOCAB = 0.1, 13
MODEL = cases.model_config(num_encoder_layers=1)


def config_of(**optim: Any) -> Config:
    return Config(model=MODEL, optim=OptimConfig(**{"label_smoothing": EPS, "loss_chunk": 5, **optim}))


def random_batch() -> Batch:
    """Returns 4 rows with 1, 7, 3 and 12 real target tokens: parts of a split are never equal."""
    rng = np.random.default_rng(0)
    lengths = [[(3, 1)], [(2, 3), (4, 4)], [(5, 3)], [(6, 7), (2, 5)]]
    pairs = [[tuple(rng.integers(1, VOCAB, n) for n in pair) for pair in row] for row in lengths]
    return pack_rows(pairs, rows=4, length=12)


BATCH = random_batch()
PARAMS = jax.tree.map(jnp.asarray, cases.random_params(cases.build(MODEL)))


@functools.cache
def compiled(config: Config) -> Any:
    model = cases.build(config.model)
    return jax.jit(lambda p, *b: gradients(p, Batch(*b), jax.random.key(0), model, config))


def compute(config: Config, batch: Batch = BATCH) -> tuple[dict[str, float], Any]:
    """Returns the metrics and gradients of `batch` at PARAMS."""
    metrics, grads = compiled(config)(PARAMS, *batch)
    return {k: float(v) for k, v in metrics.items()}, cases.flatten(grads)


@pytest.fixture(scope="module")
def whole() -> tuple[dict[str, float], Any]:
    return compute(config_of())


def assert_same(found: tuple[dict[str, float], Any], expected: tuple[dict[str, float], Any]) -> None:
    assert found[0] == pytest.approx(expected[0], rel=2e-6)
    for path, value in expected[1].items():
        np.testing.assert_allclose(
            found[1][path], value, rtol=0, atol=1e-5 * max(np.abs(value).max(), 1e-3), err_msg=path
        )


def test_loss_is_the_mean_over_all_real_tokens(whole: tuple) -> None:
    """Against the reference: not a mean of means of rows, nor over padding."""
    tgt_in_BT = np.asarray(shift_right(BATCH.tgt_BT, BATCH.tgt_pos_BT, BOS_ID))
    inputs = (*BATCH[:3], tgt_in_BT, *BATCH[4:])
    logits_BTV = reference.logits(cases.flatten(PARAMS), MODEL, *inputs)
    real = BATCH.tgt_seg_BT > 0
    assert real.sum(1).tolist() == [1, 7, 3, 12]
    for name, eps in (("loss", EPS), ("nll", 0.0)):
        expected = numpy_loss.loss_sum(logits_BTV, BATCH.tgt_BT, real, eps) / 23
        assert whole[0][name] == pytest.approx(expected, rel=1e-5)


def test_loss_and_nll_fit_together(whole: tuple) -> None:
    """The uniform part of the smoothed target costs at least log V."""
    metrics, _ = whole
    assert metrics["loss"] >= (1 - EPS) * metrics["nll"] + EPS * math.log(VOCAB)


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_changes_nothing(parts: int, whole: tuple) -> None:
    assert_same(compute(config_of(accumulation_steps=parts)), whole)


def test_accumulation_in_bfloat16() -> None:
    """512 equal parts: in bfloat16 a sum of 256 would not grow any more, and half of it would be lost."""
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    model, row = cases.build(MODEL), Batch(*(x[1:2] for x in BATCH))

    def grads_of(count: int) -> dict[str, np.ndarray]:
        batch, config = Batch(*(x.repeat(count, axis=0) for x in row)), config_of(accumulation_steps=count)
        grads = jax.jit(lambda p: gradients(p, batch, jax.random.key(0), model, config)[1])(params)
        assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype(jnp.bfloat16)}
        return cases.flatten(jax.tree.map(lambda x: x.astype(jnp.float32), grads))

    expected = grads_of(1)
    for path, value in grads_of(512).items():
        far = np.abs(value - expected[path]).max()
        assert far <= 2**-6 * np.abs(expected[path]).max(), path


def test_each_row_begins_at_a_place_of_its_own_up_to_the_random_offset() -> None:
    """Against the reference: the loss is that of one choice of four places, and another key's of another."""
    most, found = 2, []
    tgt_in_BT = np.asarray(shift_right(BATCH.tgt_BT, BATCH.tgt_pos_BT, BOS_ID))
    sums = np.zeros((most + 1, 4))
    for offset in range(most + 1):
        source = *BATCH[:2], BATCH.src_pos_BS + offset
        target = tgt_in_BT, BATCH.tgt_seg_BT, BATCH.tgt_pos_BT + offset
        logits_BTV = reference.logits(cases.flatten(PARAMS), MODEL, *source, *target)
        real = BATCH.tgt_seg_BT > 0
        for row in range(4):
            rows = logits_BTV[row : row + 1], BATCH.tgt_BT[row : row + 1], real[row : row + 1]
            sums[offset, row] = numpy_loss.loss_sum(*rows, EPS)
    config = config_of(random_offset=most)
    step = jax.jit(lambda key: gradients(PARAMS, BATCH, key, cases.build(MODEL), config)[0]["loss"])
    for seed in range(3):
        loss = float(step(jax.random.key(seed)))
        chosen = [
            offsets
            for offsets in itertools.product(range(most + 1), repeat=4)
            if loss == pytest.approx(sum(sums[o, row] for row, o in enumerate(offsets)) / 23, rel=1e-6)
        ]
        assert len(chosen) == 1
        found += chosen
    assert len(set(found)) == 3
    assert {offset for offsets in found for offset in offsets} == {0, 1, 2}


def test_rows_of_padding_change_nothing(whole: tuple) -> None:
    padded = pad_rows(BATCH, 3)
    assert [x.shape for x in padded] == [(6, 12)] * 6
    assert pad_rows(BATCH, 2) is BATCH
    assert_same(compute(config_of(), padded), whole)


def test_a_batch_of_padding_alone_has_no_loss_and_no_gradient() -> None:
    metrics, grads = compute(config_of(), Batch(*(np.zeros_like(x) for x in BATCH)))
    assert metrics == {"loss": 0.0, "nll": 0.0}
    assert all(not np.any(g) for g in grads.values())


@dataclasses.dataclass(frozen=True)
class Course:
    """What three steps gave: metrics and parameters after each, then the last average and dev sums.

    `moments` are Adam's first moments after the first step.
    """

    metrics: list[dict[str, float]]
    params: list[dict[str, np.ndarray]]
    moments: dict[str, np.ndarray]
    ema: dict[str, np.ndarray]
    evaluation: dict[str, float]


DECAY, THREEFRY = 0.9, RunConfig()


@pytest.fixture(scope="module")
def run() -> Callable[..., Course]:
    """Returns a function that begins anew with PARAMS and takes three compiled steps, with dropout.

    It takes the number of the first one.
    """
    optim = OptimConfig(warmup_steps=4, ema_decay=DECAY, loss_chunk=5)
    model_config = cases.model_config(num_encoder_layers=1, dropout_rate=0.1)
    config = Config(model=model_config, optim=optim, run=RunConfig(num_steps=3))
    model, tx = cases.build(model_config), make_optimizer(model_config, optim, 3)
    mesh = make_mesh(MeshConfig())
    start = jax.device_get(TrainState(jnp.int32(0), PARAMS, tx.init(PARAMS), PARAMS))
    train, evaluate = jit_steps(model, tx, config, mesh, start)

    def three_steps(first: int = 0, scale: float = 1.0, dropout: RunConfig = THREEFRY) -> Course:
        state, batch = jax.tree.map(jnp.array, start), to_devices(BATCH, mesh)
        scaled = [jax.tree.map(lambda x: x * scale, tree) for tree in (state.params, state.ema)]
        state = TrainState(jnp.int32(first), scaled[0], state.opt_state, scaled[1])
        metrics, params, moments = [], [cases.flatten(PARAMS)], []
        for _ in range(3):
            state, found = train(state, batch, dropout_key(dropout), None)
            metrics.append({k: float(v) for k, v in found.items()})
            params.append(cases.flatten(state.params))
            moments.append(cases.flatten(optax.tree.get(state.opt_state, "mu")))
        assert int(state.step) == first + 3
        evaluation = {k: float(v) for k, v in evaluate(state.params, batch).items()}
        return Course(metrics, params, moments[0], cases.flatten(state.ema), evaluation)

    return three_steps


@pytest.fixture(scope="module")
def course(run: Callable[..., Course]) -> Course:
    return run()


def test_steps_repeat_bit_by_bit(run: Callable[..., Course], course: Course) -> None:
    again = run()
    assert course.metrics == again.metrics
    for a, b in zip(course.params, again.params, strict=True):
        assert all(np.array_equal(a[path], b[path]) for path in a)
    assert course.metrics[2]["nll"] < course.metrics[0]["nll"]


def test_dropout_takes_its_bits_from_the_generator_and_seed_asked_for(
    run: Callable[..., Course], course: Course
) -> None:
    rbg = RunConfig(dropout_prng="rbg")
    found = [run(dropout=d).metrics[0]["loss"] for d in (rbg, rbg, RunConfig(dropout_seed=1))]
    assert found[0] == found[1]
    assert len({course.metrics[0]["loss"], found[0], found[2]}) == 3


def test_each_step_drops_anew(run: Callable[..., Course], course: Course) -> None:
    assert run(1).metrics[0]["loss"] != course.metrics[0]["loss"]


def test_each_part_drops_anew() -> None:
    """The same row costs another loss as part 0 than as part 1, the other part being padding."""
    model_config = cases.model_config(num_encoder_layers=1, dropout_rate=0.5)
    config = Config(model=model_config, optim=OptimConfig(accumulation_steps=2))
    row = pad_rows(Batch(*(x[3:] for x in BATCH)), 2)
    losses = [compute(config, batch)[0]["loss"] for batch in (row, Batch(*(x[::-1] for x in row)))]
    assert losses[0] != losses[1]


def test_metrics_of_a_step(course: Course) -> None:
    for step, metrics in enumerate(course.metrics, 1):
        assert metrics["source_tokens"] == 3 + 6 + 5 + 8
        assert metrics["target_tokens"] == 23
        expected = MODEL.d_model**-0.5 * min(step**-0.5, step * 4**-1.5)
        assert metrics["learning_rate"] == pytest.approx(expected)


def test_gradient_norm(course: Course) -> None:
    """Adam's first moments after one step are the gradients times 1 - beta1 = 0.1."""
    expected = math.sqrt(sum((m**2).sum() for m in course.moments.values())) / 0.1
    assert course.metrics[0]["gradient_norm"] == pytest.approx(expected, rel=1e-5)


def test_moving_average(course: Course) -> None:
    for path, found in course.ema.items():
        expected = course.params[0][path]
        for params in course.params[1:]:
            expected = DECAY * expected + (1 - DECAY) * params[path]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, err_msg=path)


def test_a_step_without_a_finite_loss_changes_nothing(run: Callable[..., Course], course: Course) -> None:
    """Parameters so large that the logits overflow; the learning rate goes on all the same."""
    lost = run(scale=2.0**100)
    assert [metrics["skipped"] for metrics in lost.metrics] == [1, 1, 1]
    assert not math.isfinite(lost.metrics[0]["loss"])
    for path, x in course.params[0].items():
        for later in (*lost.params[1:], lost.ema):
            np.testing.assert_array_equal(later[path], x * 2.0**100, err_msg=path)
        assert not lost.moments[path].any()
    assert [m["learning_rate"] for m in lost.metrics] == [m["learning_rate"] for m in course.metrics]
    assert [metrics["skipped"] for metrics in course.metrics] == [0, 0, 0]


def test_evaluation_sums(course: Course) -> None:
    """Without dropout and smoothing, against the reference."""
    tgt_in_BT = np.asarray(shift_right(BATCH.tgt_BT, BATCH.tgt_pos_BT, BOS_ID))
    logits_BTV = reference.logits(course.params[-1], MODEL, *BATCH[:3], tgt_in_BT, *BATCH[4:])
    real = BATCH.tgt_seg_BT > 0
    assert course.evaluation == pytest.approx(
        {
            "nll": numpy_loss.loss_sum(logits_BTV, BATCH.tgt_BT, real, 0.0),
            "correct": ((logits_BTV.argmax(-1) == BATCH.tgt_BT) & real).sum(),
            "source_tokens": (BATCH.src_seg_BS > 0).sum(),
            "target_tokens": 23,
        },
        rel=1e-5,
    )
