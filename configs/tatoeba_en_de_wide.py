"""Tatoeba, English to German, with 23 million parameters and 2,000 pieces: a base for adapters.

    transformer train --config configs/tatoeba_en_de_wide.py --workdir runs/tatoeba_en_de_wide

Data: as in tatoeba_en_de.py, in data/tatoeba-en-de (elsewhere: --config.data.root=DIR).

Reached: 33.97 BLEU on the first 500 lines of dev, with beam 4 and length penalty 1; the test set was not
scored. 55 min on 2 CPU cores (AMD EPYC), jax 0.10.2. Up to step 715 the run was one of 1,200 steps.
nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.num_encoder_layers = 3
    config.model.num_decoder_layers = 3
    config.model.norm = "pre"
    config.model.max_length = 96
    config.tokenizer.model_type = "bpe"
    config.tokenizer.vocab_size = 2000
    config.data.root = "data/tatoeba-en-de"
    for split in ("train", "dev", "test"):
        config.data[f"{split}_source"] = (f"{split}.en.gz",)
        config.data[f"{split}_target"] = (f"{split}.de.gz",)
    config.optim.learning_rate = 0.0012
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 300
    config.optim.clip_norm = 1.0
    config.run.num_steps = 1000
    config.run.save_every = 100
    config.run.eval_lines = 500
    config.decode.length_penalty = 1.0
    return config
