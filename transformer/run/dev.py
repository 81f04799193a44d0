"""The dev set during training: likelihood of the references, and scores of real translations."""

import collections
import math
from typing import Any

import jax
from jax.sharding import Mesh

from transformer.config import Config
from transformer.data.batch import pad_rows
from transformer.data.pipeline import evaluation_batches
from transformer.inference.translator import Translator
from transformer.io.devices import row_shards, to_devices
from transformer.metrics.scores import score
from transformer.model.transformer import Transformer
from transformer.run.prepare import PreparedData


def evaluate_dev(
    params: Any, eval_step: Any, model: Transformer, data: PreparedData, config: Config, mesh: Mesh
) -> dict[str, float]:
    """Returns the dev scores of `params`; empty if there is no dev set.

    `nll` (nats per target token, without smoothing), `perplexity`, `accuracy` (percent of target
    tokens that were the likeliest), and from beam search on the first `run.eval_lines` lines
    `bleu`, `chrf`, `exact_match` (percent). With adaptive recurrence `encoder_steps` and
    `decoder_steps`: how often the layer ran at a source or target token, in the mean.
    """
    scores: dict[str, float] = {}
    sums: collections.Counter[str] = collections.Counter()
    for corpus in data.dev:
        for batch in evaluation_batches(corpus, config.data, config.row_length):
            found = eval_step(params, to_devices(pad_rows(batch, row_shards(mesh)), mesh))
            sums.update({name: float(total) for name, total in found.items()})
    if sums["target_tokens"]:
        nll = sums["nll"] / sums["target_tokens"]
        scores["nll"] = nll
        scores["perplexity"] = math.exp(min(nll, 700))
        scores["accuracy"] = 100 * sums["correct"] / sums["target_tokens"]
        if "encoder_steps" in sums:
            scores["encoder_steps"] = sums["encoder_steps"] / sums["source_tokens"]
            scores["decoder_steps"] = sums["decoder_steps"] / sums["target_tokens"]
        elif "decoder_steps" in sums:
            tokens = sums["source_tokens"] + sums["target_tokens"]
            scores["decoder_steps"] = sums["decoder_steps"] / tokens
    if data.dev_pairs:
        translator = Translator(
            model, params, data.tokenizer, config.decode, mesh if jax.device_count() > 1 else None
        )
        outputs = translator.translate([source for source, _ in data.dev_pairs])
        references = [[target for _, target in data.dev_pairs]]
        found = score(outputs, references, tokenize=config.run.bleu_tokenize)
        scores |= {"bleu": found.bleu, "chrf": found.chrf, "exact_match": found.exact_match}
    return scores
