r"""WMT14, English to German: the base model of the paper (section 5, table 2).

    transformer train --config configs/wmt14_en_de_base.py --workdir runs/wmt14_en_de_base
    transformer average --model runs/wmt14_en_de_base --last 5 --output runs/wmt14_en_de_base_averaged
    transformer evaluate --model runs/wmt14_en_de_base_averaged

Data: wmt14_translate/de-en of TensorFlow Datasets: 4.5 million pairs, newstest2013 for dev,
newstest2014 to test. Prepare it once (elsewhere: data_dir='DIR' there, --config.data.tfds_dir=DIR here):

    pip install -e '.[tfds]'
    python -c "import tensorflow_datasets as tfds, tensorflow_datasets.translate; \
        tfds.builder('wmt14_translate/de-en', file_format='array_record').download_and_prepare()"

As in the paper: 37,000 joint BPE pieces; about 25,000 source and 25,000 target tokens a step; 100,000
steps, 4,000 of warm-up; the mean of the last 5 checkpoints, written every 10 minutes there (1,500
steps) and every 1,250 steps here, which divides the run; beam 4 with length penalty 0.6.

Hardware: meant for GPUs or TPUs; --config.model.dtype=bfloat16 computes faster there,
--config.optim.accumulation_steps=4 needs less memory. Time, score: Not run here. The paper: 12 hours
on 8 P100 GPUs, 27.3 BLEU, counted on tokens with German compounds split, so sacreBLEU's is lower.
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.tokenizer.model_type = "bpe"
    config.tokenizer.vocab_size = 37_000
    config.data.kind = "tfds"
    config.data.tfds_name = "wmt14_translate/de-en"
    config.data.batch_tokens = 26_624  # 104 rows of 256 positions, not all of them filled
    config.run.eval_every = 5000
    config.run.save_every = 1250
    config.run.keep_latest = 5
    return config
