"""A masked language model of GUM's sentences: an encoder alone, asked for 15 % of the pieces (BERT's task).

    transformer train --config configs/gum_masked.py --workdir runs/gum_masked
    transformer evaluate --model runs/gum_masked

The last command prints perplexity and accuracy over the pieces that were masked in the test set; which ones
depends on data.seed alone. configs/gum_genre.py and configs/gum_tags.py go on from here.

Data: github.com/amir-zeldes/gum, const/GUM_*.ptb in the split of its splits.md: the words of each tree, one
sentence a line, put into data/gum-const (elsewhere: --config.data.root=DIR): {train,dev,test}.tok.gz; 10,224
sentences to train on, 1,575 for dev, 1,464 to test.

Reached: perplexity 228.5, accuracy 21.94 % of the pieces masked in the test set, in 29 minutes on one of 2
CPU cores, jax 0.10.2; still falling (dev 375, 263, 213, 202 after 500, 1,000, 1,500, 2,000 steps).
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "tiny"
    config.model.kind = "encoder_only"
    config.model.dropout_rate = 0.1  # masks are others each epoch
    config.model.norm = "pre"
    config.tokenizer.model_type = "bpe"
    config.tokenizer.vocab_size = 4000
    config.data.root = "data/gum-const"
    config.data.train_source = ("train.tok.gz",)
    config.data.dev_source = ("dev.tok.gz",)
    config.data.test_source = ("test.tok.gz",)
    config.data.batch_tokens = 8192  # 32 rows
    config.optim.learning_rate = 0.001
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 500
    config.optim.clip_norm = 1.0
    config.optim.label_smoothing = 0.0
    config.run.num_steps = 2000  # some 65 epochs
    config.run.eval_every = 500
    config.run.save_every = 500
    config.run.eval_lines = 0
    config.run.best_metric = "nll"
    return config
