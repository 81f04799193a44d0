"""What is in a model directory, and in what two of them differ."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from transformer.config import Config
from transformer.config_mapping import flat
from transformer.data.tokenizer import Tokenizer
from transformer.exchange.written_vocabularies import pieces
from transformer.inference.model_directory import LoadedModel, load_model
from transformer.io.checkpoint_folder import complete_steps, scored_steps
from transformer.io.digests import digest_arrays
from transformer.io.workdir import Workdir
from transformer.model.size import count_parameters
from transformer.paths import by_path

_SHOWN = 5  # pieces that differ


def inspect(model: str, checkpoint: str, tensors: bool) -> Iterator[str]:
    """Yields lines about a model.

    Args:
      model: one of our model directories.
      checkpoint: "best", "last", or a step.
      tensors: list all of them.

    Raises:
      CheckpointError: if there is no such model, or it is damaged.
    """
    workdir, loaded = Workdir(model), load_model(model, checkpoint)
    yield f"{model}: {_kind(workdir, loaded.config)}, parameters of step {loaded.step:,}"
    scored = scored_steps(workdir.checkpoints)
    for step in complete_steps(workdir.checkpoints):
        scores = "  ".join(f"{name} {value:.4g}" for name, value in scored.get(step, {}).items())
        yield f"checkpoint    {step:,}  {scores}".rstrip()
    parts = count_parameters(loaded.model)
    arrays = by_path(loaded.params)
    size = sum(x.nbytes for x in arrays.values())
    told = ", ".join(f"{name} {count:,}" for name, count in parts.items() if name != "total")
    yield f"parameters    {parts['total']:,} ({told}), {size / 1e6:,.1f} MB"
    yield f"digest        {digest_arrays(arrays)}"
    yield f"model         {_changed(loaded.config)}"
    yield f"tokenizer     {_tokenizer(loaded.tokenizer)}"
    yield f"digest        {loaded.tokenizer.digest}"
    yield f"seal          {'holds' if workdir.seal_file.exists() else 'none'}"
    if tensors:
        for path, x in arrays.items():
            yield f"{path}  {x.dtype}{list(x.shape)}  {_figures(x)}"


def diff(models: tuple[str, str], checkpoint: str) -> Iterator[str]:
    """Yields a line for each thing in which two models differ; none if they are the same.

    Args:
      models: two of our model directories.
      checkpoint: of both.

    Raises:
      CheckpointError: if one cannot be read.
    """
    first, second = (load_model(model, checkpoint) for model in models)
    old, new = flat(first.config), flat(second.config)
    yield from (f"config.{key}: {old[key]!r}, {new[key]!r}" for key in old if old[key] != new[key])
    yield from _tokenizers_differ(first.tokenizer, second.tokenizer)
    yield from _tensors_differ(first, second)


def _kind(workdir: Workdir, config: Config) -> str:
    if workdir.weights.exists():
        kind = "an export"
    elif workdir.corpus_file.exists():
        kind = "a run" + (f" with adapters of rank {config.lora.rank}" if config.lora.rank else "")
    else:
        kind = "a model"
    origin = workdir.load_origin()
    began = f", begun with {origin.model}, step {origin.step:,}" if origin else ""
    return kind + (", imported" if workdir.imported.exists() else "") + began


def _changed(config: Config) -> str:
    """Returns the keys of the model that are not the paper's, but for sizes of a stack that it has not."""
    plain = dataclasses.asdict(type(config.model)())
    found = {k: v for k, v in dataclasses.asdict(config.model).items() if v != plain[k]}
    for stack in {"encoder", "decoder"} - config.model.stacks.keys():
        found.pop(f"num_{stack}_layers", None)
    return ", ".join(f"{key} {value}" for key, value in found.items()) or "the paper's base model"


def _tokenizer(tokenizer: Tokenizer) -> str:
    source, target = tokenizer.models
    joint = "joint" if source == target else "source and target"
    special = tokenizer.special
    target_side = f"{tokenizer.target_vocab:,} " + ("labels" if tokenizer.labels else "pieces")
    return (
        f"{joint}, {tokenizer.source_vocab:,} and {target_side}; ids: pad {special.pad}, "
        f"unk {special.unk}, start {special.start}, end {special.end}"
    )


def _tokenizers_differ(first: Tokenizer, second: Tokenizer) -> Iterator[str]:
    if first.digest == second.digest:
        return
    yield f"tokenizer: {first.digest[:12]}..., {second.digest[:12]}..."
    if first.special != second.special:
        yield f"tokenizer: special ids {tuple(first.special)}, {tuple(second.special)}"
    for side, a, b in zip(("source", "target"), pieces(first), pieces(second), strict=True):
        moved = sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))
        lost, gained = sorted(set(a) - set(b)), sorted(set(b) - set(a))
        if moved:
            yield (
                f"tokenizer: {side}: {len(a):,}, {len(b):,} pieces, {moved:,} ids mean another piece; "
                f"only in the first {_some(lost)}, only in the second {_some(gained)}"
            )


def _some(listed: list[str]) -> str:
    return f"{len(listed):,}" + (f" ({' '.join(listed[:_SHOWN])})" if listed else "")


def _tensors_differ(first: LoadedModel, second: LoadedModel) -> Iterator[str]:
    a, b = by_path(first.params), by_path(second.params)
    for path in (*a, *(path for path in b if path not in a)):
        x, y = a.get(path), b.get(path)
        if x is None or y is None:
            yield f"{path}: only in the {'first' if y is None else 'second'}"
        elif x.shape != y.shape or x.dtype != y.dtype:
            yield f"{path}: {x.dtype}{list(x.shape)}, {y.dtype}{list(y.shape)}"
        elif not np.array_equal(x, y):
            distance = np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64))
            yield (
                f"{path}: {np.count_nonzero(distance):,} of {distance.size:,} numbers differ, by at most "
                f"{distance.max():.3g}, {np.sqrt(np.mean(distance**2)):.3g} in root mean square"
            )


def _figures(x: jax.Array) -> str:
    array: Any = np.asarray(x, np.float64)
    return f"mean {array.mean():.3g}, deviation {array.std():.3g}, largest {np.abs(array).max():.3g}"
