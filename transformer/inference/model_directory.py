"""A trained model read back from its run's folder."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from transformer.config import Config, Kind, ModelConfig
from transformer.data.tokenizer import Tokenizer
from transformer.errors import CheckpointError, ConfigError
from transformer.io.arrays import read_item
from transformer.io.checkpoint_folder import best_steps, complete_steps, scored_steps
from transformer.io.digests import digest_arrays
from transformer.io.weights import read_weights
from transformer.io.workdir import Workdir
from transformer.model.lora import merged, new_adapters
from transformer.model.size import parameter_shapes
from transformer.model.transformer import Transformer
from transformer.paths import by_path, nested


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model, ready to use.

    Attributes:
      config: the run's configuration.
      tokenizer: of both sides.
      model: the module.
      params: its parameters on one device (the moving average, if the run has one).
      step: the checkpoint's step.
    """

    config: Config
    tokenizer: Tokenizer
    model: Transformer
    params: Any
    step: int


def check_kind(model: ModelConfig, *wanted: Kind) -> None:
    """Refuses a model of another kind.

    Raises:
      ConfigError: saying what it is.
    """
    if model.kind not in wanted:
        kinds = " or ".join(map(repr, wanted))
        raise ConfigError(
            f"--model: config.model.kind is {model.kind!r}, and this needs {kinds}; give another"
        )


def check_reads_text(model: ModelConfig) -> None:
    """Refuses a model whose sources are no text.

    Raises:
      ConfigError: saying what they are.
    """
    if model.source_features:
        raise ConfigError(
            f"--model: its sources are frames (config.model.source_features is {model.source_features}), and "
            "this needs a model that reads text; give another"
        )


def load_model(path: str | Path, checkpoint: str = "best") -> LoadedModel:
    """Loads a checkpoint of a run, or what `export safetensors` wrote.

    Args:
      path: the run's folder.
      checkpoint: "best", "last", or a step.

    Raises:
      CheckpointError: if there is no such run or checkpoint, or its tokenizer or configuration is another
        than it was trained with.
    """
    workdir = Workdir(path)
    config = workdir.load_config()
    tokenizer = Tokenizer.load(workdir.tokenizer)
    workdir.check_seal(config, tokenizer.digest)
    model = Transformer(config.model, tokenizer.source_vocab, tokenizer.target_vocab, tokenizer.special.start)
    if workdir.weights.exists():
        params, step = read_weights(workdir.weights, _on_first_device(parameter_shapes(model)))
        if checkpoint not in ("best", "last", str(step)):
            raise CheckpointError(f"{path}: has no checkpoint '{checkpoint}', only that of step {step}")
        return LoadedModel(config, tokenizer, model, params, step)
    step = choose_step(workdir.checkpoints, checkpoint, config.run.best_metric, workdir.root)
    params = restore_params(workdir, step, model, config)
    return LoadedModel(config, tokenizer, model, params, step)


def choose_step(checkpoints: Path, wanted: str, metric: str, root: Path) -> int:
    """Returns the step meant by "best" (by that metric), "last" or a number.

    Raises:
      CheckpointError: if there is none.
    """
    steps = complete_steps(checkpoints)
    if not steps:
        raise CheckpointError(f"{root}: has no complete checkpoint yet; train it first")
    if wanted == "last":
        return steps[-1]
    if wanted == "best":
        return best_steps(checkpoints, metric, 1)[0] if scored_steps(checkpoints) else steps[-1]
    if not wanted.isdecimal() or int(wanted) not in steps:
        raise CheckpointError(
            f"{root}: has no checkpoint '{wanted}'; choose best, last or one of {', '.join(map(str, steps))}"
        )
    return int(wanted)


def restore_params(workdir: Workdir, step: int, model: Transformer, config: Config) -> Any:
    """Returns the parameters of a checkpoint on the first device: the moving average if there is one.

    Adapters are merged with the model that they belong to, which has to be where it was.

    Raises:
      CheckpointError: if the checkpoint cannot be used, or that model is another by now.
    """
    item, shapes = "ema" if config.optim.ema_decay else "params", parameter_shapes(model)
    if not config.lora.rank:
        return read_item(workdir.checkpoints, step, item, _on_first_device(shapes))
    used = by_path(shapes)  # another kind of model may have taken a part of the base
    base = nested({path: x for path, x in by_path(_base(workdir)).items() if path in used})
    like = jax.eval_shape(lambda: new_adapters(jax.random.key(0), shapes, config.lora))
    adapters = read_item(workdir.checkpoints, step, item, _on_first_device(like))
    return jax.jit(merged, static_argnums=2)(base, adapters, config.lora)


def _base(workdir: Workdir) -> Any:
    """Returns the parameters that a run's adapters belong to."""
    origin = workdir.load_origin()
    if origin is None:
        raise CheckpointError(f"{workdir.init_file}: is missing: it names the model that adapters belong to")
    try:
        params = load_model(origin.model, str(origin.step)).params
    except CheckpointError as error:
        raise CheckpointError(
            f"{workdir.root}: its adapters belong to {origin.model}, step {origin.step:,}: {error}"
        ) from None
    if digest_arrays(by_path(params)) != origin.digest:
        raise CheckpointError(
            f"{workdir.root}: its adapters belong to {origin.model}, step {origin.step:,}, "
            "which has other parameters now; put the old ones back"
        )
    return params


def _on_first_device(shapes: Any) -> Any:
    device = SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
