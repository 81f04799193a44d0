"""Constituency parsing (paper, section 6.3) on GUM: semi-supervised, with silver trees of the first model.

    transformer train --config configs/gum_parsing.py --workdir runs/gum_parsing
    transformer parse --model runs/gum_parsing --beam_size 4 < data/gum-const/unlabelled \
        > data/gum-const/silver.trees
    transformer train --config configs/gum_parsing_semi.py --workdir runs/gum_parsing_semi
    transformer parse --model runs/gum_parsing_semi --checkpoint last \
        --gold data/gum-const/dev.clean.trees.gz --ids data/gum-const/dev.ids.gz --gold_tags

Data: as in gum_parsing.py, and data/gum-const/unlabelled: English sentences, one a line, none empty, words
and punctuation apart as in the trees (benchmarks/unlabelled.py makes such a file). Half of what is trained
on is theirs, however many they are.

As in the paper, almost nothing else changes: twice the vocabulary, and longer training. There it was
17 million sentences with trees of other parsers.

Reached, last checkpoint: perplexity 1.60 a symbol on dev; F1 47.27 on dev, 44.44 on test, where
trees alone have 46.42 and 45.81 (docs/parsing.md). 71 min on one of 2 CPU cores (AMD EPYC), jax 0.10.2.
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "tiny"
    config.model.dropout_rate = 0.1
    config.model.norm = "pre"
    config.model.max_length = 320
    config.tokenizer.model_type = "bpe"
    config.data.kind = "trees"
    config.data.root = "data/gum-const"
    config.data.train_source = ("train.clean.trees.gz", "silver.trees")
    config.data.train_weights = (0.5, 0.5)
    config.data.dev_source = ("dev.clean.trees.gz",)
    config.data.test_source = ("test.clean.trees.gz",)
    config.data.batch_tokens = 5120  # 16 rows
    config.optim.learning_rate = 0.003
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 400
    config.optim.clip_norm = 1.0
    config.run.num_steps = 4000
    config.run.eval_every = 500
    config.run.save_every = 250
    config.run.eval_lines = 0  # trees have a score of their own
    config.run.best_metric = "nll"
    config.decode.beam_size = 21
    config.decode.length_penalty = 0.3
    config.decode.max_extra_length = 300
    config.decode.batch_size = 16
    return config
