"""Attention weights of the cross-attention, captured from the forward pass."""

import dataclasses

import numpy as np
import pytest

from transformer.errors import DataError
from transformer.inference.attention_maps import cross_attention

SOURCE, TARGET = "ant bee cat dog", "gnu hen"


@pytest.fixture(scope="module")
def maps(loaded):
    return cross_attention(loaded, SOURCE, TARGET)


def test_rows_are_target_pieces_columns_source_pieces_with_end_marks(maps):
    weights_LHTS, source, target = maps
    assert source == ["▁ant", "▁bee", "▁cat", "▁dog", "</s>"]
    assert target == ["▁gnu", "▁hen", "</s>"]
    assert weights_LHTS.shape == (2, 2, 3, 5)
    assert weights_LHTS.dtype == np.float32
    np.testing.assert_allclose(weights_LHTS.sum(axis=-1), 1, atol=1e-5)


def test_a_row_belongs_to_the_prediction_of_its_piece(loaded, maps):
    """So it depends on the pieces before its own, not on its own."""
    other = cross_attention(loaded, SOURCE, "gnu fox")[0]
    np.testing.assert_allclose(other[:, :, :2], maps[0][:, :, :2], atol=1e-6)
    assert np.abs(other[:, :, 2] - maps[0][:, :, 2]).max() > 1e-3


def test_the_weights_are_those_of_each_layer_in_order(loaded, maps):
    """A last layer without queries looks everywhere alike."""
    decoder = loaded.params["decoder"]
    attention = decoder["layer_1"]["cross_attention"]
    blind = attention | {"query": {"kernel": 0 * attention["query"]["kernel"]}}
    params = loaded.params | {
        "decoder": decoder | {"layer_1": decoder["layer_1"] | {"cross_attention": blind}}
    }
    changed = cross_attention(dataclasses.replace(loaded, params=params), SOURCE, TARGET)[0]
    np.testing.assert_allclose(changed[0], maps[0][0], atol=1e-6)
    np.testing.assert_allclose(changed[1], 1 / 5, atol=1e-6)
    assert np.abs(maps[0][1] - 1 / 5).max() > 1e-2


def test_a_model_that_scans_its_layers_has_the_same_weights(scanned, maps):
    np.testing.assert_allclose(cross_attention(scanned, SOURCE, TARGET)[0], maps[0], atol=1e-5)


def test_learned_positions_end(learned):
    with pytest.raises(DataError, match="target line 1: has 17 tokens"):
        cross_attention(learned, SOURCE, " ".join(16 * ["ant"]))
