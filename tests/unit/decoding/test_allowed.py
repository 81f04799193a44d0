"""Shortest outputs and n-grams that come once: against searches that keep Python lists."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from step_functions import BOS, EOS, Recurrent, longer, output
from test_beam import V, huggingface_beam, may_follow, simple_beam

from transformer.decoding.beam import beam_search
from transformer.decoding.sampling import sample
from transformer.decoding.scores import NEVER, Allowed, next_token, without_repeats

LIMITS = (9, 1, 6, 8)
LENGTHS = (3, 9)  # of the cache
# The first decoder input may come in outputs, where its n-grams count.
RULES = {
    "no end before the fifth token": Allowed(BOS, EOS, (BOS,), min_length=5),
    "single tokens once": Allowed(BOS, EOS, no_repeat_ngram_size=1),
    "pairs once": Allowed(BOS, EOS, no_repeat_ngram_size=2),
    "what outputs begin with, again and again": Allowed(BOS, EOS, (), (BOS, BOS, 2, 2), 0, 2),
    "all together": Allowed(BOS, EOS, (3,), (BOS,), 6, 3),
}


@pytest.fixture(scope="module")
def model():
    return Recurrent(seed=11, batch=len(LIMITS), vocab=V, sharpness=2.5)


@pytest.mark.parametrize("name", RULES)
def test_beam_search(model, name):
    allowed, alpha, width = RULES[name], 1.0, 3
    rules = "huggingface" if name in ("single tokens once", "all together") else "paper"
    limits = [max(limit, len(allowed.prefix) + 1) for limit in LIMITS]
    fixed = dict(beam_size=width, lengths=LENGTHS, alpha=alpha, allowed=allowed, rules=rules, n_best=width)
    fixed |= dict(longer=partial(longer, width=width, length=LENGTHS[-1]))
    start = model.start(width, LENGTHS[0])
    found = jax.jit(lambda *start: beam_search(model.step, *start, jnp.array(limits), **fixed))(*start)
    for row, limit in enumerate(limits):
        if rules == "paper":
            expected = simple_beam(model, row, limit, width, alpha, allowed)[:width]
        else:
            expected = huggingface_beam(model, row, limit, width, alpha, rules, allowed)
        ids_WT = np.asarray(found.ids_BWT[row, : len(expected)])
        assert [output(ids) for ids in ids_WT] == [ids for _, ids in expected]
        scores = found.score_BW[row, : len(expected)]
        np.testing.assert_allclose(scores, [score for score, _ in expected], atol=1e-4)


def legal(ids: tuple[int, ...], limit: int, allowed: Allowed) -> None:
    """Asserts that each token of an output may come where it does."""
    for t, token in enumerate(ids):
        assert token in may_follow(ids[:t], limit, allowed), ids


@pytest.mark.parametrize("name", RULES)
def test_greedy_and_samples(model, name):
    allowed = RULES[name]
    limits = [max(limit, len(allowed.prefix) + 1) for limit in LIMITS]
    fixed = dict(
        lengths=LENGTHS, alpha=0.0, longer=partial(longer, width=1, length=LENGTHS[-1]), allowed=allowed
    )

    @partial(jax.jit, static_argnums=1)
    def run(key_B, temperature):
        start = model.start(1, LENGTHS[0])
        return sample(model.step, *start, jnp.array(limits), key_B, temperature=temperature, **fixed)

    greedy = run(None, 0.0)
    for row, limit in enumerate(limits):
        ids: tuple[int, ...] = ()
        while EOS not in ids:
            log_p = model.log_probs(row, ids)
            ids += (max(may_follow(ids, limit, allowed), key=lambda token, p=log_p: p[token]),)
        assert output(np.asarray(greedy.ids_BWT[row, 0])) == ids
        own = ids[len(allowed.prefix) :]
        expected = model.log_prob(row, ids) - model.log_prob(row, ids[: len(ids) - len(own)])
        assert float(greedy.log_prob_BW[row, 0]) == pytest.approx(expected, abs=1e-4)
    for seed in range(10):
        found = run(jax.random.split(jax.random.key(seed), len(limits)), 2.0)
        for row, limit in enumerate(limits):
            legal(output(np.asarray(found.ids_BWT[row, 0])), limit, allowed)
            assert float(found.log_prob_BW[row, 0]) > NEVER / 2


def test_each_hypothesis_has_bans_of_its_own():
    """Of a place in the beam, of its own tokens so far, and of nothing behind them."""
    ids_BWT = jnp.array([[[3, 4, 3, 9, 9], [4, 3, 4, 9, 9]]])
    allowed = Allowed(3, EOS, no_repeat_ngram_size=2)
    bans = (
        np.asarray(without_repeats(jnp.zeros((1, 2, 10)), ids_BWT, jnp.int32(3), jnp.array([9]), allowed)) < 0
    )
    # Begun with 3: pairs 33, 34, 43 behind a 3; 34, 43, 34 behind a 4.
    assert np.argwhere(bans).tolist() == [[0, 0, 3], [0, 0, 4], [0, 1, 3]]
    longer_than_any = allowed._replace(no_repeat_ngram_size=30)
    logits = jnp.zeros((1, 2, 10))
    assert without_repeats(logits, ids_BWT, jnp.int32(3), jnp.array([9]), longer_than_any) is logits


def test_rules_that_are_off_cost_nothing():
    """No operation of theirs is in the compiled step."""
    ids_BWT, logits_BWV = jnp.zeros((2, 3, 5), jnp.int32), jnp.zeros((2, 3, 7))

    def step(allowed):
        args = logits_BWV, jnp.zeros((2, 3)), ids_BWT, jnp.int32(1), jnp.array([4, 4]), allowed
        return lambda: next_token(*args)[:2]

    off = str(jax.make_jaxpr(step(Allowed(BOS, EOS)))())
    on = str(jax.make_jaxpr(step(Allowed(BOS, EOS, no_repeat_ngram_size=2)))())
    assert "scatter" in on and "scatter" not in off
