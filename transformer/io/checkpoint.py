"""Checkpoints on Orbax: written in the background, whole or not at all, checked before they are used."""

import contextlib
import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from transformer.config import RunConfig
from transformer.errors import CheckpointError
from transformer.io import checkpoint_folder as files
from transformer.io.agreement import everywhere, of_first
from transformer.io.digests import find_damage, write_digests
from transformer.io.host_copies import HostCopies
from transformer.io.mismatch import find_mismatch
from transformer.io.ranking import Metrics, ranked
from transformer.io.save_failures import SaveFailures, in_one_line
from transformer.io.standard_error import say

_ARRAYS = ("params", "optimizer", "ema")
_FILE_BYTES = 32_000_000  # of a data file: their digests are taken side by side
_TIMEOUT = 600  # seconds that the processes of a run wait for each other's parts


class Checkpoints:
    """The checkpoints of one run.

    Each holds the items `params`, `optimizer`, `ema` (if the run has one) and `position`: the
    data iterator's state and what else is not an array. Dev scores join it when they are known.

    With several processes all of them call every method alike; the first one decides, and writes
    what is not an array.
    """

    def __init__(self, folder: Path, run: RunConfig | None = None, note: Callable[[str], None] = say):
        """Opens `folder`.

        Args:
          folder: of the checkpoints.
          run: what is kept; None: for reading only.
          note: takes a line for the user; called from another thread too.

        Raises:
          CheckpointError: if it cannot be made.
        """
        self._folder, self._run, self._note = folder.absolute(), run, note
        self._first = jax.process_index() == 0
        self._orbax = _checkpointer()
        self._copies = HostCopies()
        self._worker = ThreadPoolExecutor(1, "checkpoint")
        self._saving: tuple[int, Future[str | None]] | None = None
        self._failures = SaveFailures(self._folder, note)
        if run is not None and self._first:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise CheckpointError(f"{folder}: cannot be made: {error.strerror}") from None
            files.sweep(self._folder)

    def steps(self) -> list[int]:
        """Returns the steps that have a complete checkpoint, in order."""
        return files.complete_steps(self._folder)

    def is_saved(self, step: int) -> bool:
        """Returns whether the checkpoint of `step` is complete by now."""
        return (self._folder / str(step)).exists()

    def save(self, step: int, items: dict[str, Any], position: dict[str, Any]) -> None:
        """Begins to save; returns as soon as the arrays may change again.

        What goes wrong on the disk is a line for the user, and the next save tries again.

        Args:
          step: finished optimizer steps; an earlier checkpoint of that step is replaced.
          items: pytrees of arrays by name.
          position: JSON values.

        Raises:
          CheckpointError: if three saves in a row failed.
        """
        self.wait()
        reason = self._obstacle(items)
        if not everywhere(reason is None):
            if reason is not None:
                self._failures.warn(step, reason)
            self._failures.add(step, reason or "the first process cannot write")
            return
        args: dict[str, Any] = {"position": ocp.args.JsonSave(position)}
        single = jax.process_count() == 1
        for name, tree in (self._copies.take(items) if single else items).items():
            args[name] = ocp.args.PyTreeSave(tree, ocdbt_target_data_file_size=_FILE_BYTES)
        staging = files.staging(self._folder, step)
        begin = functools.partial(self._orbax.save, staging, args=ocp.args.Composite(**args))
        # With several processes Orbax copies the arrays itself, and its barriers need the main thread.
        self._saving = step, self._worker.submit(self._complete, step, begin if single else _begun(begin))

    def wait(self) -> bool:
        """Waits for the save that was begun.

        Returns:
          Whether the state that was handed over last is on the disk.

        Raises:
          CheckpointError: if three saves in a row failed.
        """
        if self._saving is not None:
            step, future = self._saving
            self._saving = None
            reason = future.result()
            if everywhere(reason is None):
                self._failures.clear()
            else:
                self._failures.add(step, reason or "another process could not write its part")
        return not self._failures

    def add_metrics(self, step: int, metrics: Metrics) -> None:
        """Attaches dev scores to a saved checkpoint; the best ones outlive later saves.

        If that is impossible it is a line for the user: a run that continues there evaluates again.
        """
        self.wait()
        if self._first and self.is_saved(step):
            try:
                files.write_metrics(self._folder, step, metrics)
            except (OSError, ValueError) as error:
                self._note(
                    f"warning: the scores of step {step} could not be kept with it: {in_one_line(error)}"
                )
        everywhere(True)  # from here on every process sees them

    def restore_newest(
        self, like: dict[str, Any], strict: bool = False
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Reads the newest checkpoint whose files are all as they were written.

        Damaged ones that are newer get out of the way under the name `<step>.damaged`, with a line for
        the user.

        Args:
          like: as for `restore`.
          strict: refuse instead.

        Returns:
          (the items named in `like`, the position); None if there is no checkpoint at all.

        Raises:
          CheckpointError: if every checkpoint is damaged; if `strict` and the newest is; or if its arrays
            have other names, shapes or dtypes.
        """
        self.wait()
        if self._run is not None and jax.process_count() == 1:
            self._copies.reserve(like)  # what is restored will be saved
        step: int | None = None
        fault = None
        if self._first:
            try:
                step = files.use_newest(self._folder, strict, self._run is not None, self._note)
            except CheckpointError as error:
                fault = error
        code = of_first(-2 if fault else -1 if step is None else step)
        if code == -2:
            raise fault or CheckpointError(f"{self._folder}: the first process found no checkpoint to use")
        return None if code == -1 else self._read(code, like)

    def restore(self, step: int, like: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reads a checkpoint.

        Args:
          step: one of `steps()`.
          like: by name, pytrees of jax.ShapeDtypeStruct with shardings, or of arrays.

        Returns:
          (the items named in `like`, the position).

        Raises:
          CheckpointError: if the files of these items are damaged, or their arrays have other names,
            shapes or dtypes.
        """
        if damage := find_damage(self._folder / str(step), [*like, "position"]):
            raise files.unusable(self._folder, step, damage)
        return self._read(step, like)

    def _read(self, step: int, like: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        args: dict[str, Any] = {"position": ocp.args.JsonRestore()}
        for name, tree in like.items():
            args[name] = ocp.args.PyTreeRestore(tree, ocp.checkpoint_utils.construct_restore_args(tree))
        try:
            self._check_arrays(step, like)
            found = self._orbax.restore(self._folder / str(step), args=ocp.args.Composite(**args))
        except CheckpointError:
            raise
        except Exception as error:  # Orbax raises many kinds
            raise files.unusable(self._folder, step, in_one_line(error)) from None
        return {name: found[name] for name in like}, found["position"]

    def _check_arrays(self, step: int, like: dict[str, Any]) -> None:
        """Refuses what Orbax would cast or leave out without a word."""
        where = self._folder / str(step)
        for name, tree in like.items():
            if not (where / name).exists():
                raise CheckpointError(f"{where}: has no item '{name}'")
            if mismatch := find_mismatch(_array_handler().metadata(where / name).tree, tree):
                raise CheckpointError(f"{where}: {name}: {mismatch}")

    def metrics(self, step: int) -> Metrics | None:
        """Returns the dev scores of a checkpoint, if it was evaluated and they are not damaged."""
        return files.read_metrics(self._folder, step)

    def close(self) -> None:
        """Completes the save that was begun and lets go of the folder.

        Raises:
          CheckpointError: if the state that was handed over last is not on the disk.
        """
        try:
            self.wait()
        finally:
            self._worker.shutdown()
            self._orbax.close()
        self._failures.close()

    def _obstacle(self, items: dict[str, Any]) -> str | None:
        """Returns what a save would run into, as far as the first process can tell beforehand."""
        if not self._first:
            return None
        files.sweep(self._folder)
        return files.obstacle(self._folder, sum(x.nbytes for x in jax.tree.leaves(items)))

    def _complete(self, step: int, begin: Callable[[], None]) -> str | None:
        """Writes a checkpoint and gives it its name, in the background; returns why it failed, if it did."""
        try:
            begin()
            self._orbax.wait_until_finished()
            if self._first:
                write_digests(files.staging(self._folder, step))
                files.publish(self._folder, step)
        except Exception as error:  # Orbax and TensorStore raise many kinds for one full disk
            with contextlib.suppress(Exception):  # it remembers some errors and would raise them again
                self._orbax.close()
            self._orbax = _checkpointer()
            if self._first:
                files.sweep(self._folder)
            reason = in_one_line(error)
            self._failures.warn(step, reason)
            return reason
        if self._first:
            self._prune()
        return None

    def _prune(self) -> None:
        """Removes the checkpoints that are neither among the latest nor among the best."""
        assert self._run is not None
        steps, best = self.steps(), ranked(files.scored_steps(self._folder), self._run.best_metric)
        kept = {*steps[-self._run.keep_latest :], *best[: self._run.keep_best]}
        for step in (s for s in steps if s not in kept):
            try:
                files.remove(self._folder, step)
            except OSError as error:
                self._note(f"warning: the old checkpoint {step} could not be removed: {in_one_line(error)}")


def _array_handler() -> ocp.PyTreeCheckpointHandler:
    # The copies are ours and nobody changes them: Orbax need not copy again. Weights do not compress.
    as_it_is = ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, as_it_is), (jax.Array, ocp.type_handlers.ArrayHandler())
    )
    return ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=registry)


def _checkpointer() -> ocp.AsyncCheckpointer:
    options = ocp.options.AsyncOptions(timeout_secs=_TIMEOUT, create_directories_asynchronously=False)
    composite = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(async_options=options),
        position=ocp.JsonCheckpointHandler(),
        **{name: _array_handler() for name in _ARRAYS},
    )
    return ocp.AsyncCheckpointer(composite, async_options=options)


def _begun(begin: Callable[[], None]) -> Callable[[], None]:
    """Calls `begin` now; the function that is returned raises what it raised."""
    outcome: Future[None] = Future()
    try:
        begin()
        outcome.set_result(None)
    except Exception as error:
        outcome.set_exception(error)
    return outcome.result
