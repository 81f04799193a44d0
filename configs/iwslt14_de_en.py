"""IWSLT14, German to English: transcribed talks; the field's small model ("transformer_iwslt_de_en").

    transformer train --config configs/iwslt14_de_en.py --workdir runs/iwslt14_de_en
    transformer average --model runs/iwslt14_de_en --last 10 --output runs/iwslt14_de_en_averaged
    transformer evaluate --model runs/iwslt14_de_en_averaged

Data: {train,valid,test}.de and .en in data/iwslt14 (elsewhere: --config.data.root=DIR). Published
scores are of lower-cased text in Moses' tokens: the files that fairseq's
examples/translation/prepare-iwslt14.sh leaves in iwslt14.tokenized.de-en/tmp, before its BPE. BLEU
counts those tokens as they stand. For raw text, which gives other scores, add
--config.run.bleu_tokenize=13a.

The settings are the field's for this set: fewer heads and narrower feed-forward layers than the
base model, more dropout, weight decay, only the decoder's two matrices tied, one joint BPE. It
averages the last 10 epochs; an epoch is about 1,000 steps. Our weight decay spares biases and norms.

Hardware: meant for one GPU. Time, score: Not run here. Published: 34.5 BLEU (fairseq).
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.d_ff = 1024
    config.model.num_heads = 4
    config.model.dropout_rate = 0.3
    config.model.tied_embeddings = "target"
    config.tokenizer.model_type = "bpe"
    config.tokenizer.vocab_size = 10_000
    config.data.root = "data/iwslt14"
    for split, name in (("train", "train"), ("dev", "valid"), ("test", "test")):
        config.data[f"{split}_source"] = (f"{name}.de",)
        config.data[f"{split}_target"] = (f"{name}.en",)
    config.optim.name = "adamw"
    config.optim.weight_decay = 1e-4
    config.optim.learning_rate = 5e-4
    config.run.num_steps = 50_000
    config.run.bleu_tokenize = "none"
    config.run.keep_latest = 10
    config.decode.beam_size = 5
    return config
