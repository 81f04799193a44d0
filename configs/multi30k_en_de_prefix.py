"""Multi30k, English to German, by a decoder alone: the source is the prefix of what it writes.

    transformer train --config configs/multi30k_en_de_prefix.py --workdir runs/multi30k_en_de_prefix
    transformer evaluate --model runs/multi30k_en_de_prefix --checkpoint last

All as in multi30k_en_de.py, but for the model: 6 layers over source and target as one sequence, in which the
source sees itself in both directions, take about the arithmetic of the 4 + 4 layers there, with three
fifths of their parameters.

Data: as in multi30k_en_de.py.

Reached, last checkpoint: BLEU 35.47, 26.93, 23.33 on the three test sets (13a, beam 5, alpha 1) and a
perplexity of 6.90 on dev (BLEU 35.68); an hour on one of 2 CPU cores (AMD EPYC), jax 0.10.2. Embeddings
included these are 1.56 million parameters; the 2.09 million of multi30k_en_de.py reached 39.10, 30.59, 26.41.
nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0
"""

from ml_collections import ConfigDict

from transformer.config import default_config

TESTS = ("test_2016_flickr", "test_2017_flickr", "test_2017_mscoco")


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "tiny"
    config.model.kind = "decoder_only"
    config.model.prefix = "bidirectional"
    config.model.num_decoder_layers = 6
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
