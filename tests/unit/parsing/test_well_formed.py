"""What may come next in a tree: against all sequences that nothing has to be repaired in."""

import itertools
from collections import defaultdict
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unit.decoding.step_functions import EOS, Recurrent, longer, output

from transformer.decoding.beam import beam_search
from transformer.decoding.sampling import sample
from transformer.decoding.scores import Allowed
from transformer.parsing.linear import Repairs, restore
from transformer.parsing.well_formed import keeps_tree, tree_symbols

PIECES = ["", "", "▁(S", "▁)S", "▁XX", "▁(NP", "▁)NP", "▁.", "▁the", "XX", "▁(VP", "("]
SYMBOLS = tree_symbols(PIECES, EOS, keep_tags=False)
V = len(PIECES)


def trees(words: int, limit: int) -> list[tuple[int, ...]]:
    """All ids of outputs of at most `limit` ids that are a tree as they stand."""
    whole = []
    for length in range(limit):
        for ids in itertools.product(range(2, 8), repeat=length):
            text = [PIECES[i][1:] for i in ids]
            if restore(text, ["w"] * words)[1] == Repairs():
                whole.append((*ids, EOS))
    return whole


def test_the_symbols_of_a_vocabulary():
    assert SYMBOLS == ((2, 5), (3, 6), (4, 7), EOS)  # (VP has no closing bracket
    assert tree_symbols(PIECES, EOS, keep_tags=True).tags == (4, 7, 8)


@pytest.mark.parametrize(("words", "limit"), [(1, 8), (2, 7), (3, 6), (2, 3), (4, 3)])
def test_exactly_what_some_tree_goes_on_with(words, limit):
    follows = defaultdict(set)
    for ids in trees(words, limit):
        for t, token in enumerate(ids):
            follows[ids[:t]].add(token)
    assert bool(follows) == (words < limit)
    longest = max(map(len, follows), default=0) + 2
    junk = np.random.default_rng(0).integers(
        0, V, (max(len(follows), 1), longest)
    )  # behind t anything may stand
    found = jax.jit(
        lambda ids_1WT, t: keeps_tree(SYMBOLS, ids_1WT, t, jnp.array([limit]), jnp.array([words]), V)
    )
    for t, prefixes in itertools.groupby(sorted(follows, key=len), key=len):
        same = list(prefixes)
        ids_WT = junk[: len(same)].copy()
        ids_WT[:, :t] = np.array(same).reshape(len(same), t)
        for prefix, may_V in zip(same, np.asarray(found(ids_WT[None], t))[0], strict=True):
            assert set(np.flatnonzero(may_V)) == follows[prefix], prefix
    if not follows:  # no tree has room: at the limit it ends all the same
        assert set(np.flatnonzero(found(junk[None, :1], limit - 1)[0, 0])) >= {EOS}


def test_searches_find_the_likeliest_trees():
    """Rows of different limits and words, with a beam so wide that nothing is lost; greedy: some tree."""
    limits, words = (6, 7, 5), (2, 1, 3)
    model = Recurrent(3, len(limits), V, sharpness=3.0)

    def follows(ids_BWT, t, limit_B, context):
        return keeps_tree(SYMBOLS, ids_BWT, t, limit_B, context[1], V)

    fixed = dict(alpha=0.7, allowed=Allowed(0, EOS), follows=follows, lengths=(4, 7))

    def step(token_BW, t, cache, ancestor_BWT, context):
        return model.step(token_BW, t, cache, ancestor_BWT, context[0])

    def start(width):
        cache, first_BK = model.start(width, 4)
        return cache, (first_BK, jnp.array(words)), jnp.array(limits)

    wide = partial(beam_search, step, beam_size=60, n_best=2, longer=partial(longer, width=60, length=7))
    found = jax.jit(lambda: wide(*start(60), **fixed))()
    greedy = jax.jit(
        lambda: sample(step, *start(1), None, longer=partial(longer, width=1, length=7), **fixed)
    )()
    for row, (limit, n) in enumerate(zip(limits, words, strict=True)):
        all_trees = trees(n, limit)
        scores = {ids: model.log_prob(row, ids) / ((5 + len(ids)) / 6) ** 0.7 for ids in all_trees}
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:2]
        assert [output(ids_T) for ids_T in found.ids_BWT[row, :2]] == best
        np.testing.assert_allclose(found.score_BW[row, :2], [scores[ids] for ids in best], rtol=1e-4)
        assert output(greedy.ids_BWT[row, 0]) in scores
