"""Multi30k en-de, "Transformer-Tiny" of Wu et al. 2021, on the lower-cased, tokenised files."""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "tiny"
    config.model.max_length = 64
    config.tokenizer.model_type = "bpe"
    config.tokenizer.vocab_size = 10_000
    config.data.root = "data/multi30k"
    for split, name in (("train", "train"), ("dev", "val"), ("test", "test_2016_flickr")):
        config.data[f"{split}_source"] = (f"{name}.lc.norm.tok.en.gz",)
        config.data[f"{split}_target"] = (f"{name}.lc.norm.tok.de.gz",)
    config.data.batch_tokens = 4096
    config.optim.warmup_steps = 2000
    config.optim.learning_rate = 0.005
    config.run.num_steps = 8000
    config.run.eval_every = 500
    config.run.save_every = 500
    config.run.bleu_tokenize = "none"
    config.run.keep_latest = 10
    config.run.keep_best = 5
    config.decode.beam_size = 5
    return config
