"""Training steps as `train` does them, without checkpoints, and the time that they take."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from transformer.benchmark.material import Material
from transformer.config import Config
from transformer.data.batch import Batch, pad_rows
from transformer.data.pipeline import training_batches
from transformer.io.devices import row_shards, to_devices
from transformer.model.transformer import Transformer
from transformer.steps.collectives import collectives
from transformer.steps.state import init_state
from transformer.steps.train_step import dropout_key, jit_steps
from transformer.training.optimizer import make_optimizer


class Fed(NamedTuple):
    """A batch on the devices, the seconds that were waited for it, and its sentence pairs."""

    batch: Batch
    wait: float
    pairs: int


class Sample(NamedTuple):
    """One step: its seconds (of handing it over only, unless it was awaited) and what it took in."""

    seconds: float
    wait: float
    pairs: int
    source_tokens: int
    target_tokens: int
    positions: tuple[int, int]
    loss: float


class Window(NamedTuple):
    """Some steps one after the other: seconds of all, of the processor's cores together, and each step."""

    seconds: float
    core_seconds: float
    samples: list[Sample]

    def total(self, name: str) -> float:
        """Returns the sum of a field of its samples."""
        return sum(getattr(sample, name) for sample in self.samples)


class CompiledStep(NamedTuple):
    """What compiling a step told.

    Attributes:
      trace_seconds: from Python to what the compiler takes.
      compile_seconds: of the compiler.
      bytes: on each device by the compiler's plan: state, batch and all that lives in between.
      sent: bytes that a device sends to others in a step.
    """

    trace_seconds: float
    compile_seconds: float
    bytes: int | None
    sent: float


class Stepper:
    """Model, optimizer, state and data of a run that is not kept."""

    def __init__(self, config: Config, material: Material, mesh: Mesh):
        """Builds them from the configuration as a new run does."""
        self.config, self.mesh = config, mesh
        self.model = Transformer(config.model, material.source_vocab, material.target_vocab)
        tx = make_optimizer(config.model, config.optim, config.run.num_steps)
        corpora, weights, augment = material.corpora, material.weights, material.augment
        self._batches = iter(training_batches(corpora, weights, config.data, config.row_length, augment))
        self._state = init_state(self.model, tx, config, mesh)
        self._train_step: Any = jit_steps(self.model, tx, config, mesh, self._state)[0]
        self._key = dropout_key(config.run)
        self.shapes: set[tuple[int, ...]] = set()

    def feed(self) -> Fed:
        """Returns the next batch."""
        start = time.perf_counter()
        batch, pairs = next(self._batches)
        wait = time.perf_counter() - start
        multiple = row_shards(self.mesh) * self.config.optim.accumulation_steps
        batch = pad_rows(batch, multiple)
        self.shapes.add(batch.tgt_BT.shape)
        return Fed(to_devices(batch, self.mesh), wait, len(pairs))

    def compile(self, batch: Batch) -> CompiledStep:
        """Compiles the step for batches of this shape; `step` uses what comes out."""
        began = time.perf_counter()
        lowered = self._train_step.lower(self._state, batch, self._key, None)
        traced = time.perf_counter()
        compiled = lowered.compile()
        done = time.perf_counter()
        plan = compiled.memory_analysis()
        needed = None
        if plan is not None:
            results = plan.output_size_in_bytes - plan.alias_size_in_bytes
            needed = plan.argument_size_in_bytes + results + plan.temp_size_in_bytes
        found = collectives(compiled.as_text() or "") if self.mesh.size > 1 else []
        return CompiledStep(traced - began, done - traced, needed, sum(c.sent for c in found))

    def step(self, batch: Batch) -> dict[str, jax.Array]:
        """Hands one step over to the devices; returns its metrics."""
        self._state, metrics = self._train_step(self._state, batch, self._key, None)
        return metrics

    def finish(self) -> None:
        """Waits until all steps are done."""
        jax.block_until_ready(self._state)

    def close(self) -> None:
        """Stops reading data."""
        self._batches.close()


def run_window(stepper: Stepper, steps: int, awaited: bool, tell: Callable[[int], None]) -> Window:
    """Does some steps and measures them.

    Args:
      stepper: what does them.
      steps: how many.
      awaited: wait for each before the next batch is asked for. Otherwise a step's metrics are
        read when the next one has been handed over, as in training.
      tell: is told the number of each step.
    """
    samples: list[Sample] = []
    pending: tuple[Fed, dict[str, jax.Array], float] | None = None
    stepper.finish()
    began, busy = time.perf_counter(), time.process_time()
    for number in range(1, steps + 1):
        fed = stepper.feed()
        start = time.perf_counter()
        metrics = stepper.step(fed.batch)
        if awaited:
            jax.block_until_ready(metrics)
            stepper.finish()
        seconds = time.perf_counter() - start
        if pending is not None:
            samples.append(_sample(*pending))
        pending = fed, metrics, seconds
        tell(number)
    if pending is not None:
        samples.append(_sample(*pending))
    stepper.finish()
    return Window(time.perf_counter() - began, time.process_time() - busy, samples)


def _sample(fed: Fed, metrics: dict[str, jax.Array], seconds: float) -> Sample:
    values = {name: x.item() for name, x in jax.device_get(metrics).items()}
    positions = int(np.prod(fed.batch.src_BS.shape)), int(np.prod(fed.batch.tgt_BT.shape))
    tokens = values["source_tokens"], values["target_tokens"]
    return Sample(seconds, fed.wait, fed.pairs, *tokens, positions, values["loss"])
