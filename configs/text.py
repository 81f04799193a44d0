r"""Your own text: two files, line n of one the translation of line n of the other.

    transformer train --config configs/text.py --workdir runs/text \
        --config.data.train_source=train.en --config.data.train_target=train.de
    transformer evaluate --model runs/text --split dev --show 10
    transformer translate --model runs/text < new.en > new.de

Data: text files, plain or .gz, one sentence a line; several of a side separated by commas. 500 pairs
are held out of them as dev set, unless --config.data.dev_source=... and --config.data.dev_target=...
name one. A test set: --config.data.test_source=... and --config.data.test_target=..., or, at any
time, `transformer evaluate --model runs/text --source FILE --reference FILE`.

Meant for some ten thousand to some hundred thousand pairs. Less text: if it cannot fill the
vocabulary, the message says which --config.tokenizer.vocab_size can be filled. More text:
--config.model.preset=base --config.model.dropout_rate=0.1 --config.tokenizer.vocab_size=32000.

Hardware, time, score: yours. Not run here.
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "small"
    config.model.dropout_rate = 0.2
    config.model.max_length = 128
    config.data.holdout_lines = 500
    config.optim.warmup_steps = 2000
    config.optim.clip_norm = 1.0
    config.run.num_steps = 20_000
    config.run.eval_lines = 500
    config.run.patience = 5
    config.run.keep_latest = 5  # for `transformer average --last 5`
    return config
