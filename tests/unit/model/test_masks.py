"""Mask rules and the shifted target, against loops over positions."""

import jax.numpy as jnp
import numpy as np
from reference import numpy_transformer as reference
from reference import reference_cases as cases

from transformer.model.attention import attention_weights
from transformer.model.masks import (
    causal_mask,
    decoder_mask,
    positions_after,
    segment_mask,
    shift_right,
)


def test_real_positions_see_their_own_sentence() -> None:
    mask_B1TS = np.asarray(segment_mask(jnp.array(cases.TGT_SEG), jnp.array(cases.SRC_SEG)))
    for row, tgt_seg, src_seg in zip(mask_B1TS[:, 0], cases.TGT_SEG, cases.SRC_SEG, strict=True):
        expected = reference.allowed_keys(tgt_seg, src_seg, causal=False)
        np.testing.assert_array_equal(row[tgt_seg > 0], expected[tgt_seg > 0])


def test_padding_is_seen_by_padding_alone() -> None:
    mask_B1TS = np.asarray(segment_mask(jnp.array(cases.SRC_SEG), jnp.array(cases.SRC_SEG)))
    for row, seg in zip(mask_B1TS[:, 0], cases.SRC_SEG, strict=True):
        assert not row[seg > 0][:, seg == 0].any()
        assert row[seg == 0][:, seg == 0].all()
        assert not row[seg == 0][:, seg > 0].any()


def test_decoder_mask_adds_order() -> None:
    mask_B1TS = np.asarray(decoder_mask(jnp.array(cases.TGT_SEG)))
    for row, seg in zip(mask_B1TS[:, 0], cases.TGT_SEG, strict=True):
        expected = reference.allowed_keys(seg, seg, causal=True)
        np.testing.assert_array_equal(row[seg > 0], expected[seg > 0])
    assert causal_mask(3)[0, 0].tolist() == [[True, False, False], [True, True, False], [True, True, True]]


def test_a_prefix_is_seen_from_everywhere_in_its_sentence() -> None:
    seg = np.array([[1, 1, 2, 0, 1, 2, 2, 0]])  # two sources, two targets, both filled up
    row = np.asarray(decoder_mask(jnp.asarray(seg), prefix=4))[0, 0]
    for t in (0, 1, 2, 4, 5, 6):
        assert np.flatnonzero(row[t]).tolist() == [
            s for s in range(8) if seg[0, s] == seg[0, t] and (s <= t or s < 4)
        ]


def test_targets_go_on_where_their_sources_end() -> None:
    src_seg, seg = jnp.array([[1, 1, 2, 2, 2, 0]]), jnp.array([[1, 1, 2, 3, 0]])
    assert positions_after(src_seg, seg, jnp.array([[0, 1, 0, 0, 0]])).tolist() == [[2, 3, 3, 0, 0]]


def test_shift_right_begins_each_packed_sentence() -> None:
    tgt = jnp.array([[5, 6, 7, 8, 9, 0, 0], [4, 3, 2, 6, 5, 8, 9]])
    pos = jnp.array([[0, 1, 2, 0, 1, 0, 0], [0, 1, 2, 3, 4, 5, 6]])
    expected = [[1, 5, 6, 1, 8, 1, 1], [1, 4, 3, 2, 6, 5, 8]]
    assert shift_right(tgt, pos, bos_id=1).tolist() == expected


def test_weights_are_zero_where_masked_and_even_where_nothing_is_seen() -> None:
    rng = np.random.default_rng(0)
    q_BHTK, k_BHSK = (rng.normal(size=(1, 2, n, 4)).astype(np.float32) * 30 for n in (3, 5))
    mask_11TS = jnp.array([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)[None, None]
    weights_BHTS = np.asarray(attention_weights(q_BHTK, k_BHSK, mask_11TS))
    assert np.all(weights_BHTS[:, :, 0, [1, 3, 4]] == 0)
    np.testing.assert_allclose(weights_BHTS[:, :, 1], 1 / 5, rtol=1e-6)
    np.testing.assert_allclose(weights_BHTS.sum(-1), 1, rtol=1e-6)
