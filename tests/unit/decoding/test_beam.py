"""Beam search against all possible outputs, and against a beam search that keeps Python lists."""

import itertools
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from step_functions import BOS, EOS, Recurrent, longer, output

from transformer.decoding.beam import beam_search
from transformer.decoding.sampling import sample
from transformer.decoding.scores import NEVER, Allowed, likeliest

V, ROWS = 5, 6
LETTERS = tuple(i for i in range(V) if i not in (BOS, EOS))  # BOS is forbidden
LIMITS = (5, 4, 5, 2, 3, 1)
LENGTHS = (2, 5)  # of the cache
ALPHAS = (0.0, 0.6, 3.0, -0.5)
PLAIN = Allowed(BOS, EOS, (BOS,))


def penalty(length: int, alpha: float) -> float:
    return ((5 + length) / 6) ** alpha


@cache
def every_output(model: Recurrent, row: int, limit: int) -> dict[tuple[int, ...], float]:
    """All outputs of a row with their log-probabilities."""
    every = {}
    for length in range(limit):
        for letters in itertools.product(LETTERS, repeat=length):
            every[(*letters, EOS)] = model.log_prob(row, (*letters, EOS))
    return every


def may_follow(ids: tuple, limit: int, allowed: Allowed) -> list[int]:
    """All tokens that may come behind `ids`."""
    if len(ids) < len(allowed.prefix):
        return [allowed.prefix[len(ids)]]
    if len(ids) == limit - 1:
        return [EOS]
    n, found = allowed.no_repeat_ngram_size, []
    for token in set(range(V)) - set(allowed.forbidden):
        whole = (allowed.start, *ids, token)
        earlier = {whole[i : i + n] for i in range(len(whole) - n)}
        too_short = token == EOS and len(ids) + 1 < allowed.min_length
        if not too_short and not (n and whole[-n:] in earlier):
            found.append(token)
    return found


def simple_beam(
    model: Recurrent, row: int, limit: int, width: int, alpha: float, allowed: Allowed = PLAIN
) -> list[tuple[float, tuple]]:
    """(score, output) of all that a beam of `width` comes across, the best first; never stops early."""
    alive, finished = [(0.0, ())], []
    for t in range(limit):
        found = [
            (total + step[token] * (t >= len(allowed.prefix)), (*ids, token))
            for total, ids in alive
            for step in [model.log_probs(row, ids)]
            for token in may_follow(ids, limit, allowed)
        ]
        found = sorted(found, reverse=True)[: 2 * width]
        finished += [(total / penalty(t + 1, alpha), ids) for total, ids in found if ids[-1] == EOS]
        alive = [(total, ids) for total, ids in found if ids[-1] != EOS][:width]
    return sorted(finished, reverse=True)


def huggingface_beam(
    model: Recurrent,
    row: int,
    limit: int,
    width: int,
    alpha: float,
    rules: str,
    allowed: Allowed = PLAIN,
) -> list:
    """(score, output) of one row as transformers' `_beam_search` finds them, with Python lists."""
    alive, finished = [(0.0, ())], []
    for t in range(limit):
        found = sorted(
            (
                (total + step[token] * (t >= len(allowed.prefix)), (*ids, token))
                for total, ids in alive
                for step in [model.log_probs(row, ids)]
                for token in may_follow(ids, limit, allowed)
            ),
            reverse=True,
        )[: 2 * width]
        finished += [(total / (t + 1) ** alpha, ids) for total, ids in found[:width] if ids[-1] == EOS]
        finished = sorted(finished, reverse=True)[:width]
        alive = [(total, ids) for total, ids in found if ids[-1] != EOS][:width]
        if len(finished) == width:
            length = limit if rules == "huggingface_never" and alpha > 0 else t + 1
            if rules == "huggingface_early" or not alive or alive[0][0] / length**alpha <= finished[-1][0]:
                break
    return finished


@pytest.fixture(scope="module")
def model():
    return Recurrent(seed=20, batch=ROWS, vocab=V, sharpness=2.0)


@pytest.fixture(scope="module")
def search(model):
    @partial(jax.jit, static_argnums=(3, 4, 5))
    def compiled(start, limit_B, alpha, width, n_best, rules):
        return beam_search(
            model.step,
            *start,
            limit_B,
            beam_size=width,
            lengths=LENGTHS,
            longer=partial(longer, width=width, length=LENGTHS[-1]),
            alpha=alpha,
            n_best=n_best,
            allowed=PLAIN,
            rules=rules,
        )

    def run(width, alpha, n_best, rows=slice(None), limits=LIMITS, rules="paper"):
        start = model.start(width, LENGTHS[0], rows)
        found = compiled(start, jnp.array(limits)[rows], alpha, width, n_best, rules)
        return jax.tree.map(np.asarray, found)

    return run


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_beam_as_wide_as_all_continuations_is_exhaustive_search(model, search, alpha):
    width, n_best = len(LETTERS) ** 4, 10
    found = search(width, alpha, n_best)
    for row, limit in enumerate(LIMITS):
        every = every_output(model, row, limit)
        by_score = sorted(every, key=lambda ids: every[ids] / penalty(len(ids), alpha), reverse=True)
        for rank, ids in enumerate(by_score[:n_best]):
            assert output(found.ids_BWT[row, rank]) == ids
            assert found.log_prob_BW[row, rank] == pytest.approx(every[ids], abs=1e-4)
            assert found.score_BW[row, rank] == pytest.approx(every[ids] / penalty(len(ids), alpha), abs=1e-4)
        # Where there are fewer outputs than places, the rest is marked as nothing.
        assert (found.score_BW[row, len(every) :] == NEVER).all()
        assert (np.diff(found.score_BW[row]) <= 0).all()


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize(("width", "n_best"), [(1, 1), (2, 2)])
def test_a_narrow_beam_finds_what_the_plain_algorithm_finds_without_stopping_early(
    model, search, width, n_best, alpha
):
    for row, limit in enumerate(LIMITS):
        found = search(width, alpha, n_best, rows=slice(row, row + 1))  # no other row keeps the search going
        expected = simple_beam(model, row, limit, width, alpha)[:n_best]
        assert [output(ids) for ids in found.ids_BWT[0, : len(expected)]] == [ids for _, ids in expected]
        np.testing.assert_allclose(
            found.score_BW[0, : len(expected)], [score for score, _ in expected], atol=1e-4
        )


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("rules", ["huggingface", "huggingface_early", "huggingface_never"])
def test_rules_of_hugging_face(model, search, rules, alpha):
    for width in (1, 2, 3):
        found = search(width, alpha, width, rules=rules)
        for row, limit in enumerate(LIMITS):
            expected = huggingface_beam(model, row, limit, width, alpha, rules)
            ids_WT = found.ids_BWT[row, : len(expected)]
            assert [output(ids) for ids in ids_WT] == [ids for _, ids in expected]
            scores = found.score_BW[row, : len(expected)]
            np.testing.assert_allclose(scores, [score for score, _ in expected], atol=1e-4)


def test_what_every_output_begins_with_is_given(model):
    """Beam search and greedy decoding go on from it as if it had been free."""
    prefix, alpha = (4, 2), 0.6
    shared = dict(lengths=LENGTHS, alpha=alpha, allowed=Allowed(BOS, EOS, (BOS,), prefix))
    limits, enlarge = jnp.full(ROWS, 5), partial(longer, length=LENGTHS[-1])
    wide, narrow = model.start(27, LENGTHS[0]), model.start(1, LENGTHS[0])
    beam = dict(beam_size=27, n_best=3, longer=partial(enlarge, width=27))
    found = beam_search(model.step, *wide, limits, **beam, **shared)
    greedy = sample(model.step, *narrow, limits, None, longer=partial(enlarge, width=1), **shared)
    for row in range(ROWS):
        every = {
            ids: total - model.log_prob(row, prefix)
            for ids, total in every_output(model, row, 5).items()
            if ids[:2] == prefix
        }
        best = sorted(every, key=lambda ids: every[ids] / penalty(len(ids), alpha), reverse=True)[:3]
        assert [output(ids) for ids in found.ids_BWT[row, :3]] == best
        np.testing.assert_allclose(found.log_prob_BW[row, :3], [every[ids] for ids in best], atol=1e-4)
        ids = output(np.asarray(greedy.ids_BWT[row, 0]))
        assert ids[:2] == prefix
        assert float(greedy.log_prob_BW[row, 0]) == pytest.approx(every[ids], abs=1e-4)


def test_rows_do_not_depend_on_each_other(search):
    together = search(2, 0.6, 2)
    for row in range(ROWS):
        alone = search(2, 0.6, 2, rows=slice(row, row + 1))
        np.testing.assert_array_equal(alone.ids_BWT[0, :2], together.ids_BWT[row, :2])
        np.testing.assert_allclose(alone.score_BW[0, :2], together.score_BW[row, :2], atol=1e-5)


def test_of_many_rows_the_last_ones_go_on_alone(search):
    """With 60 rows and with 40, of which few have far to go: each is what it is among six."""
    among_six = search(2, 0.6, 2)
    rng = np.random.default_rng(0)
    for rows in (rng.permutation(60) % ROWS, np.array([1, 3, 4, 5] * 9 + [0, 2] * 2)):
        found = search(2, 0.6, 2, rows=rows)
        np.testing.assert_array_equal(found.ids_BWT, among_six.ids_BWT[rows])
        np.testing.assert_allclose(found.score_BW, among_six.score_BW[rows], atol=1e-5)


def test_each_row_ends_at_its_own_limit(search):
    found = search(2, 20.0, 2)  # so that the longest outputs are the best
    lengths = [[len(output(ids)) for ids in row_WT if ids.any()] for row_WT in found.ids_BWT]
    assert [max(row) for row in lengths] == list(LIMITS)


def test_a_beam_of_one_is_at_least_as_good_as_greedy(model, search):
    """It also keeps end marks that were not the likeliest token, so it may be better."""
    found = search(1, 0.0, 1)
    enlarge = partial(longer, width=1, length=LENGTHS[-1])
    fixed = dict(lengths=LENGTHS, longer=enlarge, alpha=0.0, allowed=PLAIN)
    greedy = jax.jit(lambda start, limit_B: sample(model.step, *start, limit_B, None, **fixed))(
        model.start(1, LENGTHS[0]), jnp.array(LIMITS)
    )
    gain_B = found.score_BW[:, 0] - np.asarray(greedy.score_BW[:, 0])
    same_B = (found.ids_BWT[:, 0] == np.asarray(greedy.ids_BWT[:, 0])).all(axis=1)
    assert (gain_B[~same_B] > 0).all()
    np.testing.assert_allclose(gain_B[same_B], 0, atol=1e-5)


@pytest.mark.parametrize(("W", "V", "k"), [(1, 5, 5), (3, 8000, 7), (5, 7919, 10), (2, 151, 4), (1, 8001, 1)])
def test_the_likeliest_are_those_of_one_sort(W, V, k):
    """Also where values are equal, where nearly all are forbidden, and with no block that divides V."""
    rng = np.random.default_rng(V)
    distinct = rng.normal(size=(4, W, V))
    few = rng.integers(0, 5, (4, W, V))
    all_BV, few_BV = np.ones((4, V), bool), rng.random((4, V)) < 0.01
    start_BW = rng.normal(size=(4, W)).astype(np.float32)
    for logits_BWV, allowed_BV in ((distinct, all_BV), (few, all_BV), (distinct, few_BV)):

        def may_come(token, allowed_BV=allowed_BV):
            row_B = np.arange(4).reshape(-1, *(1,) * (token.ndim - 1))
            return jnp.asarray(allowed_BV)[row_B, token]

        logits_BWV = jnp.float32(logits_BWV)
        found = likeliest(jnp.asarray(start_BW), logits_BWV, may_come, k)
        total_BWV = np.where(allowed_BV[:, None], logits_BWV, NEVER) + start_BW[..., None]
        total_BN = total_BWV.reshape(4, -1)
        order_BK = np.argsort(-total_BN, axis=1, kind="stable")[:, :k]
        np.testing.assert_allclose(found[0], np.take_along_axis(total_BN, order_BK, axis=1), rtol=1e-6)
        np.testing.assert_array_equal(found[1] * V + found[2], order_BK)
