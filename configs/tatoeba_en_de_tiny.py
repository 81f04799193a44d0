"""Tatoeba, English to German, with a model of the size of multi30k_en_de: a base for fine-tuning.

    transformer train --config configs/tatoeba_en_de_tiny.py --workdir runs/tatoeba_en_de_tiny

Data: as in tatoeba_en_de.py, in data/tatoeba-en-de (elsewhere: --config.data.root=DIR).

Reached: 37.80 BLEU, chrF 56.30 on the first 500 lines of dev, with beam 4 and length penalty 1; the test set
was not scored. 39 min on one of 2 CPU cores, shared with other work, jax 0.10.2.
nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "tiny"
    config.model.dropout_rate = 0.1  # five times the pairs of multi30k
    config.model.norm = "pre"
    config.model.max_length = 64
    config.tokenizer.model_type = "bpe"
    config.data.root = "data/tatoeba-en-de"
    for split in ("train", "dev", "test"):
        config.data[f"{split}_source"] = (f"{split}.en.gz",)
        config.data[f"{split}_target"] = (f"{split}.de.gz",)
    config.optim.learning_rate = 0.004
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 500
    config.optim.clip_norm = 1.0
    config.run.num_steps = 1800
    config.run.eval_every = 600
    config.run.save_every = 200
    config.run.eval_lines = 500
    config.decode.length_penalty = 1.0
    return config
