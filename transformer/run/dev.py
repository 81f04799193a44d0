"""The dev set during training: likelihood of the references, and scores of real translations."""

import collections
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from transformer.config import Config
from transformer.data.augmentation import masking
from transformer.data.batch import Batch, pad_rows
from transformer.data.encoded import EncodedCorpus
from transformer.data.pipeline import evaluation_batches
from transformer.data.tokenizer import Tokenizer
from transformer.inference.searching import trees_of
from transformer.inference.translator import Translator
from transformer.io.devices import row_shards, to_devices
from transformer.metrics.scores import score
from transformer.model.transformer import Transformer
from transformer.run.prepare import PreparedData


def evaluate_dev(
    params: Any, eval_step: Any, model: Transformer, data: PreparedData, config: Config, mesh: Mesh
) -> dict[str, float]:
    """Returns the dev scores of `params`; empty if there is no dev set.

    Those of `token_scores`, and from beam search on the first `run.eval_lines` lines `bleu`, `chrf`,
    `exact_match` (percent).
    """

    def step(batch: Batch) -> Mapping[str, Any]:
        return eval_step(params, to_devices(pad_rows(batch, row_shards(mesh)), mesh))

    scores = token_scores(step, data.dev, data.tokenizer, config)
    if data.dev_pairs:
        divided = mesh if jax.device_count() > 1 else None
        trees = trees_of(config, data.tokenizer)
        translator = Translator(model, params, data.tokenizer, config.decode, divided, trees)
        outputs = translator.translate([source for source, _ in data.dev_pairs])
        references = [[target for _, target in data.dev_pairs]]
        found = score(outputs, references, tokenize=config.run.bleu_tokenize)
        scores |= {"bleu": found.bleu, "chrf": found.chrf, "exact_match": found.exact_match}
    return scores


def token_scores(
    step: Callable[[Batch], Mapping[str, Any]],
    corpora: Sequence[EncodedCorpus],
    tokenizer: Tokenizer,
    config: Config,
) -> dict[str, float]:
    """Returns what can be told without search; empty if there is nothing to tell it of.

    `nll` (nats per target token, without smoothing), `perplexity`, `accuracy` (percent of target
    tokens, or of masked pieces, or of labels, that were the likeliest). With adaptive recurrence
    `encoder_steps` and `decoder_steps`: after how many a source or target token halted, in the mean.
    Which pieces are masked is the same each time.

    Args:
      step: `eval_step` of a model.
      corpora: encoded pairs.
      tokenizer: that they were encoded with.
      config: the run.
    """
    scores: dict[str, float] = {}
    sums: collections.Counter[str] = collections.Counter()
    masked = masking(config, tokenizer)
    for corpus in corpora:
        for batch in evaluation_batches(corpus, config.data, config.row_length, masked):
            sums.update({name: float(total) for name, total in step(batch).items()})
    if sums["target_tokens"]:
        nll = sums["nll"] / sums["target_tokens"]
        scores["nll"] = nll
        scores["perplexity"] = math.exp(min(nll, 700))
        scores["accuracy"] = 100 * sums["correct"] / sums["target_tokens"]
        sides = {"encoder": sums["source_tokens"], "decoder": sums["target_tokens"]}
        if config.model.kind == "decoder_only":  # its stack is over both
            sides = {"decoder": sum(sides.values())}
        scores |= {
            f"{stack}_steps": sums[f"{stack}_steps"] / tokens
            for stack, tokens in sides.items()
            if f"{stack}_steps" in sums
        }
    return scores
