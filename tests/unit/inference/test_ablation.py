"""One head off at a time: the score is that of a model whose head says nothing."""

import dataclasses

import pytest

from transformer.inference.ablation import without_each_head
from transformer.inference.scorer import Scorer
from transformer.inference.sentence_pair import sentence_pair

SOURCE, TARGET = "ant bee cat dog", "gnu hen"


@pytest.fixture(scope="module")
def found(loaded):
    return without_each_head(loaded, sentence_pair(loaded, SOURCE, TARGET))


def test_every_head_once_in_order(found):
    places = [(off.kind, off.layer, off.head) for off in found[1]]
    assert places == [
        *[("encoder", 0, h) for h in (0, 1)],
        *[("decoder", i, h) for i in (0, 1) for h in (0, 1)],
        *[("cross", i, h) for i in (0, 1) for h in (0, 1)],
    ]


def test_the_whole_score_is_the_scorers(loaded, found):
    assert found[0] == pytest.approx(Scorer.of(loaded).score([SOURCE], [TARGET])[0], abs=1e-4)


def test_a_head_that_is_off_is_one_without_values(loaded, found):
    """Zero values instead of a zero output projection: another way to the same silence."""
    decoder = loaded.params["decoder"]
    attention = decoder["layer_1"]["cross_attention"]
    value_DGK = attention["value"]["kernel"].at[:, 1].set(0)
    layer = decoder["layer_1"] | {"cross_attention": attention | {"value": {"kernel": value_DGK}}}
    params = loaded.params | {"decoder": decoder | {"layer_1": layer}}
    silent = Scorer.of(dataclasses.replace(loaded, params=params)).score([SOURCE], [TARGET])[0]
    (off,) = [off for off in found[1] if (off.kind, off.layer, off.head) == ("cross", 1, 1)]
    assert off.change == pytest.approx(silent - found[0], abs=1e-4)
    assert abs(off.change) > 1e-3
