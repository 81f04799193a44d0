"""Models that lack a mechanism, or have another one: experiments say so, and measure what there is."""

import numpy as np
import pytest
from unit.questions.conftest import make_subject
from unit.small_model import make_model

from transformer.questions.experiments import EXPERIMENTS
from transformer.questions.texts import LANGUAGES, read_texts

OTHERS = {
    "modern": dict(
        norm="pre",
        norm_type="rms",
        activation="gelu",
        gated_feed_forward=True,
        num_kv_heads=1,
        attention_score="additive",
        positions="alibi",
        scale_embeddings=False,
        dropout_rate=0.0,
    ),
    "T5's": dict(norm="pre", positions="relative", scale_queries=False, scale_logits=True),
    "BART's": dict(positions="learned", embedding_norm=True, attention_bias=True, logits_bias=True),
    "recurrent": dict(recurrence="adaptive", norm="pre", num_encoder_layers=2),
    "near": dict(attention="window", attention_radius=2, positions="shaw", relative_max_distance=3),
    "turned": dict(positions="rotary", num_kv_heads=1),
    "without positions and with one head": dict(
        positions="none", attention_score="general", num_heads=1, dtype="bfloat16"
    ),
}
ONLY_DISTANCES = "alibi", "relative", "shaw", "rotary", "none"  # where a sentence begins does not count
QUICK = 2, 4, 10, 12, 13, 14  # need only two programs to be compiled
EXPECTED = {
    "modern": {"shared_keys", "additive", "never_scales", "not_added", "pre", "rms", "smooth", "no_dropout"},
    "T5's": {"never_divides", "not_added", "pre"},
    "BART's": {"post", "ends"},
    "recurrent": {"pre", "recurs"},
    "near": {"near", "reach", "not_added", "other_keys", "post"},
    "turned": {"shared_keys", "not_added", "post"},
    "without positions and with one head": {"one_head", "not_added", "no_positions", "post"},
}


def remarks(name, questions):
    """Returns which remarks are made, having looked at all rows."""
    subject, found = make_subject(make_model(**OTHERS[name])), set()
    for number in questions:
        rows = EXPERIMENTS[number](subject)
        assert rows and np.isfinite([row.value for row in rows if row.value is not None]).all(), number
        found |= {row.key for row in rows if row.value is None}
        for language in LANGUAGES:
            assert all(read_texts(language).name(number, row) for row in rows)
        if (kind := subject.model.config.positions) in ONLY_DISTANCES:
            rounding = 1e-5 if kind == "rotary" else 0  # it turns by other angles
            for row in rows:
                assert row.key != "moved" or row.value == pytest.approx(subject.whole, rel=0, abs=rounding)
    return found


def test_padding_has_no_weight_in_compressed_keys_and_chunks_hide_nothing():
    changes = dict(attention="compressed", chunk_length=3)
    subject = make_subject(make_model({"data": {"packing": False}}, **changes))
    hidden = next(row for row in EXPERIMENTS[5](subject) if row.key == "weight")
    assert hidden.value == 0
    assert [row.key for row in EXPERIMENTS[4](subject)] == ["other_keys"]
    assert "zero" in {row.key for row in EXPERIMENTS[14](subject)}


def test_what_a_model_lacks_is_said():
    expected = {"shared_keys", "additive", "kind", "pre", "rms", "smooth"}
    assert remarks("modern", QUICK) == expected


def values(subject, number):
    return {row.key: row.value for row in EXPERIMENTS[number](subject)}


def test_scores_with_a_matrix_between_are_looked_at_with_it():
    subject = make_subject(make_model(attention_score="general"))
    attention = subject.params["encoder"]["layer_0"]["self_attention"]
    counts = []
    for h in range(2):
        q_DK, k_DK = (np.asarray(attention[side]["kernel"][:, h]) for side in ("query", "key"))
        squares = np.linalg.svd(q_DK @ attention["score"][h] @ k_DK.T, compute_uv=False) ** 2
        counts.append(1 + int((squares.cumsum() / squares.sum() < 0.9).sum()))
    assert values(subject, 6)["directions"] == np.mean(counts)


def test_additive_scores_are_looked_at_as_they_are():
    subject = make_subject(make_model(attention_score="additive"))
    found = values(subject, 3)
    v_HK = np.asarray(subject.params["encoder"]["layer_0"]["self_attention"]["score"])[..., 0]
    assert found["bound_own"] == pytest.approx(np.abs(v_HK).sum(axis=1).mean())
    attention = subject.params["encoder"]["layer_0"]["self_attention"]
    x_BSD, real_BS = np.asarray(subject.seen["encoder/layer_0/input"]), subject.real["encoder"]
    q_BHSK, k_BHSK = (
        np.einsum("BSD,DHK->BHSK", x_BSD, attention[side]["kernel"]) for side in ("query", "key")
    )
    sums_BHTSK = np.tanh(q_BHSK[:, :, :, None] + k_BHSK[:, :, None])
    scores_HBTS = np.einsum("BHTSK,HK->HBTS", sums_BHTSK, v_HK)
    pairs_BTS = real_BS[:, :, None] & real_BS[:, None]
    assert found["spread_own"] == pytest.approx(scores_HBTS[:, pairs_BTS].std(axis=1).mean(), rel=1e-4)
    assert "spread_dot" not in found and "directions" not in values(subject, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_all_questions_are_answered(name):
    assert remarks(name, EXPERIMENTS) == EXPECTED[name] | {"kind", "imported"}
