"""The training loop: steps, saves, evaluations, and the ways back from faults."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from transformer.config import Config
from transformer.data.augmentation import augmentation
from transformer.data.batch import pad_rows
from transformer.data.pipeline import TrainingBatch, training_batches
from transformer.errors import ConfigError, DataError, DivergedError
from transformer.io.checkpoint import Checkpoints
from transformer.io.checkpoint_folder import check_space
from transformer.io.devices import make_votes, row_shards, to_devices
from transformer.io.goodput import LOST, TRAINING, Goodput
from transformer.io.ranking import is_better
from transformer.io.runlog import RunLog, SilentLog
from transformer.io.workdir import Workdir
from transformer.model.transformer import Transformer
from transformer.paths import nested
from transformer.run.dev import evaluate_dev
from transformer.run.health import Health
from transformer.run.initial import Given, check_origin, initial_parameters
from transformer.run.prepare import PreparedData
from transformer.run.signals import StopRequest
from transformer.steps.replicas import find_drift
from transformer.steps.state import TrainState, all_finite, init_state, model_params, state_like
from transformer.steps.train_step import dropout_key, jit_steps
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
      rollbacks: how often the run went back to an earlier checkpoint.
      health: what `Health` has seen.
    """

    metric: str
    step: int = 0
    data: dict[str, Any] | None = None
    best: float | None = None
    stale: int = 0
    rollbacks: int = 0
    health: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class _Pending:
    """A step whose metrics are still on the devices: they are read while the next step runs."""

    step: int
    metrics: dict[str, jax.Array]
    data_wait: float
    pairs: np.ndarray
    timed: bool  # false: it was compiled, too


class Run:
    """One process's share in a run: what `train` sets up and the loop uses."""

    def __init__(
        self,
        config: Config,
        workdir: Workdir,
        data: PreparedData,
        mesh: Mesh,
        stop: StopRequest,
        goodput: Goodput,
        note: Callable[[str], None],
        strict_restore: bool,
    ):
        """Builds model, optimizer and data iterator; restores the newest sound checkpoint, or begins anew."""
        self.config, self.data, self.mesh, self.stop, self.goodput = config, data, mesh, stop, goodput
        self.strict, self.workdir, self.note = strict_restore, workdir, note
        tokenizer, run = data.tokenizer, config.run
        self.model = Transformer(
            config.model, tokenizer.source_vocab, tokenizer.target_vocab, tokenizer.special.start
        )
        self.tx = make_optimizer(config.model, config.optim, run.num_steps)
        self.checkpoints = Checkpoints(workdir.checkpoints, run, note)
        self.health = Health(run)
        augment = augmentation(config, tokenizer)
        self.batches = iter(
            training_batches(data.train, data.weights, config.data, config.row_length, augment)
        )
        self.base: dict[str, Any] = {}
        self.state, self.position = self._restored_or_new()
        if self.position.step:
            check_origin(config, workdir)
        if self.position.data is not None:
            self.batches.set_state(self.position.data)
            note(f"continuing after step {self.position.step:,}")
        self.train_step, self.eval_step = jit_steps(self.model, self.tx, config, mesh, self.state)
        self.dropout_key = dropout_key(run)
        self.health.resume(self.position.rollbacks, self.position.health)
        self.pending: _Pending | None = None
        self.shapes: set[tuple[int, ...]] = set()  # of batches, compiled so far
        self.agreed_to_stop = False
        if jax.process_index() == 0:
            self.log = RunLog(workdir.root, run.num_steps, self.position.step, run.log_every, goodput)
        else:
            self.log = SilentLog(goodput)
        if not self.position.step:
            self.log.record("data", 0, data.counts)
            if self.base:
                self.log.record("init", 0, self.base)

    def _restored_or_new(self) -> tuple[TrainState, Position]:
        """Returns the newest sound checkpoint, or step 0."""
        new = Position(self.config.run.best_metric)
        like, run = state_like(self.model, self.tx, self.config, self.mesh), self.config.run
        if jax.process_index() == 0:
            size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(like.items()))
            check_space(self.workdir.checkpoints, size, run.keep_latest + run.keep_best)
        with self.goodput.spent("restoring"):
            found = self.checkpoints.restore_newest(like.items(), strict=self.strict)
        base = Given({}, {})
        if self.config.init.model and (found is None or like.fixed):
            pieces = self.data.tokenizer
            base, self.base = initial_parameters(self.config, self.workdir, pieces, like, self.note)
        if found is None:
            return init_state(self.model, self.tx, self.config, self.mesh, *base), new
        items, position = found[0], Position(**found[1])
        if position.metric != new.metric:  # values of two metrics do not compare
            position = dataclasses.replace(position, metric=new.metric, best=None, stale=0)
        step = jax.device_put(jnp.int32(position.step), like.step.sharding)
        fixed = nested(base.params) if like.fixed else None
        return TrainState(step, items["params"], items["optimizer"], items.get("ema"), fixed), position

    def loop(self) -> None:
        """Runs the remaining steps.

        A state is saved before it is evaluated, so a stop in between loses nothing: the evaluation
        is the first thing that the next start does.
        """
        if self.position.step:
            self._judge()
        while not self._is_over():
            again = self.position.step < self.log.reached  # done before, and lost by a fault
            with self.goodput.spent(LOST if again else TRAINING):
                self._advance()

    def _advance(self) -> None:
        """Does one step, and what is due after it."""
        found, data_wait = self._next_batch()
        votes_N = make_votes(bool(self.stop.signal), self.mesh)
        new_shape = found.batch.tgt_BT.shape not in self.shapes
        with self._compiling(found.batch.tgt_BT.shape) if new_shape else contextlib.nullcontext():
            self.state, metrics = self.train_step(self.state, found.batch, self.dropout_key, votes_N)
            if new_shape:
                jax.block_until_ready(metrics)
        if not self._settle():
            return  # this step began from what has just been given up
        self.position.step += 1
        self.pending = _Pending(self.position.step, metrics, data_wait, found.pairs, not new_shape)
        self._check_replicas()
        if self._saving_is_due() and self._settle() and self._is_finite():
            self._save()
            self._judge()

    @contextlib.contextmanager
    def _compiling(self, shape: tuple[int, ...]) -> Iterator[None]:
        jax.block_until_ready(self.state.step)  # the steps before are training
        first = not self.shapes
        self.shapes.add(shape)
        if len(self.shapes) > (most := self.config.run.max_compilations):
            raise ConfigError(
                f"step {self.position.step + 1:,}: a batch of {shape[0]} x {shape[1]} positions is one "
                f"shape more than the {most} of config.run.max_compilations, and each is compiled; name "
                "fewer lengths in config.data.buckets, set config.data.packing=true, or raise the limit"
            )
        # At the first step nothing has been done that is not saved.
        with self.log.busy("compiling"), self.stop.at_once() if first else contextlib.nullcontext():
            yield

    def _next_batch(self) -> tuple[TrainingBatch, float]:
        with self.goodput.spent("waiting for data"):
            start = time.monotonic()
            try:
                found = next(self.batches)
            except DataError:
                self._save_before_the_end()
                raise
            wait = time.monotonic() - start
        multiple = row_shards(self.mesh) * self.config.optim.accumulation_steps
        return found._replace(batch=to_devices(pad_rows(found.batch, multiple), self.mesh)), wait

    def _save_before_the_end(self) -> None:
        """Saves what is done when the data fails; several processes cannot agree on it any more."""
        if jax.process_count() == 1 and self._settle() and self._is_finite():
            self.checkpoints.wait()
            if self.position.step and not self.checkpoints.is_saved(self.position.step):
                self._save()

    def _settle(self) -> bool:
        """Reads the metrics of the pending step; returns False if the run had to go back because of them."""
        if self.pending is None:
            return True
        pending, self.pending = self.pending, None
        values = {name: x.item() for name, x in jax.device_get(pending.metrics).items()}
        self.agreed_to_stop |= bool(values.pop("votes", 0))
        skipped = bool(values["skipped"])
        why = self.health.observe(values["loss"], skipped)
        if skipped:
            self._tell_skipped(pending, values)
        self.log.train(pending.step, {**values, "data_wait": pending.data_wait}, pending.timed)
        if why:
            self._go_back(why)
            return False
        return True

    def _tell_skipped(self, pending: _Pending, values: dict[str, float]) -> None:
        names = list(self.data.counts)
        pairs = [f"{names[corpus]} {number}" for corpus, number in pending.pairs.tolist()]
        self.log.record("skipped", pending.step, {"pairs": pairs, **values})
        self.log.note(
            f"step {pending.step:,}: loss {values['loss']}, gradient norm {values['gradient_norm']}: update "
            f"skipped ({self.health.skipped:,} since the start); its {len(pairs):,} pairs are listed in "
            f"metrics.jsonl, the first is {pairs[0]}"
        )

    def _is_finite(self) -> bool:
        """Returns whether the parameters may be saved; if they are no numbers, the run goes back."""
        if all_finite(self.state.params):
            return True
        self._go_back("a parameter is not finite")
        return False

    def _go_back(self, why: str) -> None:
        """Restores the newest sound checkpoint; the data goes on after the batches that led astray."""
        step = self.position.step
        self.health.go_back(step, why)
        self.checkpoints.wait()
        self.state, restored = self._restored_or_new()
        self.position = dataclasses.replace(restored, rollbacks=self.health.rollbacks)
        self.log.go_back(restored.step, step)
        self.log.note(
            f"step {step:,}: {why}; back to step {restored.step:,}, past the batches since "
            f"(return {self.health.rollbacks} of {self.config.run.max_rollbacks})"
        )
        if restored.step:
            self._judge()

    def _check_replicas(self) -> None:
        """Ends the run if devices differ: now and then, and before what one of them has is saved."""
        every = self.config.run.replica_check_every
        due = every and (self.position.step % every == 0 or self._saving_is_due())
        if self.mesh.size == 1 or not due:
            return
        if (drift := find_drift(self.state.params, self.mesh)) is not None:
            others = "the other devices"
            if drift.rival:
                others = "process {}, device {}, and nobody knows which is right".format(*drift.rival)
            raise DivergedError(
                f"step {self.position.step:,}: process {drift.process}, device {drift.device}: {drift.path} "
                f"has other bits than on {others}; check the machine, then run the same command again: it "
                "continues from the last checkpoint"
            )

    def _evaluation_is_due(self) -> bool:
        step, run = self.position.step, self.config.run
        return step % run.eval_every == 0 or step == run.num_steps

    def _saving_is_due(self) -> bool:
        on_time = self.position.step % self.config.run.save_every == 0
        return on_time or self._evaluation_is_due() or self._stops()

    def _stops(self) -> bool:
        """Returns whether a signal asks to stop: one that all processes know of."""
        return bool(self.stop.signal) if jax.process_count() == 1 else self.agreed_to_stop

    def _save(self) -> None:
        self.position.data, self.position.health = self.batches.get_state(), self.health.state()
        with self.goodput.spent("saving"):
            self.checkpoints.save(self.position.step, self.state.items(), dataclasses.asdict(self.position))

    def _judge(self) -> None:
        """Finds out whether the saved state is the best so far, if its evaluation is due or done."""
        position = self.position
        scores = self.checkpoints.metrics(position.step)
        if scores is None and self._evaluation_is_due() and not self._stops():
            scores = self._evaluate()
        value = scores.get(position.metric) if scores else None
        if value is None:
            return
        if position.best is None or is_better(position.metric, value, position.best):
            position.best, position.stale = value, 0
        else:
            position.stale += 1

    def _evaluate(self) -> dict[str, float]:
        if jax.process_count() > 1:  # where a stop ends all of them at once, the save has to be over
            with self.goodput.spent("saving"):
                self.checkpoints.wait()
        params = self.state.params if self.state.ema is None else self.state.ema
        if self.state.fixed is not None:
            params = jax.jit(model_params, static_argnums=2)(params, self.state.fixed, self.config.lora)
        with self.log.busy("evaluating"), self.stop.at_once():  # the state is saved
            scores = evaluate_dev(params, self.eval_step, self.model, self.data, self.config, self.mesh)
        if scores:
            # In this order: the line would be missing for good if the program ended in between.
            self.log.scores("dev", self.position.step, scores)
            self.checkpoints.add_metrics(self.position.step, scores)
        return scores

    def _is_over(self) -> bool:
        """Returns whether the run is finished; raises if a signal asked to stop.

        A signal that came after `_saving_is_due` was asked has to wait for the next step, which is saved:
        only when nothing is pending is everything on disk.
        """
        run, position = self.config.run, self.position
        if self.pending is None and self._stops():
            self.checkpoints.wait()
            raise self.stop.error(f"after step {position.step:,}")
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
        """Completes all saves, and says where the time went."""
        self.batches.close()
        try:
            with self.goodput.spent("saving"):
                self.checkpoints.close()
        finally:
            self.log.note(self.goodput.line())
            self.log.close()
