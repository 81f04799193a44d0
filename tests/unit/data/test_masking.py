"""Masked pieces: how many, which, and that the seed alone decides."""

import numpy as np
import pytest

from transformer.config import DataConfig, TokenizerConfig
from transformer.config_mapping import from_config_dict
from transformer.data.augmentation import augmentation
from transformer.data.batch import NOT_ASKED, Batch, pack_rows
from transformer.data.masking import Masking, mask_pieces
from transformer.data.pipeline import evaluation_batches, training_batches
from transformer.data.tokenizer import train_tokenizer
from transformer.special_ids import BOS_ID, EOS_ID

VOCAB, FIRST, ROW = 50, 4, 16
TEXT_V = np.arange(VOCAB) >= FIRST
PACKED = DataConfig(batch_tokens=4 * ROW, packing_bins=8, seed=3)


class Corpus:
    """Sentences of which no two are alike, in place of an EncodedCorpus."""

    def __init__(self, count: int = 40):
        draw = np.random.default_rng(0)
        lengths = draw.integers(2, ROW, count)
        self.sentences = [np.append(draw.integers(FIRST, VOCAB, n), EOS_ID).astype(np.int32) for n in lengths]

    def __len__(self):
        return len(self.sentences)

    def __getitem__(self, index):
        return self.sentences[index], self.sentences[index]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def number(self, index):
        return index + 1


def masking() -> Masking:
    letters = [chr(ord("a") + i % 26) * (1 + i // 26) for i in range(VOCAB - FIRST)]
    tokenizer = train_tokenizer([" ".join(letters)], [], TokenizerConfig(model_type="word", vocab_size=VOCAB))
    return Masking(tokenizer, 0.15)


def test_shares_of_what_is_chosen():
    rng, counts, length, times = np.random.default_rng(1), np.zeros(4), 101, 2000
    chosen_at = np.zeros(length)
    ids = np.append(rng.integers(FIRST, VOCAB, length - 1), EOS_ID).astype(np.int32)
    kept_ids = ids.copy()
    for _ in range(times):
        read, asked = mask_pieces(ids, TEXT_V, BOS_ID, 0.15, rng)
        chosen = asked != NOT_ASKED
        assert (asked[chosen] == ids[chosen]).all() and (read[~chosen] == ids[~chosen]).all()
        assert chosen.sum() == 15 and TEXT_V[read[chosen & (read != BOS_ID)]].all()
        masked, same = chosen & (read == BOS_ID), chosen & (read == ids)
        counts += chosen.sum(), masked.sum(), same.sum(), (chosen & ~masked & ~same).sum()
        chosen_at += chosen
    assert (ids == kept_ids).all()  # the corpus itself is not written to
    _, masked, same, other = counts / counts[0]
    assert masked == pytest.approx(0.8, abs=0.01)
    # One in V "other" pieces happens to be the same.
    assert same == pytest.approx(0.1 + 0.1 / (VOCAB - FIRST), abs=0.01)
    assert other == pytest.approx(0.1 - 0.1 / (VOCAB - FIRST), abs=0.01)
    assert chosen_at[-1] == 0  # the end mark
    np.testing.assert_allclose(chosen_at[:-1] / times, 0.15, atol=0.04)  # five standard deviations


@pytest.mark.parametrize("length", [1, 3, 10])
def test_the_share_of_short_sentences_is_right_in_the_mean(length):
    rng, ids = np.random.default_rng(2), np.full(length, FIRST, np.int32)
    found = [(mask_pieces(ids, TEXT_V, BOS_ID, 0.15, rng)[1] != NOT_ASKED).sum() for _ in range(4000)]
    assert np.mean(found) == pytest.approx(0.15 * length, abs=0.04)
    assert max(found) - min(found) <= 1


def drawn(count: int, state=None) -> tuple[list[Batch], dict]:
    batches = iter(training_batches([Corpus()], None, PACKED, ROW, masking()))
    if state is not None:
        batches.set_state(state)
    found = [next(batches).batch for _ in range(count)]
    state = batches.get_state()
    batches.close()
    return found, state


def test_the_seed_decides_and_a_state_continues():
    """Whatever was masked before; and every epoch masks other pieces."""
    whole, _ = drawn(12)
    first, state = drawn(5)
    rest, _ = drawn(7, state)
    for ours, theirs in zip(whole, first + rest, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    seen = {}
    for batch in whole:
        for asked, at in zip(batch.tgt_seg_BT > 0, batch.src_seg_BS, strict=True):
            for segment in range(1, at.max() + 1):
                seen.setdefault((at == segment).sum(), set()).add(tuple(asked[at == segment]))
    assert max(map(len, seen.values())) > 3


def test_answers_stand_where_the_pieces_were():
    (batch, *_), _ = drawn(1)
    asked = batch.tgt_seg_BT > 0
    assert asked.any() and not (asked & (batch.src_seg_BS == 0)).any()
    assert (batch.tgt_seg_BT[asked] == batch.src_seg_BS[asked]).all()
    assert (batch.tgt_pos_BT[asked] == batch.src_pos_BS[asked]).all()
    assert not batch.tgt_BT[~asked].any() and (batch.tgt_BT[asked] >= FIRST).all()
    assert (batch.src_BS[asked] == BOS_ID).mean() > 0.5


def test_dev_pieces_are_masked_alike_each_time():
    first, second = (list(evaluation_batches(Corpus(), PACKED, ROW, masking())) for _ in range(2))
    assert sum((batch.tgt_seg_BT > 0).sum() for batch in first)
    for ours, theirs in zip(first, second, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_rows_have_padding_where_nothing_is_asked():
    batch = pack_rows([[((5, 6, 3), (NOT_ASKED, 0, NOT_ASKED)), ((7, 3), (NOT_ASKED, 4))]], 1, 6)
    assert batch.src_BS.tolist() == [[5, 6, 3, 7, 3, 0]]
    assert batch.tgt_BT.tolist() == [[0, 0, 0, 0, 4, 0]]
    assert batch.tgt_seg_BT.tolist() == [[0, 1, 0, 0, 2, 0]]
    assert batch.tgt_pos_BT.tolist() == [[0, 1, 0, 0, 1, 0]]
    assert all(x.dtype == np.int32 for x in batch)


def test_only_masked_language_models_mask():
    sizes = {
        "tokenizer": {"model_type": "word", "vocab_size": 6},
        "run": {"eval_lines": 0, "best_metric": "nll"},
    }
    tokenizer = train_tokenizer(["a b"], [], from_config_dict(sizes).tokenizer)
    assert augmentation(from_config_dict(sizes), tokenizer) is None
    encoder = sizes | {"model": {"kind": "encoder_only"}}
    assert isinstance(augmentation(from_config_dict(encoder), tokenizer), Masking)
    labels = encoder | {"data": {"labels": "line"}}
    assert augmentation(from_config_dict(labels), tokenizer) is None
