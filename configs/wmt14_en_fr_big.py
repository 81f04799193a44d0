r"""WMT14, English to French: the big model of the paper (section 5, table 2).

    transformer train --config configs/wmt14_en_fr_big.py --workdir runs/wmt14_en_fr_big
    transformer average --model runs/wmt14_en_fr_big --last 20 --output runs/wmt14_en_fr_big_averaged
    transformer evaluate --model runs/wmt14_en_fr_big_averaged

Data: wmt14_translate/fr-en of TensorFlow Datasets: 36 million pairs in the paper's count (TFDS has
some more), newstest2013 for dev, newstest2014 to test. Prepare it once (elsewhere: data_dir='DIR'
there, --config.data.tfds_dir=DIR here):

    pip install -e '.[tfds]'
    python -c "import tensorflow_datasets as tfds, tensorflow_datasets.translate; \
        tfds.builder('wmt14_translate/fr-en', file_format='array_record').download_and_prepare()"

As in the paper: 32,000 joint pieces (word pieces there, BPE here); about 25,000 source and 25,000
target tokens a step; 300,000 steps, 4,000 of warm-up; dropout 0.1, not the big model's usual 0.3; the
mean of the last 20 checkpoints, 600 steps (10 minutes there) apart; beam 4 with length penalty 0.6.
Not as in the paper: bfloat16 where the model computes, the field's custom on accelerators (parameters
and optimizer stay float32).

Hardware: meant for GPUs or TPUs; --config.optim.accumulation_steps=4 and --config.model.remat=true
need less memory. Time, score: Not run here. The paper: 3.5 days on 8 P100 GPUs, 41.8 BLEU (41.0 in the
text), on tokens and not by sacreBLEU.
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "big"
    config.model.dropout_rate = 0.1
    config.model.dtype = "bfloat16"
    config.tokenizer.model_type = "bpe"
    config.tokenizer.vocab_size = 32_000
    config.data.kind = "tfds"
    config.data.tfds_name = "wmt14_translate/fr-en"
    config.data.target_language = "fr"
    config.data.batch_tokens = 26_624  # 104 rows of 256 positions, not all of them filled
    config.run.num_steps = 300_000
    config.run.eval_every = 6000
    config.run.save_every = 600
    config.run.keep_latest = 20
    return config
