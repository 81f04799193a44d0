"""The two runs of `doctor resume`; each part is a training command in a process of its own.

whole/      2K steps without a stop
stopped/    K steps, SIGTERM, and the rest in another process, on another mesh if one is given
"""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformer.config import Config
from transformer.doctor.children import cause, find_devices
from transformer.doctor.host import Devices
from transformer.errors import CheckpointError, ConfigError, DataError, DivergedError, Preempted, UserError
from transformer.io.checkpoint_folder import complete_steps, remove
from transformer.io.devices import mesh_overrides, simulated
from transformer.io.metrics_file import NAME, read_metrics
from transformer.io.progress import Progress, duration
from transformer.recipes import load_config

_TICK = 0.005  # seconds; a small model's steps take no longer
_PATIENCE = 600.0  # seconds from SIGTERM to the end of a process
_KINDS = (ConfigError, DataError, CheckpointError, DivergedError)


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is tried.

    Attributes:
      recipe: file of the configuration.
      overrides: of the command line.
      steps: K, after which the run is stopped; it has twice as many.
      mesh: sizes of the axes data, fsdp, tensor that it continues on; None: the same as before.
      folder: where both runs are kept.
    """

    recipe: str
    overrides: tuple[str, ...]
    steps: int
    mesh: tuple[int, int, int] | None
    folder: Path

    @property
    def whole(self) -> Path:
        """Folder of the run without a stop."""
        return self.folder / "whole"

    @property
    def stopped(self) -> Path:
        """Folder of the run with one."""
        return self.folder / "stopped"

    def settings(self) -> list[str]:
        """Returns the overrides of both runs: the user's, and those that make them short and talkative."""
        run = {
            "num_steps": 2 * self.steps,
            "save_every": self.steps,
            "log_every": 1,
            "eval_every": 1_000_000_000,
            "eval_lines": 0,
            "best_metric": "nll",
            "patience": 0,
            "keep_latest": 3,
        }
        return [*self.overrides, *(f"--config.run.{key}={value}" for key, value in run.items())]

    def mesh_settings(self) -> list[str]:
        """Returns the overrides of the run that continues."""
        return mesh_overrides(self.mesh) if self.mesh else []

    def config(self) -> Config:
        """Returns the configuration of both runs, checked."""
        return load_config(self.recipe, self.settings())


def training_environment(folder: Path) -> dict[str, str]:
    """Returns the children's environment: what one compiles serves the others."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str((folder / "compiled").absolute()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return {**cache, **os.environ}


def environment_for(mesh: tuple[int, int, int], environment: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment with as many devices as the mesh has; on CPU they are simulated.

    Raises:
      ConfigError: if there are too few, or all have to be used.
    """
    wanted = mesh[0] * mesh[1] * mesh[2]
    found = find_devices(environment)
    changed = dict(environment)
    if found.platform == "cpu":
        changed = simulated(wanted, environment)
    elif found.platform == "gpu" and wanted < found.count:
        visible = environment.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(found.count)))
        changed["CUDA_VISIBLE_DEVICES"] = ",".join(visible.split(",")[:wanted])
    elif wanted != found.count:
        raise ConfigError(_too_few("x".join(map(str, mesh)), wanted, found))
    return changed


def _too_few(mesh: str, wanted: int, found: Devices) -> str:
    if not found.platform:
        return f"--mesh {mesh}: JAX finds no devices; see transformer doctor"
    return (
        f"--mesh {mesh}: needs {wanted} devices, there are {found.count} ({found.platform}); choose another, "
        "or set JAX_PLATFORMS=cpu to try it on simulated ones"
    )


def train_both(
    trial: Trial, environment: Mapping[str, str], continuing: Mapping[str, str]
) -> tuple[int, str]:
    """Trains without and with a stop; returns the step of the stop, and how it came about.

    Args:
      trial: what is tried.
      environment: of the training processes.
      continuing: of the one that continues.

    Raises:
      UserError: as a training command ended.
    """
    settings, last = trial.settings(), 2 * trial.steps
    words = ["--config", trial.recipe, *settings]
    _train("1 of 3, without a stop", [*words, "--workdir", str(trial.whole)], environment, last)
    # Encoding the text again would only take time.
    trial.stopped.mkdir(parents=True)
    shutil.copytree(trial.whole / "tokenizer", trial.stopped / "tokenizer")
    (trial.stopped / "data").symlink_to(Path("..", trial.whole.name, "data"))
    words += ["--workdir", str(trial.stopped)]
    _train("2 of 3, with a stop", words, environment, last, stop_after=trial.steps)
    stop = complete_steps(trial.stopped / "checkpoints")[-1]
    how = f"was stopped by SIGTERM after step {stop}"
    if stop == last:  # a small model's last steps may take less time than the signal
        remove(trial.stopped / "checkpoints", last)
        stop = trial.steps
        how = f"was over before SIGTERM took effect: what it did after saving step {stop} was removed"
    if trial.mesh:
        how += f" and continued on mesh {'x'.join(map(str, trial.mesh))}"
    _train("3 of 3, continued", [*words, *trial.mesh_settings()], continuing, last)
    return stop, how


def _train(
    what: str, words: Sequence[str], environment: Mapping[str, str], last: int, stop_after: int | None = None
) -> None:
    """Runs a training command and shows how far it is, until it is done or has stopped when it was told to.

    Args:
      what: for the progress line.
      words: of the command, after `train`.
      environment: of the process.
      last: number of steps.
      stop_after: send SIGTERM when this step is done.

    Raises:
      UserError: if the command ends in any other way.
    """
    workdir = Path(words[words.index("--workdir") + 1])
    progress, began, told = Progress(), time.monotonic(), None
    with tempfile.TemporaryFile() as errors:
        command = [sys.executable, "-m", "transformer", "train", *words]
        child = subprocess.Popen(command, env=dict(environment), stdout=errors, stderr=errors)
        try:
            while child.poll() is None:
                step = _step(workdir)
                progress.show(f"{what}: step {step} of {last}, {duration(time.monotonic() - began)}")
                if stop_after is not None and step >= stop_after and told is None:
                    told = time.monotonic()
                    child.send_signal(signal.SIGTERM)
                if told is not None and time.monotonic() - told > _PATIENCE:
                    raise CheckpointError(f"{what}: no end within {_PATIENCE:.0f} s after SIGTERM")
                time.sleep(_TICK)
        finally:
            child.kill()
            child.wait()
            progress.close()
        errors.seek(0)
        text = errors.read().decode(errors="replace")
    code = child.returncode
    if code == 0 or (told is not None and code == Preempted.exit_code):
        progress.note(f"{what}: done, {duration(time.monotonic() - began)}")
        return
    kind = next((kind for kind in _KINDS if kind.exit_code == code), UserError)
    raise kind(f"{what}: {cause(text) or f'the process ended with code {code}'}")


def _step(workdir: Path) -> int:
    """Returns the last step that the run in a folder has written down."""
    if not (workdir / NAME).exists():
        return 0
    with contextlib.suppress(OSError):  # it is replaced while a run begins
        return max((line["step"] for line in read_metrics(workdir)), default=0)
    return 0
