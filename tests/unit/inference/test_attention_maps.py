"""Attention weights, captured from the forward pass."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from unit.small_model import make_model

from transformer.errors import ConfigError, DataError
from transformer.inference.ablation import without_each_head
from transformer.inference.attention_maps import AttentionMap, alignment, attention_maps, by_words, words
from transformer.inference.sentence_pair import sentence_pair
from transformer.inference.translator import Translator
from transformer.model.attention import MultiHeadAttention
from transformer.special_ids import SpecialIds

SOURCE, TARGET = "ant bee cat dog", "gnu hen"
SOURCE_PIECES, TARGET_PIECES = ["▁ant", "▁bee", "▁cat", "▁dog", "</s>"], ["▁gnu", "▁hen", "</s>"]
END = [False, False, True]  # marks


@pytest.fixture(scope="module")
def maps(loaded):
    return attention_maps(loaded, sentence_pair(loaded, SOURCE, TARGET))


def cross(loaded, target=TARGET):
    return attention_maps(loaded, sentence_pair(loaded, SOURCE, target))["cross"].weights_LHTS


def test_rows_and_columns_are_pieces_with_end_marks(maps):
    assert {kind: (found.queries, found.keys) for kind, found in maps.items()} == {
        "encoder": (SOURCE_PIECES, SOURCE_PIECES),
        "decoder": (["<s>", "▁gnu", "▁hen"], ["<s>", "▁gnu", "▁hen"]),
        "cross": (TARGET_PIECES, SOURCE_PIECES),
    }
    shapes = {kind: found.weights_LHTS.shape for kind, found in maps.items()}
    assert shapes == {"encoder": (1, 2, 5, 5), "decoder": (2, 2, 3, 3), "cross": (2, 2, 3, 5)}
    for found in maps.values():
        assert found.weights_LHTS.dtype == np.float32
        np.testing.assert_allclose(found.weights_LHTS.sum(axis=-1), 1, atol=1e-5)


def test_the_decoder_sees_nothing_later(maps):
    assert not np.triu(maps["decoder"].weights_LHTS, 1).any()
    assert np.triu(maps["encoder"].weights_LHTS, 1).any()


def test_a_row_belongs_to_the_prediction_of_its_piece(loaded, maps):
    """So it depends on the pieces before its own, not on its own."""
    other = cross(loaded, "gnu fox")
    np.testing.assert_allclose(other[:, :, :2], maps["cross"].weights_LHTS[:, :, :2], atol=1e-6)
    assert np.abs(other[:, :, 2] - maps["cross"].weights_LHTS[:, :, 2]).max() > 1e-3


def test_the_weights_are_those_of_each_layer_in_order(loaded, maps):
    """A last layer without queries looks everywhere alike."""
    decoder = loaded.params["decoder"]
    attention = decoder["layer_1"]["cross_attention"]
    blind = attention | {"query": {"kernel": 0 * attention["query"]["kernel"]}}
    params = loaded.params | {
        "decoder": decoder | {"layer_1": decoder["layer_1"] | {"cross_attention": blind}}
    }
    changed, before = cross(dataclasses.replace(loaded, params=params)), maps["cross"].weights_LHTS
    np.testing.assert_allclose(changed[0], before[0], atol=1e-6)
    np.testing.assert_allclose(changed[1], 1 / 5, atol=1e-6)
    assert np.abs(before[1] - 1 / 5).max() > 1e-2


def test_a_layer_that_recurs_shows_each_step():
    model = make_model(recurrence="fixed", num_encoder_layers=3)
    found = attention_maps(model, sentence_pair(model, SOURCE, TARGET))
    shapes = {kind: found[kind].weights_LHTS.shape for kind in found}
    assert shapes == {"encoder": (3, 2, 5, 5), "decoder": (2, 2, 3, 3), "cross": (2, 2, 3, 5)}
    # The first step by NumPy: embeddings, and the signals of positions and of step 1.
    ids, D = model.tokenizer.encode_source([SOURCE])[0], 16
    angle_TD = np.arange(6)[:, None] / 10000.0 ** (np.arange(0, D, 2) / D)
    sinusoid_TD = np.stack([np.sin(angle_TD), np.cos(angle_TD)], axis=-1).reshape(6, D)
    x_SD = np.asarray(model.params["source"]["embedding"])[ids] * D**0.5 + sinusoid_TD[:5] + sinusoid_TD[1]
    attention = model.params["encoder"]["layer_0"]["self_attention"]
    q_HSK, k_HSK = (np.einsum("SD,DHK->HSK", x_SD, attention[n]["kernel"]) for n in ("query", "key"))
    exp_HSS = np.exp(q_HSK @ k_HSK.swapaxes(1, 2) / 8**0.5)
    weights_LHSS = found["encoder"].weights_LHTS
    np.testing.assert_allclose(weights_LHSS[0], exp_HSS / exp_HSS.sum(axis=-1, keepdims=True), atol=1e-4)
    assert all(np.abs(weights_LHSS[i] - weights_LHSS[i - 1]).max() > 0.01 for i in (1, 2))


def test_a_model_that_scans_its_layers_has_the_same_weights(scanned, maps):
    for kind, found in attention_maps(scanned, sentence_pair(scanned, SOURCE, TARGET)).items():
        np.testing.assert_allclose(found.weights_LHTS, maps[kind].weights_LHTS, atol=1e-5)


def test_the_weights_shown_are_those_that_the_values_are_read_with(loaded):
    """The output is linear in the values, so its derivative by them is what attention really used."""
    config = dataclasses.replace(loaded.model.config, num_heads=1)
    attention, draw = MultiHeadAttention(config), np.random.default_rng(0)
    x_1TD, memory_1SD = (jnp.asarray(draw.normal(size=(1, n, config.d_model)), jnp.float32) for n in (3, 5))
    mask_11TS = jnp.ones((1, 1, 3, 5), bool).at[..., 4].set(False)
    params = attention.init(jax.random.key(0), x_1TD, memory_1SD, mask_11TS)["params"]
    identity = jnp.eye(config.d_model)
    params["value"]["kernel"], params["out"]["kernel"] = identity[:, None], identity[None]

    def read(value_DHK):
        changed = params | {"value": {"kernel": value_DHK}}
        return attention.apply({"params": changed}, x_1TD, memory_1SD, mask_11TS)[0]

    # y_TD = W memory V with V = [D, 1, D]: by V it is W memory.
    by_value_TDDHK = jax.jacobian(read)(params["value"]["kernel"])
    _, captured = attention.apply({"params": params}, x_1TD, memory_1SD, mask_11TS, mutable="intermediates")
    (shown_1HTS,) = captured["intermediates"]["weights"]
    expected_TD = shown_1HTS[0, 0] @ memory_1SD[0]
    np.testing.assert_allclose(by_value_TDDHK[:, 0, :, 0, 0], expected_TD, atol=1e-6)


def test_learned_positions_end(learned):
    with pytest.raises(DataError, match="target line 1: has 17 tokens"):
        sentence_pair(learned, SOURCE, " ".join(16 * ["ant"]))


def test_words_begin_at_spaces_and_marks_stand_alone():
    pieces = [">>de<<", "re", "<unk>", "mark", "<", "▁", "a", "Ġb", "</s>", "de_DE"]
    marks = [True, *[False] * 7, True, True]
    assert [pieces[w.start : w.stop] for w in words(pieces, marks)] == [
        [">>de<<"],
        ["re", "<unk>", "mark", "<"],
        ["▁", "a"],
        ["Ġb"],
        ["</s>"],
        ["de_DE"],
    ]


def test_marks_are_known_by_their_places(monkeypatch):
    special = SpecialIds(source_prefix=(4,), source_suffix=(3, 5), target_prefix=(5,))
    loaded = make_model()
    monkeypatch.setattr(loaded.tokenizer, "special", special)
    monkeypatch.setattr(type(loaded.tokenizer), "language", lambda _, line: "ant")
    pair = sentence_pair(loaded, SOURCE, TARGET)
    assert (len(pair.source), pair.target[0], pair.language) == (4 + 3, 5, True)
    found = attention_maps(loaded, pair)
    assert found["encoder"].key_marks == [True, True, False, False, False, True, True]
    assert found["cross"].query_marks == [True, False, False, True]
    assert found["decoder"].query_marks == [True, True, False, False]


def test_the_models_own_translation_is_that_of_the_search_piece_by_piece(loaded):
    line = "ant zebra  bee"  # with unknown text, which is no text again
    ((own,),) = Translator.of(loaded).translate_n_best([line], 1)
    pair = sentence_pair(loaded, line)
    assert (pair.text, tuple(pair.target)) == (own.text, own.ids) and len(own.ids) == own.length > 1
    whole, _ = without_each_head(loaded, pair)
    assert whole == pytest.approx(own.log_prob, abs=1e-4)


def test_nothing_to_read_still_has_an_end(loaded):
    assert sentence_pair(loaded, " ").target == sentence_pair(loaded, " ", "").target


def test_what_would_be_split_or_is_no_text_is_refused(loaded):
    with pytest.raises(DataError, match=r"source: has 42 tokens, of which the model reads 16 at once"):
        sentence_pair(loaded, "ant " * 40)
    for sides in (("caf\udce9", "bee"), ("ant", "caf\udce9")):
        with pytest.raises(ConfigError, match="is not UTF-8"):
            sentence_pair(loaded, *sides)
    for name, sides in (("source", ("ant\tbee", "bee")), ("target", ("ant", "bee\nant"))):
        with pytest.raises(ConfigError, match=f"{name}: has a line break or a tab; give one line"):
            sentence_pair(loaded, *sides)


def test_a_word_is_read_as_all_its_pieces_and_reads_as_their_mean():
    weights_TS = np.array([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4], [0.5, 0.5, 0.0]], np.float32)
    found = by_words(AttentionMap(weights_TS[None, None], ["▁a", "b", "</s>"], ["▁c", "d", "</s>"], END, END))
    assert (found.queries, found.keys) == (["ab", "</s>"], ["cd", "</s>"])
    np.testing.assert_allclose(found.weights_LHTS[0, 0], [[0.45, 0.55], [1.0, 0.0]], atol=1e-6)


def test_words_are_those_of_the_text_where_pieces_do_not_spell_them():
    weights_TS = np.full((3, 3), 1 / 3, np.float32)
    sides = ["▁a", "<unk>", "</s>"], ["▁<unk>", "▁d", "</s>"]
    cross = AttentionMap(weights_TS[None, None], *sides, END, END, "a\u05d0", "X d")
    found = by_words(cross)
    assert (found.queries, found.keys) == (["a\u05d0", "</s>"], ["X", "d", "</s>"])
    assert by_words(cross._replace(key_text="X")).keys == ["<unk>", "d", "</s>"]


def test_alignment_takes_the_word_read_most_and_no_marks():
    weights_TS = np.array([[0.1, 0.3, 0.6], [0.4, 0.2, 0.4], [0.0, 0.0, 1.0]], np.float32)
    other = np.zeros_like(weights_TS)
    queries, keys = ["▁x", "▁y", "</s>"], ["▁a", "▁b", "</s>"]
    cross = AttentionMap(np.stack([[other], [weights_TS]]), queries, keys, END, END)
    assert alignment(cross, 1) == [(1, 0), (0, 1)]
    spaced = cross._replace(keys=["▁", "▁b", "</s>"])  # a space alone is no word
    assert alignment(spaced, 1) == [(0, 0), (0, 1)]
    assert alignment(AttentionMap(np.ones((1, 1, 1, 1)), ["</s>"], ["</s>"], [True], [True]), 0) == []
