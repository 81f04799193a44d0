"""What `doctor resume` reads from the two runs, and what it says about them."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from transformer.config import MeshConfig
from transformer.data.augmentation import augmentation
from transformer.data.pipeline import TrainingBatch, training_batches
from transformer.doctor.compare import (
    Difference,
    Tolerance,
    first_array,
    first_batch,
    first_metric,
    first_position,
    named_arrays,
)
from transformer.doctor.findings import Finding, bytes_text
from transformer.doctor.needs import saved_items, vocabularies
from transformer.doctor.trial import Trial
from transformer.errors import CheckpointError
from transformer.io.checkpoint import Checkpoints
from transformer.io.devices import make_mesh
from transformer.io.metrics_file import read_metrics
from transformer.io.workdir import Workdir
from transformer.run.prepare import PreparedData, prepare_data
from transformer.run.train import say_nothing
from transformer.steps.state import TrainState, state_shardings

_MORE = 3  # batches looked at beyond the last step
_RELATIVE = 1e-5  # between losses on two meshes: sums are taken in another order
_HINT = (
    "; it differs before the stop already: this machine does not repeat itself "
    "(on GPUs: XLA_FLAGS=--xla_gpu_deterministic_ops=true)"
)


def verdict(trial: Trial, stop: int) -> Iterator[str]:
    """Compares what the two runs left.

    Args:
      trial: with both runs done.
      stop: step of the checkpoint that the stopped one continued from.

    Yields:
      One line for each comparison, then ``exact: ...``.

    Raises:
      CheckpointError: with the first difference.
    """
    # The accelerators have done their part; what follows must not depend on them.
    jax.config.update("jax_platforms", "cpu")
    if trial.mesh:
        jax.config.update("jax_num_cpu_devices", trial.mesh[0] * trial.mesh[1] * trial.mesh[2])
    found: list[tuple[Difference, str]] = []
    for name, text, difference in _comparisons(trial, stop):
        if difference:
            early = name == "losses" and difference.step <= stop
            found.append((difference, _HINT if early else ""))
            yield Finding("problem", name, difference.text()).line()
        else:
            yield Finding("ok", name, text).line()
    if found:
        first, hint = min(found, key=lambda pair: pair[0].step)  # of equals the one that was found first
        raise CheckpointError(f"first difference: {first.text()}{hint}")
    proved = "batches, losses and arrays to the bit"
    if trial.mesh:
        proved = f"batches and restored arrays to the bit, losses within {_RELATIVE:g}"
    yield f"exact: stopped after step {stop} of {2 * trial.steps}, and nothing was lost: {proved}"


def _comparisons(trial: Trial, stop: int) -> Iterator[tuple[str, str, Difference | None]]:
    """Yields name, what is equal, and the first difference of each comparison."""
    last = 2 * trial.steps
    whole, stopped = Workdir(trial.whole), Workdir(trial.stopped)
    if trial.mesh:
        yield "restored", *_restored(trial, stopped, stop)
    positions = {step: _position(stopped, step) for step in (stop, last)}
    yield (
        "position",
        f"of the data after step {last}",
        first_position(last, _position(whole, last), positions[last]),
    )
    yield "batches", *_batches(trial, positions)
    loose = Tolerance(stop, _RELATIVE) if trial.mesh else None
    text = f"of steps 1 to {last} are the same, and so are gradient norms, rates and counts"
    if loose:
        text = f"of steps 1 to {stop} are the same, of steps {stop + 1} to {last} within {_RELATIVE:g}"
    yield "losses", text, first_metric(read_metrics(whole.root), read_metrics(stopped.root), loose)
    if not trial.mesh:
        yield "arrays", *_arrays(trial, last)


def _position(workdir: Workdir, step: int) -> dict[str, Any]:
    checkpoints = Checkpoints(workdir.checkpoints)
    try:
        return checkpoints.restore(step, {})[1]
    finally:
        checkpoints.close()


def _batches(trial: Trial, positions: dict[int, dict[str, Any]]) -> tuple[str, Difference | None]:
    """Compares the batches from saved positions with those from the very beginning."""
    stop, last = positions
    counted = 0
    data = prepare_data(trial.config(), Workdir(trial.whole), say_nothing)
    beginning = _read_batches(trial, data, None, last + _MORE)
    for step, count in ((stop, last - stop), (last, _MORE)):
        again = _read_batches(trial, data, positions[step]["data"], count)
        if found := first_batch(step + 1, beginning[step : step + count], again):
            return "", found
        counted += sum(len(batch.pairs) for batch in again)
    return f"of steps {stop + 1} to {last + _MORE} hold the same {counted:,} pairs in the same places", None


def _read_batches(
    trial: Trial, data: PreparedData, state: dict[str, Any] | None, count: int
) -> list[TrainingBatch]:
    """Returns the batches that training reads next from a state of the data; None: from the beginning."""
    config = trial.config()
    augment = augmentation(config, data.tokenizer)
    batches = iter(training_batches(data.train, data.weights, config.data, config.row_length, augment))
    try:
        if state is not None:
            batches.set_state(state)
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


def _arrays(trial: Trial, step: int) -> tuple[str, Difference | None]:
    """Compares every array of the checkpoints of a step, one item at a time."""
    count = size = 0
    for item, like in _shapes(trial).items():
        a, b = (_restore(folder, step, item, like) for folder in (trial.whole, trial.stopped))
        if found := first_array(step, a, b):
            return "", found
        count += len(a)
        size += sum(x.nbytes for x in a.values())
    return f"all {count} after step {step} ({bytes_text(size)}) have the same bits", None


def _restored(trial: Trial, workdir: Workdir, step: int) -> tuple[str, Difference | None]:
    """Compares a checkpoint that is restored on the other mesh with the same one on a single device."""
    assert trial.mesh is not None
    mesh = make_mesh(MeshConfig(*trial.mesh))
    count = 0
    shapes = _shapes(trial)
    state = TrainState(jnp.int32(step), shapes["params"], shapes["optimizer"], shapes.get("ema"))
    places = state_shardings(state, mesh).items()
    for item, like in shapes.items():
        there = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like, places[item]
        )
        a, b = (_restore(workdir.root, step, item, shape) for shape in (like, there))
        if found := first_array(step, a, b):
            return "", found._replace(name=f"{found.name}, restored on the mesh,")
        count += len(a)
    return f"all {count} arrays after step {step} have the same bits on one device and on the mesh", None


def _shapes(trial: Trial) -> dict[str, Any]:
    """Returns what a checkpoint holds, to be placed on a single device."""
    items = saved_items(trial.config(), *vocabularies(trial.config(), Workdir(trial.whole)))
    device = SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), items)


def _restore(root: Path, step: int, item: str, like: Any) -> dict[str, np.ndarray]:
    checkpoints = Checkpoints(Workdir(root).checkpoints)
    try:
        return named_arrays(item, checkpoints.restore(step, {item: like})[0][item])
    finally:
        checkpoints.close()
