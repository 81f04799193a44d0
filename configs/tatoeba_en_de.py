"""Tatoeba, English to German: short sentences of everyday language.

    transformer train --config configs/tatoeba_en_de.py --workdir runs/tatoeba_en_de
    transformer average --model runs/tatoeba_en_de --last 5 --output runs/tatoeba_en_de_averaged
    transformer evaluate --model runs/tatoeba_en_de_averaged

Data: pairs of tatoeba.org as www.manythings.org/anki collects them (deu-eng.zip, CC BY 2.0), without
duplicates, split into {train,dev,test}.en.gz and .de.gz in data/tatoeba-en-de (elsewhere:
--config.data.root=DIR); 163,646 pairs of about 6 words to train on, 2,500 for dev, 2,500 to test. Most
sentences have several translations, so keep all pairs that share a side in one split.

Hardware, time, score: Not run here.
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "small"
    config.model.dropout_rate = 0.2
    config.model.max_length = 64
    config.data.root = "data/tatoeba-en-de"
    for split in ("train", "dev", "test"):
        config.data[f"{split}_source"] = (f"{split}.en.gz",)
        config.data[f"{split}_target"] = (f"{split}.de.gz",)
    config.optim.warmup_steps = 2000
    config.run.num_steps = 12_000
    config.run.keep_latest = 5
    return config
