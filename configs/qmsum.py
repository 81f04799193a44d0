"""QMSum: a query and a whole meeting, some 9,000 words, to an answer of some 70 (docs/long_input.md).

    python benchmarks/summaries.py qmsum DIR data/qmsum
    transformer train --config configs/qmsum.py --workdir runs/qmsum
    transformer evaluate --model runs/qmsum --metric rouge
    transformer evaluate --metric rouge --hypothesis data/qmsum/lead.txt --reference data/qmsum/test.target

The last command scores the lead baseline: as many of the meeting's first words as a summary has on the mean.

Data: github.com/Yale-LILY/QMSum, data/ALL/{train,val,test} with a meeting a line, packed with gzip as
DIR/{train,val,test}.jsonl.gz; 1,257 queries of 162 meetings to train on, 272 for dev, 281 to test. The first
command writes them as lines into data/qmsum (elsewhere: --config.data.root=DIR).

Meetings above max_length are left out in training, and split when the model is used.

Reached: ROUGE-1 15.10, ROUGE-2 3.26, ROUGE-L 11.97 on test (lead: 14.08, 2.06, 9.30), perplexity 378 on dev,
in 38 minutes on one of 2 CPU cores beside other work, jax 0.10.2, and 12 more to summarise the test set, of
which 100 meetings were split. So short a training learns the words of such answers and not their sense.
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "tiny"  # 162 meetings
    config.model.num_encoder_layers = 2
    config.model.num_decoder_layers = 2
    config.model.norm = "pre"
    config.model.max_length = 16_384
    config.model.attention = "alternating"
    config.model.chunk_length = 256
    config.tokenizer.model_type = "bpe"
    config.tokenizer.max_training_lines = 200
    config.data.root = "data/qmsum"
    for split in ("train", "dev", "test"):
        config.data[f"{split}_source"] = (f"{split}.source",)
        config.data[f"{split}_target"] = (f"{split}.target",)
    config.data.packing = False
    config.data.target_length = 384
    config.data.buckets = (8_192, 12_288, 16_384)
    config.data.batch_tokens = 16_384  # source positions: one meeting, or two short ones
    config.optim.learning_rate = 0.001
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 100
    config.optim.clip_norm = 1.0
    config.run.num_steps = 600  # some two thirds of an epoch
    config.run.eval_every = 300
    config.run.save_every = 100
    config.run.eval_lines = 0  # summaries have a score of their own
    config.run.best_metric = "nll"
    config.decode.length_limit = 256
    config.decode.no_repeat_ngram_size = 3
    config.decode.batch_size = 2
    return config
