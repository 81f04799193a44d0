"""Constituency parsing (paper, section 6.3) on GUM: trees only.

    transformer train --config configs/gum_parsing.py --workdir runs/gum_parsing
    transformer parse --model runs/gum_parsing --gold data/gum-const/dev.clean.trees.gz \
        --ids data/gum-const/dev.ids.gz --gold_tags

The last command prints labelled brackets by EVALB's rules, of each genre and of all (docs/parsing.md).

Data: github.com/amir-zeldes/gum, const/GUM_*.ptb in the split of its splits.md, one tree a line, without
function labels, indices, traces and what is empty without them, put into data/gum-const (elsewhere:
--config.data.root=DIR): {train,dev,test}.clean.trees.gz and .ids.gz; 10,224 trees to train on, 1,575 for
dev, 1,464 to test. They are a parser's output over gold tags, not gold trees.

As in the paper: 4 layers, beam 21, alpha 0.3, outputs up to 300 tokens longer than the input. Not as in the
paper, for 2 CPU cores and a quarter of its trees: d_model 128 instead of 1024, 4,000 pieces, not 16,000,
pre-norm.

Reached: perplexity 1.52 a symbol on dev; with beam 21 F1 46.42 on dev (precision 46.68, recall 46.16), 45.81
on test, by genre in docs/parsing.md. 45 min on one of 2 CPU cores (AMD EPYC), jax 0.10.2.
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "tiny"
    config.model.dropout_rate = 0.2
    config.model.norm = "pre"
    config.model.max_length = 320  # the longest tree to train on has 288 symbols
    config.tokenizer.model_type = "bpe"
    config.tokenizer.vocab_size = 4000
    config.data.kind = "trees"
    config.data.root = "data/gum-const"
    config.data.train_source = ("train.clean.trees.gz",)
    config.data.dev_source = ("dev.clean.trees.gz",)
    config.data.test_source = ("test.clean.trees.gz",)
    config.data.batch_tokens = 5120  # 16 rows
    config.optim.learning_rate = 0.003
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 400
    config.optim.clip_norm = 1.0
    config.run.num_steps = 3000  # some 30 epochs
    config.run.eval_every = 500
    config.run.save_every = 250
    config.run.eval_lines = 0  # trees have a score of their own
    config.run.best_metric = "nll"
    config.decode.beam_size = 21
    config.decode.length_penalty = 0.3
    config.decode.max_extra_length = 300
    config.decode.batch_size = 16
    return config
