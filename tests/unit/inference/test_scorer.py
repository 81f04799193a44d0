"""Scores against the model's own probabilities, one pair at a time."""

import dataclasses
from functools import partial

import jax
import numpy as np
import pytest

from transformer.errors import ConfigError, DataError
from transformer.inference.scorer import Scorer
from transformer.inference.translator import Translator
from transformer.special_ids import BOS_ID, EOS_ID

# Few shapes make a quick test: all but the longest pairs are padded to 8 tokens.
SOURCES = ["ant bee", "cat", "dog. dog. eel fox cat ant bee", "hen"]
TARGETS = ["fox gnu hen", "", "eel", "hen. zebra gnu dog dog dog"]


@partial(jax.jit, static_argnums=0)
def logits(model, params, sides):
    y_1TD = model.apply({"params": params}, *sides)
    return model.apply({"params": params}, y_1TD, method="logits")[0]


def log_probs(loaded, source: str, target: str) -> list[float]:
    """Log-probability of each target token, teacher forced, one pair alone."""
    src, tgt = loaded.tokenizer.encode_source([source])[0], loaded.tokenizer.encode_target([target])[0]
    width = 16 if max(len(src), len(tgt)) <= 16 else 30
    sides = []
    for ids in (src, [BOS_ID, *tgt[:-1]]):
        real = np.arange(width) < len(ids)
        row = np.zeros(width, np.int32)
        row[real] = ids
        sides += [row[None], real[None].astype(np.int32), np.arange(width)[None]]
    log_p_TV = np.array(logits(loaded.model, loaded.params, sides), np.float64)
    log_p_TV -= np.log(np.exp(log_p_TV).sum(axis=1, keepdims=True))
    return [log_p_TV[t, token] for t, token in enumerate(tgt)]


@pytest.fixture(scope="module")
def scorer(loaded):
    return Scorer.of(loaded)


@pytest.fixture(scope="module")
def expected(loaded):
    return [log_probs(loaded, source, target) for source, target in zip(SOURCES, TARGETS, strict=True)]


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_a_score_is_the_sum_of_the_tokens_log_probabilities_over_the_penalty(scorer, expected, alpha):
    found = scorer.score(SOURCES, TARGETS, length_penalty=alpha)
    np.testing.assert_allclose(found, [sum(x) / ((5 + len(x)) / 6) ** alpha for x in expected], atol=1e-4)


def test_an_empty_target_has_the_probability_of_the_end_mark(loaded, scorer):
    assert loaded.tokenizer.encode_target([""]) == [[EOS_ID]]
    assert scorer.score(["cat"], [""]) == pytest.approx(log_probs(loaded, "cat", ""), abs=1e-4)


@pytest.mark.parametrize("rules", ["paper", "huggingface"])
def test_the_score_is_the_translators_own(loaded, rules):
    decode = dataclasses.replace(loaded.config.decode, rules=rules)
    loaded = dataclasses.replace(loaded, config=dataclasses.replace(loaded.config, decode=decode))
    scorer, lines = Scorer.of(loaded), ["ant", "bee.", "cat", "dog"]
    outputs = Translator.of(loaded).translate_n_best(lines, n_best=3)
    flat = [(line, t) for line, best in zip(lines, outputs, strict=True) for t in best if "⁇" not in t.text]
    assert len(flat) >= 10
    sources, targets = [line for line, _ in flat], [t.text for _, t in flat]
    found = scorer.score(sources, targets, batch_size=4, length_penalty=0.6)
    np.testing.assert_allclose(found, [t.score for _, t in flat], atol=1e-4)
    found = scorer.score(sources, targets, batch_size=4)
    np.testing.assert_allclose(found, [t.log_prob for _, t in flat], atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batch_and_order_change_nothing(scorer, expected, batch_size):
    order = [3, 0, 2, 1]
    found = scorer.score([SOURCES[i] for i in order], [TARGETS[i] for i in order], batch_size=batch_size)
    np.testing.assert_allclose(found, [sum(expected[i]) for i in order], atol=1e-4)


def test_lines_longer_than_in_training_are_scored_as_they_are(loaded, scorer):
    source, target = " ".join(9 * ["ant bee"]), " ".join(20 * ["gnu"])
    assert scorer.score([source], [target]) == pytest.approx(
        [sum(log_probs(loaded, source, target))], abs=1e-3
    )


def test_a_model_that_scans_its_layers_scores_alike(scanned, expected):
    found = Scorer.of(scanned).score(SOURCES, TARGETS)
    np.testing.assert_allclose(found, [sum(x) for x in expected], atol=1e-4)


def test_no_pairs_have_no_scores(scorer):
    assert scorer.score([], []) == []


def test_unequal_numbers_of_lines_are_refused(scorer):
    with pytest.raises(DataError, match="3 sources and 2 targets"):
        scorer.score(["a", "b", "c"], ["a", "b"])


def test_a_batch_of_nothing_is_refused(scorer):
    with pytest.raises(ConfigError, match="batch_size: must be at least 1, got 0"):
        scorer.score(["a"], ["a"], batch_size=0)


def test_learned_positions_end(learned):
    scorer = Scorer.of(learned)
    fits, long = " ".join(15 * ["ant"]), " ".join(16 * ["ant"])
    expected = [sum(log_probs(learned, fits, fits))]
    assert scorer.score([fits], [fits]) == pytest.approx(expected, abs=1e-3)
    with pytest.raises(DataError, match="target line 2: has 17 tokens, the model learned positions for 16"):
        scorer.score([fits, fits], [fits, long])
    with pytest.raises(DataError, match="target line 2050: has 17 tokens"):
        scorer.score([fits, fits], [fits, long], first_line=2048)
    with pytest.raises(DataError, match="source line 1: has 17 tokens"):
        scorer.score([long], [fits])
