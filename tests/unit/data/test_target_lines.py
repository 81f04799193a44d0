"""Text without sources: from files to batches whose sources have no positions."""

import dataclasses
import gzip

import numpy as np
import pytest

from transformer.config import DataConfig
from transformer.config_mapping import from_config_dict
from transformer.data.corpus import open_corpora
from transformer.data.pipeline import evaluation_batches, training_batches
from transformer.errors import ConfigError
from transformer.io.workdir import Workdir
from transformer.run.prepare import prepare_data

WORDS = ["ba", "de", "fi", "gon", "lu", "mar"]
LINES = [" ".join(WORDS[i % 6] for i in range(n, 2 * n + 1)) for n in (1, 2, 3, 4, 5, 1, 2, 3)]


def data(folder, **changes) -> DataConfig:
    (folder / "a.txt").write_text("".join(f"{line}\n" for line in LINES[:5]) + "\n")
    (folder / "b.txt.gz").write_bytes(gzip.compress("".join(f"{line}\n" for line in LINES[5:]).encode()))
    files = dict(train_target=("a.txt", "b.txt.gz"), dev_target=("b.txt.gz",))
    return DataConfig(**{"kind": "lines", "root": str(folder), **files, **changes})


def test_each_line_is_a_target(tmp_path):
    first, second = open_corpora(data(tmp_path, train_weights=(0.5, 2.0)), "train", tmp_path)
    assert (first.name, first.weight, second.name, second.weight) == ("a.txt", 0.5, "b.txt.gz", 2.0)
    assert list(first) == [("", line) for line in [*LINES[:5], ""]]
    assert second[1] == ("", LINES[6])
    assert open_corpora(data(tmp_path), "test", tmp_path) == []
    with pytest.raises(ConfigError, match=r"config\.data\.train_target: no training data is named"):
        open_corpora(DataConfig(kind="lines"), "train", tmp_path)


def test_lines_may_be_held_out(tmp_path):
    config = data(tmp_path, dev_target=(), holdout_lines=2)
    train, dev = (open_corpora(config, split, tmp_path) for split in ("train", "dev"))
    assert (sum(map(len, train)), sum(map(len, dev))) == (7, 2)


@pytest.mark.parametrize("packing", [True, False])
def test_batches_have_targets_alone(packing, tmp_path):
    config = from_config_dict(
        {
            "model": dict(kind="decoder_only", max_length=16),
            "tokenizer": dict(model_type="word", vocab_size=10),
            "data": dataclasses.asdict(
                data(tmp_path, batch_tokens=32, packing=packing, packing_bins=4, subword_dropout=0.1)
            ),
            "run": dict(eval_lines=0, best_metric="nll"),
        }
    )
    found = prepare_data(config, Workdir(tmp_path / "run"), lambda line: None)
    counts = found.counts["train a.txt"]
    assert (counts["lines"], counts["kept"], counts["empty"], counts["source_tokens"]) == (6, 5, 1, 0)
    encoded = found.tokenizer.encode_target(LINES)
    assert counts["target_tokens"] == sum(map(len, encoded[:5]))
    batches = iter(training_batches(found.train, found.weights, config.data, config.row_length))
    seen = set()
    for _ in range(6):
        batch, _ = next(batches)
        assert batch.src_BS.shape == batch.src_pos_BS.shape == (len(batch.tgt_BT), 0)
        for ids, seg in zip(batch.tgt_BT, batch.tgt_seg_BT, strict=True):
            seen |= {tuple(ids[seg == number].tolist()) for number in set(seg[seg > 0])}
    assert seen == set(map(tuple, encoded))
    dev = list(evaluation_batches(found.dev[0], config.data, config.row_length))
    assert {batch.src_BS.shape for batch in dev} == {(2, 0)} and (len(dev) == 1 or not packing)
    assert sum(np.sum(batch.tgt_seg_BT > 0) for batch in dev) == sum(map(len, encoded[5:]))
