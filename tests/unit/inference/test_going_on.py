"""A decoder alone: what it translates or goes on with, against its own probabilities, teacher forced."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unit.small_model import ALONE, TEXT, make_model

from transformer.errors import ConfigError, DataError
from transformer.inference.scorer import Likelihood, Scorer
from transformer.inference.translator import Translator
from transformer.special_ids import BOS_ID, EOS_ID

EXTRA = 6  # decode.max_extra_length of the models
BEGINNINGS = ["", "ant", "cat dog. eel", "fox gnu hen hen ant bee."]


@pytest.fixture(scope="module")
def text():
    return make_model(TEXT, **ALONE, positions="rotary")


@pytest.fixture(scope="module")
def prefix():
    return make_model(**ALONE, prefix="bidirectional", positions="alibi")


@partial(jax.jit, static_argnums=0)
def logits(model, params, tgt_in_1T):
    """Returns logits_TV of a target that nothing comes before."""
    nothing, ones = jnp.zeros((1, 0), jnp.int32), jnp.ones_like(tgt_in_1T)
    pos_1T = jnp.arange(tgt_in_1T.shape[1])[None]
    y_1TD = model.apply({"params": params}, *(nothing,) * 3, tgt_in_1T, ones, pos_1T)
    return model.apply({"params": params}, y_1TD, method="logits")[0]


def log_probs(loaded, ids: list[int]) -> np.ndarray:
    """Returns the log-probability of each of the ids, those before it being given."""
    tgt_in_1T = np.zeros((1, 16), np.int32)  # later ones change nothing
    tgt_in_1T[0, : len(ids)] = [BOS_ID, *ids[:-1]]
    log_p_TV = np.array(logits(loaded.model, loaded.params, tgt_in_1T), np.float64)
    log_p_TV -= np.log(np.exp(log_p_TV).sum(axis=1, keepdims=True))
    return log_p_TV[np.arange(len(ids)), ids]


def test_a_line_scores_the_sum_of_its_tokens_log_probabilities(text):
    encoded = text.tokenizer.encode_target(BEGINNINGS)
    expected = [log_probs(text, ids).sum() for ids in encoded]
    scorer = Scorer.of(text)
    found = scorer.score(None, BEGINNINGS)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    likelihood = scorer.likelihood(found, BEGINNINGS)
    tokens, size = sum(map(len, encoded)), len("\n".join(BEGINNINGS)) + 1
    assert (likelihood.tokens, likelihood.bytes) == (tokens, size)
    assert likelihood.perplexity == pytest.approx(np.exp(-sum(expected) / tokens), rel=1e-4)
    assert likelihood.bits_per_byte == pytest.approx(-sum(expected) / size / np.log(2), rel=1e-4)
    whole = Likelihood(-1.0, 2, 3).plus(Likelihood(-2.0, 3, 4))
    assert whole == (-3.0, 5, 7, 0)


@pytest.mark.parametrize(
    "options", [dict(beam_size=2), dict(temperature=0.8, seed=3)], ids=["beam", "sample"]
)
def test_a_beginning_goes_on_with_what_the_model_gives_it(text, options):
    """Score and length are those of what is new; each line is as if it were alone."""
    translator = Translator.of(text)
    outputs = [best[0] for best in translator.translate_n_best(BEGINNINGS, n_best=1, **options)]
    whole = text.tokenizer.encode_target([t.text for t in outputs])
    for beginning, output, ids in zip(BEGINNINGS, outputs, whole, strict=True):
        given = len(text.tokenizer.encode_target([beginning])[0]) - 1
        assert output.text.startswith(beginning) and ids[-1] == EOS_ID
        assert output.length <= EXTRA
        if "\u2047" not in output.text:  # else it is read as other tokens
            assert output.length == len(ids) - given
            assert output.log_prob == pytest.approx(log_probs(text, ids)[given:].sum(), abs=1e-4)
    (alone,) = translator.translate_n_best(BEGINNINGS[2:3], n_best=1, first_line=2, **options)
    assert alone[0].text == outputs[2].text


def test_greedy_takes_the_likeliest_token(text):
    (found,) = Translator.of(text).translate_n_best(["dog eel."], n_best=1, beam_size=1)
    ids = text.tokenizer.encode_target(["dog eel."])[0][:-1]
    for _ in range(found[0].length - 1):
        tgt_in_1T = np.zeros((1, 16), np.int32)
        tgt_in_1T[0, : len(ids) + 1] = [BOS_ID, *ids]
        scores_V = np.array(logits(text.model, text.params, tgt_in_1T))[len(ids)]
        scores_V[[0, BOS_ID]] = -np.inf
        ids.append(int(scores_V.argmax()))
    assert found[0].text == text.tokenizer.decode_target([ids])[0]


def test_what_is_no_beginning_is_refused(text):
    with pytest.raises(DataError, match=r"line 12: has 16 tokens to go on with, .* for 16 in all"):
        Translator.of(text).translate_n_best(["ant", " ".join(16 * ["bee"])], n_best=1, first_line=10)
    with pytest.raises(ConfigError, match="source: the model is one of text alone"):
        Scorer.of(text).score(["ant"], ["bee"])


def test_a_prefix_is_a_source(prefix):
    lines = ["ant", "bee. fox", "cat", ""]
    outputs = Translator.of(prefix).translate_n_best(lines, n_best=3)
    assert [t.text for t in outputs.pop()] == [""]
    flat = [
        (line, t) for line, best in zip(lines, outputs, strict=False) for t in best if "\u2047" not in t.text
    ]
    assert len(flat) >= 5
    found = Scorer.of(prefix).score([line for line, _ in flat], [t.text for _, t in flat], length_penalty=0.6)
    np.testing.assert_allclose(found, [t.score for _, t in flat], atol=1e-4)
    with pytest.raises(ConfigError, match="source: is needed"):
        Scorer.of(prefix).score(None, ["bee"])
