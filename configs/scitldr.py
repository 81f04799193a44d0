"""SciTLDR: a paper's abstract to one sentence.

    python benchmarks/summaries.py scitldr DIR data/scitldr
    transformer train --config configs/scitldr.py --workdir runs/scitldr
    transformer evaluate --model runs/scitldr --output tldr.txt --metric rouge
    transformer evaluate --metric rouge --hypothesis tldr.txt --reference data/scitldr/test.target*
    transformer evaluate --metric rouge --hypothesis data/scitldr/lead.txt \
        --reference data/scitldr/test.target*

lead.txt is the lead baseline, each abstract's first sentence. test.target* are all summaries of a paper, of
which the best counts; the second command scores against the first one alone.

Data: github.com/allenai/scitldr, SciTLDR-Data/SciTLDR-A, its three files packed with gzip as DIR/{train,dev,
test}.jsonl.gz; 1,992 pairs to train on, 619 for dev, 618 to test. The first command writes them as lines
into data/scitldr (elsewhere: --config.data.root=DIR).

Reached: ROUGE-1 28.12, ROUGE-2 8.26, ROUGE-L 24.17 against all summaries, below the lead baseline (31.29,
12.33, 24.98); 33 min on one of 2 CPU cores (AMD EPYC), jax 0.10.2. From 1,992 pairs and no other text it
learns how such sentences begin ("We propose a novel ...") and to copy some of the abstract's words.
rouge-score:0.1.2|F1|stems:yes|nrefs:4|best
"""

from ml_collections import ConfigDict

from transformer.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.model.preset = "tiny"
    config.model.norm = "pre"
    config.model.max_length = 640
    config.tokenizer.model_type = "bpe"
    config.tokenizer.vocab_size = 6_000
    config.data.root = "data/scitldr"
    for split in ("train", "dev", "test"):
        config.data[f"{split}_source"] = (f"{split}.source",)
        config.data[f"{split}_target"] = (f"{split}.target",)
    config.data.packing = False
    config.data.target_length = 128
    config.data.batch_tokens = 5120
    config.optim.learning_rate = 0.001
    config.optim.schedule = "cosine"
    config.optim.warmup_steps = 300
    config.optim.clip_norm = 1.0
    config.run.num_steps = 3000
    config.run.eval_every = 250
    config.run.save_every = 250
    config.run.eval_lines = 0  # summaries have a score of their own
    config.run.best_metric = "nll"
    config.decode.length_limit = 80
    config.decode.no_repeat_ngram_size = 3
    return config
