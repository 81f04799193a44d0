"""configs/benchmark_small.py in Marian's very architecture: for `compare.py` alone.

Biases on attention's projections and epsilon 1e-5: then every parameter has its place in Hugging Face's
MarianMTModel, and a model trained with this recipe can be decoded by both.

    transformer train --config benchmarks/recipes/small.py --workdir runs/marian --config.data.root=DIR
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

benchmark = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "benchmark_small.py"))


def get_config() -> ConfigDict:
    config: ConfigDict = benchmark["get_config"]()
    config.model.attention_bias = True
    config.model.norm_epsilon = 1e-5
    config.decode.beam_size = 5
    config.decode.length_penalty = 1.0
    config.decode.rules = "huggingface"  # as generate() counts length and ends its search
    return config
