"""Experiments of `transformer explain`: numbers against NumPy and hand-made models; each one reacts."""

import dataclasses
import math

import numpy as np
import pytest
from unit.questions.conftest import SOURCES, TARGETS

from transformer.inference.scorer import Scorer
from transformer.paths import by_path, nested
from transformer.questions import layers, running, scores, sight, signals
from transformer.questions.experiments import EXPERIMENTS
from transformer.questions.subject import SUBLAYERS, altered, silenced

D, H, K = 16, 2, 8


@pytest.fixture(scope="module")
def found(subject):
    """Values of all experiments by question and key, the first of a key."""
    values: dict[int, dict[str, float | None]] = {}
    for number, experiment in EXPERIMENTS.items():
        for row in reversed(experiment(subject)):
            values.setdefault(number, {})[row.key] = row.value
    return values


def values(rows):
    return {row.key: row.value for row in reversed(rows)}


def with_params(subject, params):
    return dataclasses.replace(subject, params=params)


@pytest.fixture(scope="module")
def blind(subject):
    """The subject with queries of zero: every head gives equal weights."""
    return with_params(subject, altered(subject.params, "/query/", lambda x: x * 0))


def lengths(subject, stack):
    return subject.real[stack].sum(axis=1)


def test_the_whole_score_is_the_scorers_by_token(loaded, subject):
    total = sum(Scorer.of(loaded).score(SOURCES, TARGETS))
    assert subject.whole == pytest.approx(total / lengths(subject, "decoder").sum(), abs=1e-5)


def test_every_number_is_finite(found):
    assert list(found) == list(range(1, 20))
    numbers = [v for rows in found.values() for v in rows.values() if v is not None]
    assert np.isfinite(numbers).all()


@pytest.mark.parametrize("stack", SUBLAYERS)
def test_what_sublayers_add_makes_the_layers_outputs(subject, stack):
    """The paper's equation, LayerNorm(x + Sublayer(x)), from the parts that were captured."""
    for layer, sublayer, x_BTD, y_BTD in subject.sublayers(stack):
        norm = subject.params[stack][f"layer_{layer}"][f"{sublayer}_norm"]
        sum_BTD = x_BTD + y_BTD
        unit_BTD = sum_BTD - sum_BTD.mean(axis=-1, keepdims=True)
        unit_BTD /= np.sqrt(np.square(unit_BTD).mean(axis=-1, keepdims=True) + 1e-6)
        expected_BTD = unit_BTD * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
        np.testing.assert_allclose(
            subject.seen[f"{stack}/layer_{layer}/{sublayer}_norm"], expected_BTD, atol=1e-4
        )


def test_1_heads_that_look_alike_are_not_apart(subject, blind, found):
    assert found[1]["apart"] > 10
    assert values(scores.many_heads(blind))["apart"] == pytest.approx(0, abs=1e-5)
    # Values of zero instead of rows of W^O: another way to switch a head off.
    path, off = "encoder/layer_0/self_attention/value/kernel", []
    for head in range(H):
        leaves = by_path(subject.params)
        leaves[path] = leaves[path].at[:, head].set(0)
        off.append(subject.score(nested(leaves)) - subject.whole)
    assert found[1]["dearest"] == pytest.approx(min(off), abs=1e-4)


def test_2_a_model_with_one_matrix_loses_nothing_by_tying(subject, found):
    leaves = by_path(subject.params)
    tied = nested({p: leaves[p.replace("self_attention/key/", "self_attention/query/")] for p in leaves})
    already = values(scores.queries_and_keys(with_params(subject, tied)))
    assert already["tied"] == already["whole"] == pytest.approx(found[2]["tied"], abs=1e-5)
    assert already["one_way"] == pytest.approx(0, abs=1e-6)
    assert already["itself"] == pytest.approx(found[2]["itself_tied"], abs=1e-4)
    attention = subject.params["encoder"]["layer_0"]["self_attention"]
    q_HDK, k_HDK = (np.asarray(attention[n]["kernel"], float).swapaxes(0, 1) for n in ("query", "key"))
    product_HDD = q_HDK @ k_HDK.swapaxes(1, 2)
    odd_HDD = (product_HDD - product_HDD.swapaxes(1, 2)) / 2
    shares = np.square(odd_HDD).sum(axis=(1, 2)) / np.square(product_HDD).sum(axis=(1, 2))
    assert found[2]["one_way"] == pytest.approx(100 * shares.mean(), rel=1e-6)


def test_3_spreads_are_those_of_both_formulas(subject, found):
    q_BHTK, k_BHSK = (np.asarray(x, float) for x in scores.own_queries_and_keys(subject, 0))
    real_BS = subject.real["encoder"]
    one = [(q_BHTK[b, :, t] * k_BHSK[b, :, s]).sum(axis=-1) for b, t, s in pairs(real_BS)]
    assert found[3]["spread_dot"] == pytest.approx(np.std(one, axis=0).mean(), rel=1e-4)
    assert found[3]["spread_divided"] == pytest.approx(found[3]["spread_dot"] / K**0.5, rel=1e-5)
    assert 0 < found[3]["spread_additive"] < found[3]["bound_additive"]
    assert found[3]["times"] == pytest.approx(found[3]["time_additive"] / found[3]["time_dot"])


def pairs(real_BS):
    places = [(b, np.nonzero(row)[0]) for b, row in enumerate(real_BS)]
    return [(b, t, s) for b, real in places for t in real for s in real]


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_4_softmaxes_are_numpys_with_and_without_the_division(subject, found):
    q_BHTK, k_BHSK = (np.asarray(x, float) for x in scores.own_queries_and_keys(subject, 0))
    by_way = []
    for scale in (K**-0.5, 1.0):
        rows = []
        for b, n in enumerate(lengths(subject, "encoder")):
            p_HTS = softmax(scale * q_BHTK[b, :, :n] @ k_BHSK[b, :, :n].swapaxes(1, 2))
            rows += [(-(p * np.log(p + 1e-300)).sum(), p.max()) for p in p_HTS.reshape(-1, n)]
            if scale < 1:
                seen_HTS = subject.seen["encoder/layer_0/self_attention/weights"][b, :, :n, :n]
                np.testing.assert_allclose(seen_HTS, p_HTS, atol=1e-5)
        by_way.append(np.mean(rows, axis=0))
    for way, (entropy, largest) in zip(("divided", "undivided"), by_way, strict=True):
        assert found[4][f"entropy_{way}"] == pytest.approx(entropy, rel=1e-3)
        assert found[4][f"largest_{way}"] == pytest.approx(100 * largest, rel=1e-3)
    assert found[4]["drawn"] == pytest.approx(K, rel=0.05)
    assert found[4]["score_divided"] == subject.whole != found[4]["score_undivided"]


def test_4_queries_of_zero_have_no_variance_and_the_largest_entropy(blind):
    rows = values(scores.divided_scores(blind))
    assert rows["before"] == 0
    n = lengths(blind, "encoder")
    assert rows["entropy_divided"] == pytest.approx((n * np.log(n)).sum() / n.sum(), rel=1e-5)
    assert rows["entropy_undivided"] == rows["entropy_divided"]


def test_5_padding_gets_nothing_and_changes_nothing(found, subject):
    assert found[5]["weight"] == 0 and found[5]["alone"] < 1e-4
    assert abs(found[5]["unmasked"] - subject.whole) > 1e-3
    filled = 1 - lengths(subject, "encoder").sum() / subject.batch.src_BS.size
    assert found[5]["padding"] == pytest.approx(100 * filled)


def test_6_weights_do_not_depend_on_the_number_of_heads_and_directions_are_ranks(found):
    assert found[6]["weights"] == 4 * D * D and found[6]["weights_wide"] == H * 4 * D * D
    draw = np.random.default_rng(0)
    one_D, other_D = draw.normal(size=(2, D))
    assert scores._directions(np.outer(one_D, np.ones(K)), np.outer(other_D, np.ones(K))) == 1
    even_DK = np.linalg.qr(draw.normal(size=(D, K))).Q
    assert scores._directions(even_DK, even_DK) == math.ceil(0.9 * K)


def test_7_without_encoder_decoder_attention_no_source_matters(subject, found):
    deaf = values(signals.encoder(with_params(subject, silenced(subject.params, "cross_attention"))))
    assert deaf["other"] == deaf["unread"] == deaf["whole"]
    assert abs(found[7]["other"] - subject.whole) > 1e-2
    assert found[7]["same_in"] > found[7]["same_out"]  # words of one place or another, then of one sentence


def test_7_pieces_that_come_once_are_not_compared(subject):
    once = subject.batch._replace(src_BS=np.arange(subject.batch.src_BS.size).reshape(6, -1) % 7 + 4)
    alone = dataclasses.replace(subject, batch=type(once)(*(x[:1] for x in once)))
    assert not signals._repeated_pieces(alone).any()


def test_8_norms_are_those_of_the_table_and_of_sinusoids(subject, found):
    table_VD = np.asarray(subject.params["source"]["embedding"])
    norms = [np.linalg.norm(table_VD[i]) for i in subject.batch.src_BS[subject.real["encoder"]]]
    assert found[8]["norm"] == pytest.approx(np.mean(norms), rel=1e-5)
    assert found[8]["norm_scaled"] == pytest.approx(4 * np.mean(norms), rel=1e-5)
    assert found[8]["norm_positions"] == pytest.approx((D / 2) ** 0.5, rel=1e-5)
    assert found[8]["scaled"] == subject.whole != found[8]["unscaled"]


def test_9_without_positions_word_order_does_not_matter(subject, found):
    assert found[9]["difference"] < 1e-4
    assert abs(found[9]["reversed"] - subject.whole) > 1e-2
    reversed_batch = signals._reversed(subject)
    n = lengths(subject, "encoder")[0]
    expected = [*subject.batch.src_BS[0, : n - 1][::-1], *subject.batch.src_BS[0, n - 1 :]]
    assert reversed_batch.src_BS[0].tolist() == expected  # the end mark stays at the end


def test_10_sinusoids_know_distances_and_random_vectors_do_not(found):
    assert found[10]["by_distance"] == pytest.approx(100, abs=1e-4)
    assert signals._by_distance(np.random.default_rng(0).normal(size=(64, 4))) < 0.5
    assert found[10]["moved"] != found[10]["whole"] and found[10]["learned"] == 0


def test_11_what_adds_nothing_has_no_size_and_no_worth(subject, found):
    silent = with_params(subject, silenced(subject.params, "encoder/.*"))
    assert values(layers.residuals(silent))["ratio"] == 0
    assert values(layers.residuals(silent))["skipped"] == 0
    assert found[11]["ratio"] > 0 and found[11]["skipped"] != 0


def test_12_a_layer_norm_does_not_see_the_batch_and_a_batch_norm_does(found):
    assert found[12]["layer"] < 1e-5 and found[12]["batch"] > 0.1
    assert "post" in found[12] and "rms" not in found[12]


def test_13_statistics_of_equal_batches_do_not_spread(subject, found):
    assert "means" not in found[13] and found[13]["padded"] > 1  # of so few batches nothing is said

    def means(rows):
        batch = subject.batch._replace(**{n: x[rows] for n, x in subject.batch._asdict().items()})
        return values(layers.batch_norm(dataclasses.replace(subject, batch=batch)))["means"]

    count = len(subject.batch.src_BS)
    assert means([0] * 8) < 1e-3 and means([i % count for i in range(8)]) > 1


def test_14_units_below_zero_are_counted(subject, found):
    assert 20 < found[14]["zero"] < 80
    low = with_params(subject, altered(subject.params, "/wi/bias", lambda x: x - 1e6))
    rows = values(layers.feed_forward(low))
    assert (rows["zero"], rows["idle"]) == (100, 3 * 32)
    leaves = by_path(subject.params)
    inside = sum(x.size for path, x in leaves.items() if "feed_forward/" in path)
    assert found[14]["share"] == pytest.approx(100 * inside / sum(x.size for x in leaves.values()))


def test_15_the_only_way_from_the_source(subject, found):
    deaf = with_params(subject, silenced(subject.params, "cross_attention"))
    assert found[15]["silent"] == deaf.whole == deaf.score(batch=signals._reversed(subject))
    assert 0 < found[15]["mark"] < 100


def test_16_equal_weights_lie_half_on_later_positions(blind, found):
    assert found[16]["later_decoder"] == found[16]["largest_decoder"] == 0
    assert found[16]["first"] == pytest.approx(100)
    rows, n = values(sight.both_self_attentions(blind)), lengths(blind, "encoder")
    assert rows["later_encoder"] == pytest.approx(100 * ((n - 1) / 2).sum() / n.sum(), rel=1e-5)
    assert rows["far_encoder"] == pytest.approx(((n**2 - 1) / 3).sum() / n.sum(), rel=1e-5)


def test_17_steps_give_what_all_at_once_gives(found):
    assert found[17]["same"] < 1e-3
    assert found[17]["times"] == pytest.approx(found[17]["one_by_one"] / found[17]["at_once"])


def test_18_dropout_spreads_and_use_does_not(subject, found):
    assert found[18]["twice"] == 0 and found[18]["spread"] > 0 and "imported" in found[18]
    trained = values(running.rate_and_dropout(dataclasses.replace(subject, step=8000)))
    assert trained["peak"] == pytest.approx((D * 4000) ** -0.5)
    assert trained["rate"] == pytest.approx(D**-0.5 * 8000**-0.5)


def test_19_nothing_leaks_in_the_decoder_and_all_is_seen_in_the_encoder(found):
    assert found[19]["earlier_decoder"] == 0 and found[19]["from_decoder"] > 0.1
    assert found[19]["earlier_encoder"] > 0.1
