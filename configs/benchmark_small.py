"""Multi30k, English to German, with the small model that speed is compared on: see docs/benchmark.md.

    transformer train --config configs/benchmark_small.py --workdir runs/benchmark_small

Its speed: `transformer benchmark train --config configs/benchmark_small.py`. Joint vocabulary 8,000,
d_model 256, 4 heads, d_ff 1024, 3 + 3 layers, 64 rows of 64 positions: about 4,000 real target tokens a step.

Data: github.com/multi30k/dataset, the files of data/task1/raw as they are, put into data/multi30k
(elsewhere: --config.data.root=DIR): {train,val,test_2016_flickr} with the endings .en.gz and .de.gz; 29,000
pairs to train on, 1,014 for dev, 1,000 to test.

Not run here.
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "small"
    config.model.max_length = 64
    config.data.root = "data/multi30k"
    for side, language in (("source", "en"), ("target", "de")):
        config.data[f"train_{side}"] = (f"train.{language}.gz",)
        config.data[f"dev_{side}"] = (f"val.{language}.gz",)
        config.data[f"test_{side}"] = (f"test_2016_flickr.{language}.gz",)
    config.optim.warmup_steps = 1000
    config.run.num_steps = 4000
    return config
