"""Adaptive recurrence: what a batch pays for its steps, against NumPy."""

from typing import Any

import jax
import numpy as np
import numpy_loss
import numpy_transformer as reference
import pytest
import reference_cases as cases

from transformer.config import Config, OptimConfig
from transformer.data.batch import Batch
from transformer.model.masks import shift_right
from transformer.steps.train_step import eval_step, gradients

Array = np.ndarray
ADAPTIVE = cases.RECURRENCES["recurrent_adaptive"]
WEIGHT = 0.5


@pytest.fixture(scope="module")
def model():
    return cases.build(cases.model_config(**ADAPTIVE))


@pytest.fixture(scope="module")
def batch(model):
    (src, src_seg, src_pos, _, tgt_seg, tgt_pos), labels = cases.batch(model)
    return Batch(src, src_seg, src_pos, labels * (tgt_seg > 0), tgt_seg, tgt_pos)


def taken(params: numpy_loss.Params, model: Any, batch: Batch, monkeypatch: Any) -> dict[str, float]:
    """Returns the reference's steps and remainders, summed over real positions by stack."""
    sums = dict.fromkeys(("encoder", "decoder", "remainder"), 0.0)
    run, segments = reference.run_layers, [*batch.src_seg_BS, *batch.tgt_seg_BT]
    order = iter(
        [
            x
            for pair in zip(segments[: len(segments) // 2], segments[len(segments) // 2 :], strict=True)
            for x in pair
        ]
    )

    def watched(params: Any, config: Any, stack: str, *rest: Any) -> Any:
        y_TD, steps, remainder = run(params, config, stack, *rest)
        real = next(order) > 0
        sums[stack] += steps[real].sum()
        sums["remainder"] += remainder[real].sum()
        return y_TD, steps, remainder

    with monkeypatch.context() as patch:
        patch.setattr(reference, "run_layers", watched)
        tgt_in_BT = np.asarray(shift_right(batch.tgt_BT, batch.tgt_pos_BT, model.start_id))
        reference.logits(params, model.config, *batch[:3], tgt_in_BT, *batch[4:])
    return sums


def test_steps_and_their_cost(model, batch, monkeypatch):
    params = cases.random_params(model)
    expected = taken(cases.flatten(params), model, batch, monkeypatch)
    found = jax.jit(lambda p: eval_step(p, batch, model, Config(model=model.config)))(params)
    assert float(found["encoder_steps"]) == expected["encoder"]
    assert float(found["decoder_steps"]) == expected["decoder"]
    at_source, at_target = (
        float(found[f"{stack}_steps"] / found[f"{side}_tokens"])
        for stack, side in (("encoder", "source"), ("decoder", "target"))
    )
    assert 1 < at_source < 3 and 1 < at_target < 3  # some positions halt before the last step, some do not

    def results(weight: float) -> tuple[float, dict[str, Array]]:
        config = Config(model=model.config, optim=OptimConfig(ponder_weight=weight))
        key = jax.random.key(0)
        metrics, grads = jax.jit(lambda p: gradients(p, batch, key, model, config))(params)
        return float(metrics["loss"]), cases.flatten(grads)

    (free, without), (dear, with_cost) = results(0.0), results(WEIGHT)
    tokens = float(found["target_tokens"])
    assert dear - free == pytest.approx(WEIGHT * sum(expected.values()) / tokens, rel=1e-5)
    for path in ("encoder/halting/kernel", "decoder/halting/bias"):
        direction = np.ones_like(with_cost[path])
        slope = numpy_loss.slope(
            lambda p: WEIGHT * taken(p, model, batch, monkeypatch)["remainder"] / tokens,
            cases.flatten(params),
            path,
            direction,
        )
        assert (with_cost[path] - without[path]).sum() == pytest.approx(slope, rel=1e-3, abs=1e-5)
