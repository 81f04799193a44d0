"""The quickstart's data with a model that Hugging Face's MarianMTModel computes too.

    transformer train --config configs/hf_compatible.py --workdir runs/hf_compatible
    transformer evaluate --model runs/hf_compatible --show 10
    transformer export hf --model runs/hf_compatible --to exports/hf_compatible

What makes it so, for any data: post-norm layers with epsilon 1e-5, one vocabulary or two, ReLU, GELU or swish.
The paper's projections without biases become projections with biases of 0 there, and its sines and cosines
in turn all sines and then all cosines. `decode.rules` makes the beam's outputs the same.

Not run here.
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "tiny"
    config.model.d_ff = 512
    config.model.num_encoder_layers = 2
    config.model.num_decoder_layers = 2
    config.model.dropout_rate = 0.0  # the corpus is larger than the run
    config.model.max_length = 64
    config.model.norm_epsilon = 1e-5
    config.tokenizer.vocab_size = 600
    config.tokenizer.split_digits = True
    config.data.kind = "cldr"
    config.data.batch_tokens = 1024
    config.optim.learning_rate = 2e-3
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 200
    config.optim.clip_norm = 1.0
    config.optim.label_smoothing = 0.05
    config.run.num_steps = 1200
    config.run.eval_every = 600
    config.run.save_every = 600
    config.run.log_every = 10
    config.run.eval_lines = 200
    config.decode.rules = "huggingface"
    config.decode.length_penalty = 1.0
    config.decode.max_extra_length = 32
    return config
