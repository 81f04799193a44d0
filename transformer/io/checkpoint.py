"""Checkpoints on Orbax: asynchronous, atomic, the latest and the best kept."""

import math
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from transformer.config import RunConfig
from transformer.errors import CheckpointError, did_you_mean
from transformer.io.digests import find_damage, write_digests
from transformer.io.workdir import write_json

Metrics = dict[str, float]

_ARRAYS = ("params", "optimizer", "ema")


class Checkpoints:
    """The checkpoints of one run.

    Each holds the items `params`, `optimizer`, `ema` (if the run has one) and `position`: the
    data iterator's state and what else is not an array. Dev scores join it when they are known.
    """

    def __init__(self, folder: Path, run: RunConfig | None = None):
        """Opens `folder`; without `run` for reading only."""
        self._folder = folder.absolute()
        self._begun: int | None = None  # the step whose save may still go on
        options = ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0)
        if run is not None:
            policies: list[Any] = [checkpoint_managers.LatestN(run.keep_latest)]
            if run.keep_best:
                lower = lower_is_better(run.best_metric)
                worst = math.inf if lower else -math.inf
                policies.append(
                    checkpoint_managers.BestN(
                        get_metric_fn=lambda metrics: metrics.get(run.best_metric, worst),
                        reverse=lower,
                        n=run.keep_best,
                        keep_checkpoints_without_metrics=False,
                    )
                )
            options = ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
                cleanup_tmp_directories=True,
            )
        handlers: dict[str, Any] = {name: ocp.StandardCheckpointHandler() for name in _ARRAYS}
        handlers["position"] = ocp.JsonCheckpointHandler()
        self._manager = ocp.CheckpointManager(self._folder, options=options, item_handlers=handlers)

    def steps(self) -> list[int]:
        """Returns the steps that have a complete checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, items: dict[str, Any], position: dict[str, Any]) -> None:
        """Begins to save; returns as soon as the arrays may change again.

        Args:
          step: finished optimizer steps; must not be saved already.
          items: pytrees of arrays by name.
          position: JSON values.
        """
        self.wait()
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        args["position"] = ocp.args.JsonSave(position)
        self._manager.save(step, args=ocp.args.Composite(**args), force=True)
        self._begun = step

    def add_metrics(self, step: int, metrics: Metrics) -> None:
        """Attaches dev scores to a saved checkpoint; the best ones outlive later saves."""
        self.wait()
        # Where and how Orbax keeps them; it writes them together with the arrays only.
        write_json(self._folder / str(step) / "metrics" / "metrics", metrics)
        self._manager.reload()

    def restore(self, step: int, like: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Reads a checkpoint.

        Args:
          step: one of `steps()`.
          like: by name, pytrees of jax.ShapeDtypeStruct with shardings, or of arrays.

        Returns:
          (the items named in `like`, the position).

        Raises:
          CheckpointError: if it is damaged, or its arrays have other names, shapes or dtypes.
        """
        args: dict[str, Any] = {name: ocp.args.StandardRestore(tree) for name, tree in like.items()}
        args["position"] = ocp.args.JsonRestore()
        try:
            if damage := find_damage(self._folder / str(step), args):
                raise self._unusable(step, damage)
            self._check_dtypes(step, like)
            found = self._manager.restore(step, args=ocp.args.Composite(**args))
        except CheckpointError:
            raise
        except Exception as error:  # Orbax raises many kinds for damaged files
            reason = " ".join(str(error).split())[:300]
            raise self._unusable(step, f"{type(error).__name__}: {reason}") from None
        return {name: found[name] for name in like}, found["position"]

    def _unusable(self, step: int, reason: str) -> CheckpointError:
        others = [s for s in self.steps() if s != step]
        return CheckpointError(
            f"{self._folder / str(step)}: cannot be restored ({reason}); "
            f"move it away to continue from {others[-1] if others else 'the start'}"
        )

    def _check_dtypes(self, step: int, like: dict[str, Any]) -> None:
        """Refuses what Orbax would cast without a word."""
        for name, tree in like.items():
            saved = self._manager.item_metadata(step).get(name)
            if saved is None:
                raise CheckpointError(f"{self._folder / str(step)}: has no item '{name}'")
            dtypes = {_path(p): m.dtype for p, m in jax.tree_util.tree_leaves_with_path(saved.tree)}
            for path, x in jax.tree_util.tree_leaves_with_path(tree):
                if (was := dtypes.get(_path(path), x.dtype)) != x.dtype:
                    raise CheckpointError(
                        f"{self._folder / str(step)}: {name}/{_path(path)} is {was}, expected {x.dtype}"
                    )

    def metrics(self, step: int) -> Metrics | None:
        """Returns the dev scores of a checkpoint, if it was evaluated."""
        found = self._manager.metrics(step)
        return dict(found) if found else None

    def best(self, metric: str, count: int) -> list[int]:
        """Returns at most `count` evaluated steps, the best first.

        Raises:
          CheckpointError: if no checkpoint has this metric.
        """
        scored = {s: m for s in self.steps() if (m := self.metrics(s)) is not None}
        sign = 1 if lower_is_better(metric) else -1
        # Of equals the newest, as Orbax's policy has it.
        ranked = sorted(
            (s for s in scored if metric in scored[s]), key=lambda s: (sign * scored[s][metric], -s)
        )
        if not ranked:
            names = {name for m in scored.values() for name in m}
            raise CheckpointError(
                f"{self._folder}: no checkpoint has '{metric}'{did_you_mean(metric, names)}"
            )
        return ranked[:count]

    def wait(self) -> None:
        """Returns when every save that was begun is complete."""
        self._manager.wait_until_finished()
        if self._begun is not None:
            write_digests(self._folder / str(self._begun))
            self._begun = None

    def close(self) -> None:
        """Completes all saves and lets go of the folder."""
        self.wait()
        self._manager.close()


def lower_is_better(metric: str) -> bool:
    """Returns whether a smaller value of a dev metric is the better one."""
    return metric == "nll"


def is_better(metric: str, value: float, than: float) -> bool:
    """Returns whether one value of a dev metric is truly better than another."""
    return value < than if lower_is_better(metric) else value > than


def _path(path: tuple[Any, ...]) -> str:
    return "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)
