"""Multi30k, English to German: captions of pictures as people wrote them, with case and punctuation.

    transformer train --config configs/multi30k_en_de.py --workdir runs/multi30k_en_de
    transformer evaluate --model runs/multi30k_en_de --checkpoint last

The last command scores all three test sets: 2016 and 2017 Flickr, 2017 COCO.

Data: github.com/multi30k/dataset, the files of data/task1/raw as they are, put into data/multi30k
(elsewhere: --config.data.root=DIR): {train,val,test_2016_flickr,test_2017_flickr,test_2017_mscoco}
with the endings .en.gz and .de.gz; 29,000 pairs to train on, 1,014 for dev, 1,000 + 1,000 + 461 to test.

Reached: 39.10, 30.59 and 26.41 BLEU, chrF 62.66, 58.09 and 52.78, detokenised and cased, each test set scored
once, with beam 5, length penalty 1 and the last checkpoint settled beforehand. 63 min on 2 CPU cores shared
with other work (0.43 s a step when quiet), jax 0.10.2.
nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0
"""

from ml_collections import ConfigDict

from transformer.config import default_config

TESTS = ("test_2016_flickr", "test_2017_flickr", "test_2017_mscoco")


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "tiny"  # larger models learn 29,000 pairs by heart
    config.model.norm = "pre"
    config.model.max_length = 64
    config.tokenizer.model_type = "bpe"
    config.tokenizer.vocab_size = 6_000
    config.data.root = "data/multi30k"
    for side, language in (("source", "en"), ("target", "de")):
        config.data[f"train_{side}"] = (f"train.{language}.gz",)
        config.data[f"dev_{side}"] = (f"val.{language}.gz",)
        config.data[f"test_{side}"] = tuple(f"{test}.{language}.gz" for test in TESTS)
    config.data.subword_dropout = 0.1
    config.optim.learning_rate = 0.004
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 800
    config.optim.clip_norm = 1.0
    config.run.num_steps = 5000
    config.run.save_every = 250
    config.decode.beam_size = 5
    config.decode.length_penalty = 1.0
    return config
