"""Labels of lines and words against the NumPy reference; long lines, empty ones, neighbours, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import numpy_transformer as reference
from reference import reference_cases as cases

from transformer.config_mapping import from_config_dict
from transformer.data.byte_pairs import serialised
from transformer.data.tokenizer import Tokenizer, train_tokenizer
from transformer.errors import ConfigError, DataError
from transformer.inference.classifier import Classifier
from transformer.inference.model_directory import LoadedModel
from transformer.inference.scorer import Scorer
from transformer.inference.translator import Translator
from transformer.model.size import parameter_shapes
from transformer.model.transformer import Transformer
from transformer.run.answers import score_labels

WORDS = ["ant", "bee", "cat", "dog", "eel", "fox"]
LABELS = ("air", "earth", "sea")
LINES = ["ant bee", "", "cat dog eel fox ant bee", "dog", "fox  cat "]


def loaded(labels: str, model_type: str = "word", vocab_size: int = 4 + len(WORDS), **model) -> LoadedModel:
    sizes = dict(d_model=12, d_ff=10, num_heads=3, num_encoder_layers=1, max_length=5, kind="encoder_only")
    config = from_config_dict(
        {
            "model": sizes | model,
            "tokenizer": dict(model_type=model_type, vocab_size=vocab_size),
            "data": dict(labels=labels),
            "run": dict(eval_lines=0, best_metric="accuracy"),
        }
    )
    tokenizer = train_tokenizer(WORDS, [], config.tokenizer)
    tokenizer = tokenizer.with_labels(LABELS if labels != "none" else ())
    model = Transformer(config.model, tokenizer.source_vocab, tokenizer.target_vocab)
    draw = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: jnp.asarray(draw.normal(0.3, 0.5, x.shape), x.dtype), parameter_shapes(model)
    )
    return LoadedModel(config, tokenizer, model, params, 0)


def expected(made: LoadedModel, line: str) -> np.ndarray:
    """Probabilities [S, labels] at each position of a line, end mark included."""
    (ids,) = made.tokenizer.encode_source([line])
    ones, places = np.ones(len(ids), int), np.arange(len(ids))
    params = cases.flatten(made.params)
    inputs = [x[None] for x in (np.array(ids), ones, places)]
    logits_SC = reference.logits(params, made.config.model, *inputs, *inputs)[0]
    p_SC = np.exp(logits_SC - logits_SC.max(axis=-1, keepdims=True))
    return p_SC / p_SC.sum(axis=-1, keepdims=True)


def probabilities(answers) -> np.ndarray:
    return np.array([[dict(best)[label] for label in LABELS] for best in answers])


def test_labels_of_lines():
    made = loaded("line")
    classifier = Classifier.of(made)
    found = classifier.n_best(LINES, len(LABELS))
    assert found[1] == [] and classifier.num_cut == 1
    for i in (0, 3, 4):
        np.testing.assert_allclose(probabilities(found[i]), expected(made, LINES[i])[-1:], atol=1e-5)
        assert [p for _, p in found[i][0]] == sorted((p for _, p in found[i][0]), reverse=True)
    parts = [expected(made, part)[-1] for part in ("cat dog eel fox", "ant bee")]  # five tokens at once
    np.testing.assert_allclose(probabilities(found[2])[0], np.mean(parts, axis=0), atol=1e-5)
    assert [[best[0] for best in line] for line in found] == classifier.classify(LINES)
    for line, answers in zip(LINES, found, strict=True):
        (alone,) = classifier.n_best([line], len(LABELS), batch_size=1)
        np.testing.assert_allclose(probabilities(alone), probabilities(answers), atol=1e-6)


def test_labels_of_words():
    made = loaded("word")
    found = Classifier.of(made).n_best(LINES, len(LABELS))
    assert [len(line) for line in found] == [2, 0, 6, 1, 2]
    np.testing.assert_allclose(probabilities(found[0]), expected(made, "ant bee")[:-1], atol=1e-5)
    parts = [expected(made, part)[:-1] for part in ("cat dog eel fox", "ant bee")]
    np.testing.assert_allclose(probabilities(found[2]), np.concatenate(parts), atol=1e-5)


def test_lines_without_text_or_labels_are_not_scored(capsys):
    given = ["air", "sea", "sea", " ", "earth"]
    scores, labels = score_labels(loaded("line"), "set", LINES, given)
    assert [bool(label) for label in labels] == [True, False, True, True, True]
    right = sum(labels[i] == given[i] for i in (0, 2, 4))
    assert scores == {"accuracy": pytest.approx(100 * right / 3), "labels": 3, "lines": 3}
    out, err = capsys.readouterr()
    assert f"({right} of 3 labels)" in out and "set: left out: 2 lines without text or without labels" in err
    with pytest.raises(DataError, match="set: line 1: 1 labels for 2 words; make them equal"):
        score_labels(loaded("word"), "set", LINES, given)


def test_a_word_longer_than_learned_positions_is_refused():
    made = loaded("word", model_type="char", vocab_size=17, positions="learned")
    with pytest.raises(DataError, match=r"source line 8: has 8 tokens, the model learned positions for 5"):
        Classifier.of(made).n_best(["ant", "antant"], 1, first_line=6)
    with pytest.raises(DataError, match="source line 2050: has 8 tokens"):
        score_labels(made, "set", [*[""] * 2049, "antant"], [*[""] * 2049, "air"])


def test_words_begin_with_a_space_where_byte_pairs_need_one():
    merges = [("m", "a"), ("ma", "n"), ("Ġ", "man"), ("Ġ", "a")]
    pieces = ["", "", "", "", "man", "Ġman", "a", "Ġa", "m", "n", "Ġ", "ma"]
    tokenizer = Tokenizer(serialised(merges), spellings=(pieces, pieces))
    for line in ("a man a man", "man a", "a"):
        (ids,) = tokenizer.encode_source([line])
        assert tokenizer.encode_words([line.split()]) == [(ids, list(range(len(ids) - 1)))]


def test_what_is_refused():
    classifier = Classifier.of(loaded("line"))
    for count, size, message in ((4, 1, "there are 1 to 3 labels, got 4"), (1, 0, "at least 1, got 0")):
        with pytest.raises(ConfigError, match=message):
            classifier.n_best(LINES, count, size)
    with pytest.raises(ConfigError, match="knows masked pieces and no labels"):
        Classifier.of(loaded("none"))
    for user in (Translator, Scorer):
        with pytest.raises(ConfigError, match=r"kind is 'encoder_only', and this needs 'encoder_decoder'"):
            user.of(loaded("line"))
