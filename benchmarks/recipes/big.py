"""The pairs of small.py with 32,000 pieces, and `big` in rows of 256 and 256: for `compare.py` on a GPU."""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

base = runpy.run_path(str(Path(__file__).with_name("base.py")))


def get_config() -> ConfigDict:
    config: ConfigDict = base["get_config"]()
    config.model.preset = "big"
    config.model.max_length = 256
    return config
