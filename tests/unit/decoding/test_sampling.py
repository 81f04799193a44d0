"""Greedy decoding against a loop in Python; samples against probabilities computed with NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from step_functions import BOS, EOS, Recurrent, longer, output

from transformer.decoding.sampling import restrict, sample
from transformer.decoding.scores import NEVER, Allowed

LOGITS = np.array([9.0, 0.3, 2.0, 1.4, 1.1, -0.5, 0.8])  # BOS, which is forbidden, looks best
DRAWS = 20_000
LIMITS = (6, 1, 4, 6, 2)


def expected(temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> np.ndarray:
    """Probabilities of the first token: forbid, heat, keep k, renormalise, keep p, renormalise."""
    p = np.exp(LOGITS / temperature)
    p[BOS] = 0
    order = np.argsort(-p)
    p[order[top_k or len(p) :]] = 0
    p /= p.sum()
    kept = 1 + np.searchsorted(np.cumsum(p[order]), top_p)
    p[order[kept:]] = 0
    return p / p.sum()


@pytest.fixture(scope="module")
def keys():
    return jax.random.split(jax.random.key(0), DRAWS)


@pytest.mark.parametrize(
    "choice",
    [
        dict(temperature=1.0),
        dict(temperature=0.5),
        dict(temperature=3.0),
        dict(temperature=1.0, top_k=3),
        dict(temperature=2.0, top_k=1),
        dict(temperature=1.0, top_k=100),
        dict(temperature=1.0, top_p=0.75),
        dict(temperature=2.0, top_k=4, top_p=0.7),
        dict(temperature=1e9, top_k=100),
    ],
)
def test_samples_have_the_probabilities_that_were_asked_for(keys, choice):
    def step(token_B1, t, cache, ancestor_B1T, context):
        return jnp.broadcast_to(jnp.float32(LOGITS), (*token_B1.shape, len(LOGITS))), cache

    fixed = dict(lengths=(1, 2), longer=lambda cache: cache, alpha=0.0)
    fixed |= dict(allowed=Allowed(BOS, EOS, (BOS,)))
    found = jax.jit(lambda limit_B, keys: sample(step, (), (), limit_B, keys, **fixed, **choice))(
        jnp.full(DRAWS, 2), keys
    )
    first_B = np.asarray(found.ids_BWT[:, 0, 0])
    p = expected(**choice)
    share = np.bincount(first_B, minlength=len(p)) / DRAWS
    assert (share[p == 0] == 0).all()
    np.testing.assert_allclose(share, p, atol=4.5 * 0.5 / DRAWS**0.5)
    # The log-probability is the model's own, whatever was done to sample.
    log_p = LOGITS - np.log(np.exp(LOGITS).sum())
    total_B = log_p[first_B] + np.where(first_B == EOS, 0, log_p[EOS])
    np.testing.assert_allclose(found.log_prob_BW[:, 0], total_B, rtol=1e-5)


@pytest.mark.parametrize("top_p", [1e-9, 1e-3])
def test_the_likeliest_token_always_stays(top_p):
    """Also where rounding makes its probability differ from sum to sum."""
    log_p_BV = jax.nn.log_softmax(jnp.float32(np.random.default_rng(0).normal(size=(500, 300))))
    kept_BV = np.asarray(restrict(log_p_BV, 0.7, 50, top_p)) > -1e8
    assert (kept_BV.sum(axis=1) == 1).all()
    np.testing.assert_array_equal(kept_BV.argmax(axis=1), log_p_BV.argmax(axis=1))


@pytest.mark.parametrize("top_k", [0, 2])
def test_cold_makes_nothing_possible(top_k):
    log_p_BV = jnp.array([[NEVER, -1.6, -1.2, NEVER]])
    found_V = np.asarray(restrict(log_p_BV, 1e-9, top_k, 1.0))[0]
    assert found_V.argmax() == 2 and found_V[0] == found_V[3] == NEVER


@pytest.fixture(scope="module")
def model():
    return Recurrent(seed=3, batch=len(LIMITS), vocab=6, sharpness=0.7)


@pytest.fixture(scope="module")
def run(model):
    @partial(jax.jit, static_argnums=(3, 4))
    def compiled(start, limit_B, key_B, temperature, alpha):
        return sample(
            model.step,
            *start,
            limit_B,
            key_B,
            lengths=(2, 6),
            longer=partial(longer, width=1, length=6),
            alpha=alpha,
            allowed=Allowed(BOS, EOS, (BOS,)),
            temperature=temperature,
        )

    def call(seed, temperature=1.0, alpha=0.0, rows=slice(None)):
        key_B = jax.random.split(jax.random.key(seed), len(LIMITS))[rows]
        found = compiled(model.start(1, 2, rows), jnp.array(LIMITS)[rows], key_B, temperature, alpha)
        return jax.tree.map(np.asarray, found)

    return call


def test_temperature_0_takes_the_likeliest_token_until_it_is_the_end_mark(model, run):
    found = run(0, temperature=0.0, alpha=1.0)
    for row, limit in enumerate(LIMITS):
        ids: tuple[int, ...] = ()
        while EOS not in ids:
            log_p = model.log_probs(row, ids)
            log_p[BOS] = -np.inf
            ids += (EOS if len(ids) == limit - 1 else int(log_p.argmax()),)
        assert output(found.ids_BWT[row, 0]) == ids
        log_prob = model.log_prob(row, ids)
        assert found.log_prob_BW[row, 0] == pytest.approx(log_prob, abs=1e-4)
        assert found.score_BW[row, 0] == pytest.approx(log_prob / ((5 + len(ids)) / 6), abs=1e-4)


def test_samples_end_at_each_rows_limit_and_carry_their_log_probability(model, run):
    lengths = []
    for seed in range(20):
        found = run(seed)
        ids_of = [output(ids_T) for ids_T in found.ids_BWT[:, 0]]
        lengths.append([len(ids) for ids in ids_of])
        expected_B = [model.log_prob(row, ids) for row, ids in enumerate(ids_of)]
        np.testing.assert_allclose(found.log_prob_BW[:, 0], expected_B, atol=1e-4)
    assert (np.max(lengths, axis=0) == LIMITS).all()


def test_a_seed_gives_one_sample_and_another_seed_another(run):
    np.testing.assert_array_equal(run(5).ids_BWT, run(5).ids_BWT)
    assert len({run(seed).ids_BWT.tobytes() for seed in range(8)}) > 4


def test_a_rows_sample_does_not_depend_on_the_other_rows(run):
    together = run(5)
    for row in range(len(LIMITS)):
        alone = run(5, rows=slice(row, row + 1))
        np.testing.assert_array_equal(alone.ids_BWT[0], together.ids_BWT[row])
        np.testing.assert_allclose(alone.log_prob_BW[0], together.log_prob_BW[row], atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_of_many_rows_the_last_ones_go_on_alone_in_groups(run, temperature):
    """Groups are filled up with rows that are done, which must stay as they are."""
    among_five = run(5, temperature)
    for count in (60, 37):
        rows = np.random.default_rng(count).permutation(count) % len(LIMITS)
        found = run(5, temperature, rows=rows)
        np.testing.assert_array_equal(found.ids_BWT, among_five.ids_BWT[rows])
        np.testing.assert_allclose(found.log_prob_BW, among_five.log_prob_BW[rows], atol=1e-5)
