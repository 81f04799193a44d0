"""Multi30k, English to German, fine-tuned with adapters (LoRA) of 4.5 % of its size.

    transformer train --config configs/tatoeba_en_de_tiny.py --workdir runs/tatoeba_en_de_tiny
    transformer train --config configs/multi30k_en_de_lora.py --workdir runs/multi30k_en_de_lora
    transformer evaluate --model runs/multi30k_en_de_lora --checkpoint last

Data: as in multi30k_en_de.py, in data/multi30k (elsewhere: --config.data.root=DIR). Sizes and tokenizer are
those of the first run.

Hardware, time, score: Not run here.
(But for 700 steps, which brought it to a training perplexity of 32; fine-tuning everything in the same pieces
had 15 then.)
"""

from ml_collections import ConfigDict

from transformer.config import default_config

TESTS = ("test_2016_flickr", "test_2017_flickr", "test_2017_mscoco")


def get_config() -> ConfigDict:
    config = default_config()
    config.init.model = "runs/tatoeba_en_de_tiny"
    config.lora.rank = 4
    config.lora.alpha = 8.0
    config.lora.targets = "kernel$|embedding$"
    config.data.root = "data/multi30k"
    for side, language in (("source", "en"), ("target", "de")):
        config.data[f"train_{side}"] = (f"train.{language}.gz",)
        config.data[f"dev_{side}"] = (f"val.{language}.gz",)
        config.data[f"test_{side}"] = tuple(f"{test}.{language}.gz" for test in TESTS)
    config.data.subword_dropout = 0.1
    config.optim.learning_rate = 0.005
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 100
    config.optim.clip_norm = 1.0
    config.run.num_steps = 5000  # as many as multi30k_en_de
    config.run.save_every = 250
    config.decode.beam_size = 5
    return config
