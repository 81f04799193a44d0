"""Training: set-up, resume, loop.

Order: mesh -> data -> model and optimizer -> state (new or restored) -> loop. Whatever the user can
have got wrong is found before anything is compiled.
"""

import contextlib
import dataclasses
import math
import signal
import sys
import time
from typing import Any

import jax
from jax.sharding import Mesh

from transformer.config import Config
from transformer.data.batch import Batch, pad_rows
from transformer.data.pipeline import training_batches
from transformer.data.subwords import SubwordDropout
from transformer.errors import DivergedError, Interrupted, Preempted
from transformer.io.checkpoint import Checkpoints, is_better
from transformer.io.devices import make_mesh, row_shards, to_devices
from transformer.io.runlog import RunLog
from transformer.io.workdir import Workdir
from transformer.model.transformer import Transformer
from transformer.run.dev import evaluate_dev
from transformer.run.prepare import PreparedData, prepare_data
from transformer.run.signals import StopRequest
from transformer.steps.state import TrainState, init_state, state_shardings
from transformer.steps.train_step import jit_steps
from transformer.training.optimizer import make_optimizer


@dataclasses.dataclass
class Position:
    """What a run carries besides arrays; saved with every checkpoint as JSON.

    Attributes:
      metric: name of `run.best_metric`.
      step: finished optimizer steps.
      data: state of the training data's iterator; None at the start.
      best: best value of the metric before this step's own evaluation.
      stale: evaluations since then.
    """

    metric: str
    step: int = 0
    data: dict[str, Any] | None = None
    best: float | None = None
    stale: int = 0


def say(message: str) -> None:
    """Writes a line to standard error."""
    print(message, file=sys.stderr, flush=True)


def train(config: Config, root: str) -> None:
    """Trains, or continues to train, the run in folder `root`.

    Raises:
      UserError: of the kind and exit code that fit. After SIGTERM or Ctrl-C everything is saved
        first; it is then Preempted or Interrupted.
    """
    workdir = Workdir(root)
    for line in workdir.check_config(config):
        say(f"changed: {line}")
    with StopRequest() as stop:
        mesh = make_mesh(config.mesh)
        data = prepare_data(config, workdir, say)
        workdir.save_config(config)
        # On one device there is nothing to constrain.
        with jax.set_mesh(mesh) if mesh.size > 1 else contextlib.nullcontext():
            run = _Run(config, workdir, data, mesh, stop)
            try:
                run.loop()
            finally:
                run.close()


class _Run:
    """One process's share in a run: what `train` sets up and the loop uses."""

    def __init__(self, config: Config, workdir: Workdir, data: PreparedData, mesh: Mesh, stop: StopRequest):
        self.config, self.data, self.mesh, self.stop = config, data, mesh, stop
        tokenizer = data.tokenizer
        self.model = Transformer(config.model, tokenizer.source_vocab, tokenizer.target_vocab)
        self.tx = make_optimizer(config.model, config.optim, config.run.num_steps)
        self.checkpoints = Checkpoints(workdir.checkpoints, config.run)
        self.position = Position(config.run.best_metric)
        self.logged = 0
        row_length, rate = config.data.row_length or config.model.max_length, config.data.subword_dropout
        augment = SubwordDropout(tokenizer, rate, row_length) if rate else None
        self.batches = iter(training_batches(data.train, data.weights, config.data, row_length, augment))
        self.state = self._restored_or_new()
        self.train_step, self.eval_step = jit_steps(self.model, self.tx, config, mesh, self.state)
        self.dropout_key = jax.random.key(config.run.dropout_seed)
        run = config.run
        self.log = RunLog(workdir.root, run.num_steps, self.position.step, run.log_every)
        if not self.position.step:
            self.log.record("data", 0, data.counts)

    def _restored_or_new(self) -> TrainState:
        steps = self.checkpoints.steps()
        if not steps:
            return init_state(self.model, self.tx, self.config, self.mesh)
        shapes = jax.eval_shape(lambda: init_state(self.model, self.tx, self.config))
        like = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            shapes,
            state_shardings(shapes, self.mesh),
        )
        items, saved = self.checkpoints.restore(steps[-1], _items(like))
        position = Position(**saved)
        if position.metric != self.position.metric:  # values of two metrics do not compare
            position = Position(self.position.metric, position.step, position.data)
        self.position = position
        self.batches.set_state(position.data)
        say(f"continuing after step {self.position.step:,}")
        step = jax.device_put(jax.numpy.int32(self.position.step), like.step.sharding)
        return TrainState(step, items["params"], items["optimizer"], items.get("ema"))

    def loop(self) -> None:
        """Runs the remaining steps; logs one step late, so that the device never waits for the log.

        A state is saved before it is evaluated, so a stop in between loses nothing: the evaluation
        is the first thing that the next start does.
        """
        run, position = self.config.run, self.position
        if position.step:
            self._judge()
        if self._is_over():
            return
        pending: tuple[int, dict[str, Any], float] | None = None
        for step in range(position.step + 1, run.num_steps + 1):
            batch, data_wait = self._next_batch()
            with self.log.busy("compiling") if pending is None else contextlib.nullcontext():
                self.state, metrics = self.train_step(self.state, batch, self.dropout_key, None)
                if pending is None:
                    jax.block_until_ready(metrics)
            if pending is not None:
                self._log(*pending)
            pending = step, metrics, data_wait
            position.step = step
            if self._evaluation_is_due() or step % run.save_every == 0 or self.stop.signal:
                self._log(*pending)
                self._save()
                self._judge()
                if self._is_over():
                    return

    def _evaluation_is_due(self) -> bool:
        step, run = self.position.step, self.config.run
        return step % run.eval_every == 0 or step == run.num_steps

    def _next_batch(self) -> tuple[Batch, float]:
        start = time.monotonic()
        batch = next(self.batches).batch
        data_wait = time.monotonic() - start
        multiple = row_shards(self.mesh) * self.config.optim.accumulation_steps
        return to_devices(pad_rows(batch, multiple), self.mesh), data_wait

    def _log(self, step: int, metrics: dict[str, jax.Array], data_wait: float) -> None:
        if step <= self.logged:
            return
        self.logged = step
        values = {name: x.item() for name, x in jax.device_get(metrics).items()}
        # A gradient that is no number makes the parameters so, one step before the loss shows it.
        for name in ("loss", "gradient_norm"):
            if not math.isfinite(values[name]):
                raise DivergedError(
                    f"step {step}: the {name} is {values[name]}; lower config.optim.learning_rate, raise "
                    "warmup_steps or set clip_norm; the checkpoints of earlier steps are kept"
                )
        self.log.train(step, {**values, "data_wait": data_wait})

    def _judge(self) -> None:
        """Finds out whether the saved state is the best so far, if its evaluation is due or done."""
        position = self.position
        scores = self.checkpoints.metrics(position.step)
        if scores is None and self._evaluation_is_due() and not self.stop.signal:
            scores = self._evaluate()
        value = scores.get(position.metric) if scores else None
        if value is None:
            return
        if position.best is None or is_better(position.metric, value, position.best):
            position.best, position.stale = value, 0
        else:
            position.stale += 1

    def _evaluate(self) -> dict[str, float]:
        params = self.state.params if self.state.ema is None else self.state.ema
        with self.log.busy("evaluating"):
            scores = evaluate_dev(params, self.eval_step, self.model, self.data, self.config, self.mesh)
        if scores:
            # In this order: the line would be missing for good if the program ended in between.
            self.log.scores("dev", self.position.step, scores)
            self.checkpoints.add_metrics(self.position.step, scores)
        return scores

    def _save(self) -> None:
        self.position.data = self.batches.get_state()
        self.checkpoints.save(self.position.step, _items(self.state), dataclasses.asdict(self.position))

    def _is_over(self) -> bool:
        """Returns whether the run is finished; raises if a signal asked to stop."""
        run, position = self.config.run, self.position
        if self.stop.signal:
            self.checkpoints.wait()
            kind = Interrupted if self.stop.signal == signal.SIGINT else Preempted
            raise kind(
                f"stopped by {self.stop.signal.name} after step {position.step:,}; everything is "
                "saved, run the same command again to continue"
            )
        if run.patience and position.stale >= run.patience:
            self.log.note(
                f"finished early: {run.best_metric} has not improved on {position.best:.4g} "
                f"in {position.stale} evaluations; raise config.run.patience to train on"
            )
            return True
        if position.step >= run.num_steps:
            self.log.note(f"finished: {position.step:,} steps done; raise config.run.num_steps to train on")
            return True
        return False

    def close(self) -> None:
        self.batches.close()
        self.checkpoints.close()
        self.log.close()


def _items(state: TrainState) -> dict[str, Any]:
    """Returns the checkpoint items of a state."""
    items = {"params": state.params, "optimizer": state.opt_state}
    return items if state.ema is None else {**items, "ema": state.ema}
