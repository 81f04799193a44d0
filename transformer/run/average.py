"""The mean of several checkpoints (paper, section 6.1)."""

import dataclasses

import jax
import numpy as np

from transformer.config import InitConfig, LoraConfig
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError
from transformer.inference.model_directory import restore_params
from transformer.io.checkpoint import Checkpoints
from transformer.io.checkpoint_folder import best_steps, complete_steps
from transformer.io.origins import keep_origin
from transformer.io.workdir import Workdir
from transformer.model.transformer import Transformer


def average(model: str, output: str, last: int | None = None, best: int | None = None) -> list[int]:
    """Writes a model directory whose parameters are the mean of checkpoints of a run.

    Args:
      model: folder of the run.
      output: folder to write; must not hold a run.
      last: how many of the newest checkpoints; or
      best: how many of the best by the run's metric.

    Returns:
      The steps that were averaged.

    Raises:
      CheckpointError: if the run has fewer checkpoints, or `output` holds a run already.
    """
    source, target = Workdir(model), Workdir(output)
    config = source.load_config()
    tokenizer = Tokenizer.load(source.tokenizer)
    source.check_seal(config, tokenizer.digest)
    if target.config_file.exists() or target.checkpoints.exists():
        raise CheckpointError(f"{output}: holds a run already; choose another --output, or remove it")
    wanted = last or best or 0
    if wanted < 1:
        raise ConfigError("--last or --best: how many checkpoints to average, at least 1")
    folder = source.checkpoints
    steps = complete_steps(folder)[-wanted:] if last else best_steps(folder, config.run.best_metric, wanted)
    if len(steps) < wanted:
        raise CheckpointError(
            f"{model}: has {len(steps)} checkpoints to average, not {wanted}; "
            "keep more with config.run.keep_latest or keep_best"
        )
    module = Transformer(
        config.model, tokenizer.source_vocab, tokenizer.target_vocab, tokenizer.special.start
    )
    total = None
    for step in steps:
        params = jax.tree.map(np.asarray, restore_params(source, step, module, config))
        part = jax.tree.map(lambda x: x.astype(np.float64) / len(steps), params)
        total = part if total is None else jax.tree.map(np.add, total, part)
    mean = jax.tree.map(lambda m, x: m.astype(x.dtype), total, params)
    optim = dataclasses.replace(config.optim, ema_decay=0.0)
    averaged = dataclasses.replace(config, optim=optim, init=InitConfig(), lora=LoraConfig())
    tokenizer.save(target.tokenizer)
    written = Checkpoints(target.checkpoints, config.run)
    written.save(max(steps), {"params": mean}, {"averaged": sorted(steps)})
    written.close()
    target.seal(averaged, tokenizer.digest)
    keep_origin(source, target)
    target.save_config(averaged)
    return sorted(steps)
