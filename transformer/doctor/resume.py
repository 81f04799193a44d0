"""`transformer doctor resume`: proves here and now that a stopped run goes on as if it never stopped."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from transformer.doctor.findings import Finding
from transformer.doctor.trial import Trial, environment_for, train_both, training_environment
from transformer.errors import ConfigError
from transformer.io.devices import parse_mesh


def resume(
    recipe: str, overrides: Sequence[str], steps: int, mesh: str | None, root: str | None
) -> Iterator[str]:
    """Trains with and without a stop, and compares.

    Args:
      recipe: file of the configuration.
      overrides: of the command line.
      steps: after which the run is stopped.
      mesh: ``DATAxFSDPxTENSOR`` to continue on; None: the same as before.
      root: folder to keep both runs in; None: a temporary one, removed afterwards.

    Yields:
      One line for each comparison, then ``exact: ...``.

    Raises:
      CheckpointError: with the first difference.
      UserError: as the training command ended.
    """
    if steps < 1:
        raise ConfigError(f"--steps {steps}: must be at least 1")
    with contextlib.ExitStack() as cleaning:
        folder = Path(root or cleaning.enter_context(tempfile.TemporaryDirectory(prefix="doctor-resume-")))
        trial = Trial(recipe, tuple(overrides), steps, parse_mesh(mesh), folder)
        trial.config()
        for run in (trial.whole, trial.stopped):
            if run.exists():
                raise ConfigError(f"--workdir: {run} is there already; remove it, or give another folder")
        environment = training_environment(folder)
        continuing = environment_for(trial.mesh, environment) if trial.mesh else environment
        stop, how = train_both(trial, environment, continuing)
        yield Finding("ok", "runs", f"of {2 * steps} steps each; the second {how}").line()
        from transformer.doctor.verdict import verdict  # JAX, which the training needed alone

        yield from verdict(trial, stop)
