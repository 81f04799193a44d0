"""Experiments on a layer that recurs: its steps count as layers, with what they really read and give."""

import math

import numpy as np
import pytest
from unit.questions.conftest import make_subject
from unit.small_model import make_model

from transformer.questions import layers, sight
from transformer.questions.experiments import EXPERIMENTS

STEPS, D, F = 2, 16, 32
SAME_PROGRAMS = 2, 4, 11, 12, 14, 15, 16, 19  # so that few are compiled


@pytest.fixture(scope="module")
def recurrent():
    return make_subject(make_model(recurrence="adaptive", num_encoder_layers=STEPS))


def sinusoid(place):
    angles = [place / 10000 ** (2 * (d // 2) / D) for d in range(D)]
    return np.array([math.cos(a) if d % 2 else math.sin(a) for d, a in enumerate(angles)])


def signals(length, step):
    """The sum of the signals of position and step that Dehghani et al. add to the state."""
    return np.array([sinusoid(t) for t in range(length)]) + sinusoid(step)


def test_a_step_reads_what_the_one_before_left_with_its_signals(recurrent):
    seen, ids_BS, real_BS = recurrent.seen, recurrent.batch.src_BS, recurrent.real["encoder"]
    state_BSD = np.asarray(recurrent.params["source"]["embedding"])[ids_BS] * D**0.5
    for step in range(STEPS):
        expected_BSD = state_BSD + signals(ids_BS.shape[1], step + 1)
        found_BSD = seen[f"encoder/layer_{step}/input"]
        np.testing.assert_allclose(found_BSD[real_BS], expected_BSD[real_BS], atol=1e-4)
        state_BSD = seen[f"encoder/layer_{step}"]
    # Nobody is sure enough to halt after the first step, and the mean is of both.
    halting = recurrent.params["encoder"]["halting"]
    p_BS1 = 1 / (1 + np.exp(-(seen["encoder/layer_0"] @ halting["kernel"] + halting["bias"])))[..., None]
    assert p_BS1.max() < 0.99
    mean_BSD = p_BS1 * seen["encoder/layer_0"] + (1 - p_BS1) * seen["encoder/layer_1"]
    np.testing.assert_allclose(recurrent.output("encoder"), mean_BSD, atol=1e-4)


def test_sublayers_and_weights_are_those_of_each_step(recurrent):
    for stack, number in (("encoder", 2), ("decoder", 3)):
        found = [(layer, sublayer) for layer, sublayer, _, _ in recurrent.sublayers(stack)]
        assert len(found) == len(set(found)) == STEPS * number
    for layer, sublayer, x_BTD, y_BTD in recurrent.sublayers("decoder"):
        norm = recurrent.params["decoder"]["layer_0"][f"{sublayer}_norm"]
        sum_BTD = x_BTD + y_BTD
        unit_BTD = sum_BTD - sum_BTD.mean(axis=-1, keepdims=True)
        unit_BTD /= np.sqrt(np.square(unit_BTD).mean(axis=-1, keepdims=True) + 1e-6)
        expected_BTD = unit_BTD * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
        found_BTD = recurrent.seen[f"decoder/layer_{layer}/{sublayer}_norm"]
        np.testing.assert_allclose(found_BTD, expected_BTD, atol=1e-4)
    weights_LBHTS = recurrent.weights("cross")
    assert weights_LBHTS.shape[0] == STEPS and np.abs(weights_LBHTS[0] - weights_LBHTS[1]).max() > 0.01


def test_questions_are_answered_and_what_has_no_meaning_is_said(recurrent):
    for number in SAME_PROGRAMS:
        rows = EXPERIMENTS[number](recurrent)
        assert np.isfinite([row.value for row in rows if row.value is not None]).all()
        assert any(row.key == "recurs" for row in rows) == (number in (11, 15))
        assert not {"skipped", "silent_layer"} & {row.key for row in rows}
    leaks = {row.key: row.value for row in sight.leaks(recurrent)}
    assert leaks["earlier_decoder"] == 0 and leaks["from_decoder"] > 0.1


def test_a_unit_is_idle_if_it_is_so_at_every_step(recurrent):
    rows = {row.key: row for row in layers.feed_forward(recurrent)}
    assert rows["idle"].place["units"] == 2 * F
    idle = 0
    for stack in ("encoder", "decoder"):
        real_NF = [
            recurrent.seen[f"{stack}/layer_{step}/feed_forward/Dropout_0"][recurrent.real[stack]]
            for step in range(STEPS)
        ]
        idle += (np.concatenate(real_NF).max(axis=0) == 0).sum()
    assert rows["idle"].value == idle
