"""Part-of-speech tags of GUM's words, read from its trees: an encoder alone with a label a word.

    transformer train --config configs/gum_tags.py --workdir runs/gum_tags
    transformer evaluate --model runs/gum_tags
    transformer train --config configs/gum_tags.py --workdir runs/gum_tags_pretrained \
        --config.init.model=runs/gum_masked
    transformer evaluate --model runs/gum_tags_pretrained
    transformer classify --model runs/gum_tags_pretrained < sentences

First from random parameters, then from those of configs/gum_masked.py.

Data: github.com/amir-zeldes/gum as in configs/gum_parsing.py: {train,dev,test}.clean.trees.gz in
data/gum-const (elsewhere: --config.data.root=DIR). Tags are gold.

Reached from random parameters: accuracy 84.77 % of the test set's 28,397 words (dev 85.77 %), on 2 CPU cores
in 15 minutes beside other work, jax 0.10.2. Begun with gum_masked: accuracy 90.01 % (dev 90.85 %), in 9
minutes on one of 2 cores.
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "tiny"
    config.model.kind = "encoder_only"
    config.model.norm = "pre"
    config.tokenizer.model_type = "bpe"
    config.tokenizer.vocab_size = 4000
    config.data.kind = "trees"
    config.data.labels = "word"
    config.data.root = "data/gum-const"
    config.data.train_source = ("train.clean.trees.gz",)
    config.data.dev_source = ("dev.clean.trees.gz",)
    config.data.test_source = ("test.clean.trees.gz",)
    config.data.batch_tokens = 8192  # 32 rows
    config.optim.learning_rate = 0.001
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 100
    config.optim.clip_norm = 1.0
    config.run.num_steps = 1000  # some 30 epochs
    config.run.eval_every = 100
    config.run.save_every = 100
    config.run.eval_lines = 0
    config.run.best_metric = "accuracy"
    return config
