"""Sentences made of random pieces."""

import numpy as np
import pytest

from transformer.benchmark.material import SyntheticCorpus, synthetic_material
from transformer.config import Config, DataConfig, ModelConfig, TokenizerConfig
from transformer.config_mapping import from_config_dict
from transformer.data.pipeline import training_batches
from transformer.errors import ConfigError

EOS = 3


def test_lengths_are_those_of_the_stated_distribution():
    lengths = np.array([(len(s), len(t)) for s, t in SyntheticCorpus(100, 30, 4096, 0, pairs=20_000)])
    logs = np.log(lengths)
    assert np.abs(lengths.mean(0) - 30).max() < 0.5
    assert logs[:, 0].std() == pytest.approx(0.6, abs=0.02)
    assert (logs[:, 1] - logs[:, 0]).std() == pytest.approx(0.2, abs=0.02)


def test_pieces_follow_zipf_and_end_with_the_end_mark():
    pairs = list(SyntheticCorpus(1000, 20, 64, 1, pairs=5000))
    assert all(ids[-1] == EOS and 2 <= len(ids) <= 64 for pair in pairs for ids in pair)
    inner = np.concatenate([ids[:-1] for pair in pairs for ids in pair])
    assert inner.dtype == np.int32 and inner.min() == EOS + 1 and inner.max() < 1000
    counts = np.bincount(inner)
    assert counts[4] / counts[4 + 9] == pytest.approx((10 + 2.7) / (1 + 2.7), rel=0.1)


def test_targets_have_a_limit_of_their_own():
    lengths = np.array([(len(s), len(t)) for s, t in SyntheticCorpus(99, 30, 64, 1, longest_target=16)])
    assert lengths.max(0).tolist() == [64, 16]


def test_the_same_seed_draws_the_same():
    def flat(seed: int) -> list[int]:
        return [n for pair in SyntheticCorpus(50, 8, 16, seed, pairs=20) for ids in pair for n in ids]

    assert flat(1) == flat(1) != flat(2)


def test_they_are_packed_as_real_pairs_are():
    data = DataConfig(batch_tokens=4096, packing_bins=64)
    corpus = SyntheticCorpus(100, 20, 128, 0, pairs=2000)
    batches = iter(training_batches([corpus], None, data, 128))
    try:
        found = [next(batches) for _ in range(3)]
    finally:
        batches.close()
    for batch, pairs in found:
        assert batch.src_BS.shape == batch.tgt_BT.shape == (32, 128)
        assert np.mean(batch.src_seg_BS > 0) > 0.8
        assert len(pairs) == (batch.src_pos_BS[batch.src_seg_BS > 0] == 0).sum()


@pytest.mark.parametrize(
    ("vocab", "mean", "message"),
    [(4, 20, "vocab_size: 4 leaves no pieces"), (8000, 1000, "max_length, 256"), (8000, 1, "from 2 to")],
)
def test_impossible_ones(vocab, mean, message):
    config = Config(tokenizer=TokenizerConfig(vocab_size=vocab))
    with pytest.raises(ConfigError, match=message):
        synthetic_material(config, mean)


def test_sizes_come_from_the_configuration():
    config = from_config_dict({"tokenizer": {"vocab_size": 77}, "model": {"max_length": 40}})
    assert config.model == ModelConfig(max_length=40)
    material = synthetic_material(config, 12)
    assert (material.source_vocab, material.target_vocab) == (77, 77)
    assert max(len(ids) for i in range(1000) for ids in material.corpora[0][i]) == 40
