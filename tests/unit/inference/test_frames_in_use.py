"""Frames translated and scored: alone as among others, too long ones in parts, what is none in one line."""

import dataclasses

import numpy as np
import pytest
from unit.small_model import make_model

from transformer.errors import ConfigError, DataError
from transformer.inference.scorer import Scorer
from transformer.inference.sentence_pair import sentence_pair
from transformer.inference.translator import Translator

C = 4


@pytest.fixture(scope="module")
def loaded():
    return make_model({"data": dict(kind="frames")}, source_features=C)


@pytest.fixture(scope="module")
def frames():
    draw = np.random.default_rng(1)
    return [draw.normal(size=(n, C)).astype(np.float32) for n in (5, 2, 7, 3)]


def test_neighbours_change_nothing_and_scores_agree(loaded, frames):
    translator, scorer = Translator.of(loaded), Scorer.of(loaded)
    together = translator.translate_n_best([*frames[:2], np.zeros((0, C)), *frames[2:]], n_best=2)
    assert together.pop(2)[0].text == ""
    for source, expected in zip(frames, together, strict=True):
        (alone,) = translator.translate_n_best([source], n_best=2)
        for one, other in zip(alone, expected, strict=True):
            assert one.text == other.text
            assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
    assert len({best[0].text for best in together}) > 1  # sources count
    known = [(s, t) for s, best in zip(frames, together, strict=True) for t in best if "⁇" not in t.text]
    assert len(known) >= 3
    found = scorer.score([s for s, _ in known], [t.text for _, t in known])
    np.testing.assert_allclose(found, [t.log_prob for _, t in known], atol=1e-4)


def test_long_samples_are_cut_into_parts(loaded, frames):
    translator = Translator.of(loaded)
    long = np.concatenate([*frames, *frames])[:33]  # more than twice max_length, 16
    parts = [long[:11], long[11:22], long[22:]]
    assert translator.translate([long, frames[0]])[0] == " ".join(translator.translate(parts))
    assert translator.num_split == 1


def test_what_is_no_source(loaded, frames):
    with pytest.raises(DataError, match=r"input 2: is an array \[5, 3\], expected \[frames, 4\]"):
        Translator.of(loaded).translate([frames[0], frames[0][:, :3]])
    with pytest.raises(DataError, match=r"source 1: is text, and the model reads frames of 4 numbers"):
        Scorer.of(loaded).score(["ant"], ["bee"])
    with pytest.raises(ConfigError, match=r"its sources are frames .*source_features is 4.*reads text; give"):
        sentence_pair(loaded, "ant", "bee")


def test_learned_positions_bound_parts(frames):
    learned = make_model({"data": dict(kind="frames")}, source_features=C, positions="learned")
    config = dataclasses.replace(learned.config.decode, max_extra_length=30)
    translator = Translator(learned.model, learned.params, learned.tokenizer, config)
    (found,) = translator.translate_n_best([np.concatenate([*frames, *frames])], n_best=1)
    assert found[0].length and translator.num_split == 1
