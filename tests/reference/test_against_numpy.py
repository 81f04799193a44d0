"""Logits, loss and gradients of the float32 model against the float64 NumPy of the paper's formulas."""

import dataclasses
from typing import Any

import jax
import numpy as np
import numpy_loss
import numpy_transformer as reference
import pytest
import reference_cases as cases

from transformer.config import ModelConfig
from transformer.training.loss import smoothed_loss, token_log_probs

Array = np.ndarray
SMOOTHING = 0.1
CHUNK = 4  # does not divide the 18 target positions

CONFIGS: dict[str, dict[str, Any]] = {
    "paper": dict(),
    "pre_norm_large_epsilon": dict(norm="pre", norm_epsilon=0.1),
    "everything_else": dict(
        norm="pre", tied_embeddings="none", positions="learned", attention_bias=True, activation="swish"
    ),
    "halves_gelu_target": dict(tied_embeddings="target", positions="sinusoidal_halves", activation="gelu"),
    "bias_learned_deep": dict(
        attention_bias=True, positions="learned", num_encoder_layers=1, num_decoder_layers=2
    ),
    "remat_scanned": dict(norm="pre", remat=True, scan_layers=True, num_decoder_layers=2),
    **cases.FAMILIES,
    **cases.MECHANISMS,
    **cases.RECURRENCES,
    **cases.ALONE,
    **cases.ENCODERS,
    **cases.FRAMES,
    "umt5_scanned": dict(cases.FAMILIES["umt5"], scan_layers=True, remat=True),
    "local_scanned": dict(cases.MECHANISMS["block_additive_buckets"], scan_layers=True, remat=True),
    "prefix_scanned": dict(cases.ALONE["prefix_buckets"], scan_layers=True, remat=True),
    "compressed_scanned": dict(attention="compressed", chunk_length=2, scan_layers=True, remat=True),
    "gated_chunked": dict(gated_feed_forward=True, chunk_length=2),
    "mechanisms_scanned": dict(cases.MECHANISMS["general_grouped"], positions="alibi", scan_layers=True),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One configuration, and what the model gives for it."""

    config: ModelConfig
    params: dict[str, Array]  # by path, float64
    inputs: tuple[Array, ...]
    labels: Array  # [B, T], as are log_probs, correct and real
    real: Array
    logits: Array  # [B, T, V]
    log_probs: Array
    correct: Array
    loss: float
    nll: float
    gradient: dict[str, Array]  # of `loss`, by path


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS)
def case(request: pytest.FixtureRequest) -> Case:
    choices = dict(request.param)
    vocab = {"target_vocab": choices.pop("target_vocab")} if "target_vocab" in choices else {}
    config = cases.model_config(**choices)
    model = cases.build(config, **vocab)
    params = cases.random_params(model)
    inputs, labels_BT = cases.batch(model)
    real_BT = inputs[4] > 0

    def loss_and_outputs(params: Any) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        y_BTD, table_RVD, bias_V = model.apply({"params": params}, *inputs, method="with_output")
        real = real_BT.astype(np.float32)
        loss, nll = smoothed_loss(y_BTD, table_RVD, labels_BT, real, SMOOTHING, CHUNK, bias_V)
        logits_BTV = model.apply({"params": params}, y_BTD, method="logits")
        return loss, (logits_BTV, *token_log_probs(y_BTD, table_RVD, labels_BT, CHUNK, bias_V), nll)

    (loss, outputs), gradient = jax.jit(jax.value_and_grad(loss_and_outputs, has_aux=True))(params)
    logits_BTV, log_prob_BT, correct_BT, nll = map(np.asarray, outputs)
    return Case(
        config=config,
        params=cases.flatten(params),
        inputs=inputs,
        labels=labels_BT,
        real=real_BT,
        logits=logits_BTV,
        log_probs=log_prob_BT,
        correct=correct_BT,
        loss=float(loss),
        nll=float(nll),
        gradient=cases.flatten(gradient),
    )


def reference_loss(case: Case, params: numpy_loss.Params, smoothing: float = SMOOTHING) -> float:
    logits_BTV = reference.logits(params, case.config, *case.inputs)
    return numpy_loss.loss_sum(logits_BTV, case.labels, case.real, smoothing)


def test_logits(case: Case) -> None:
    expected_BTV = reference.logits(case.params, case.config, *case.inputs)
    np.testing.assert_allclose(case.logits[case.real], expected_BTV[case.real], rtol=0, atol=1e-5)


def test_losses(case: Case) -> None:
    assert case.loss == pytest.approx(reference_loss(case, case.params), rel=1e-5)
    assert case.nll == pytest.approx(reference_loss(case, case.params, smoothing=0.0), rel=1e-5)


def test_log_probs_of_labels(case: Case) -> None:
    logits_BTV = reference.logits(case.params, case.config, *case.inputs)
    for b, t in np.argwhere(case.real):
        label = int(case.labels[b, t])
        expected = -numpy_loss.token_loss(logits_BTV[b, t], label, smoothing=0.0)
        assert case.log_probs[b, t] == pytest.approx(expected, abs=1e-5)
        assert case.correct[b, t] == (logits_BTV[b, t].argmax() == label)


def test_gradients(case: Case) -> None:
    """Of each parameter: the largest entry, and all together along a random direction."""
    rng = np.random.default_rng(2)
    for path, gradient in case.gradient.items():
        largest = np.eye(1, gradient.size, int(np.abs(gradient).argmax())).reshape(gradient.shape)
        for direction in (largest, rng.choice([-1.0, 1.0], gradient.shape)):
            expected = numpy_loss.slope(lambda p: reference_loss(case, p), case.params, path, direction)
            # The sum of many entries may cancel: their rounding does not.
            atol = 1e-5 * max(1.0, np.abs(gradient * direction).sum())
            found = (gradient * direction).sum()
            np.testing.assert_allclose(found, expected, rtol=2e-4, atol=atol, err_msg=path)
