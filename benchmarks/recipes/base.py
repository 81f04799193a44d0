"""The pairs of small.py with 32,000 pieces, and `base` (d_model 512, 6+6 layers): for `compare.py` alone."""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

small = runpy.run_path(str(Path(__file__).with_name("small.py")))


def get_config() -> ConfigDict:
    config: ConfigDict = small["get_config"]()
    config.model.preset = "base"
    config.tokenizer.model_type = "bpe"  # a unigram model finds fewer pieces in this text
    config.tokenizer.vocab_size = 32_000
    return config
