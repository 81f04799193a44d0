"""The folder of a run's checkpoints: what each name in it means, and how names change.

120/            complete: it got this name when everything in it, digests too, was on the disk
120.saving/     being written (Orbax adds an ending of its own while it writes)
120.deleting/   being removed
120.damaged/    set aside for the user to look at; never counted, never removed
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from transformer.errors import CheckpointError, did_you_mean
from transformer.io.digests import add_digest, find_damage
from transformer.io.ranking import Metrics, ranked
from transformer.io.workdir import Workdir, write_json

_METRICS = "metrics/metrics"
# The last kind was left behind before there was `.saving`.
_LEFTOVER = re.compile(r"\d+\.(saving|deleting)(\..*)?|\d+\.orbax-checkpoint-tmp.*")


def complete_steps(folder: Path) -> list[int]:
    """Returns the steps that have a complete checkpoint, in order."""
    return sorted(int(name) for name in _names(folder) if name.isdecimal())


def check_run(workdir: Workdir) -> None:
    """Refuses the folder of a model that no run can go on with: an average, an import or an export.

    Raises:
      CheckpointError: if it is one.
    """
    states = [workdir.checkpoints / str(step) for step in complete_steps(workdir.checkpoints)]
    bare = states and not any((state / "optimizer").exists() for state in states)
    if workdir.weights.exists() or bare:
        raise CheckpointError(
            f"{workdir.root}: holds a model and no run; to begin with it choose another --workdir, and "
            f"--config.init.model={workdir.root}"
        )


def staging(folder: Path, step: int) -> Path:
    """Returns where the checkpoint of `step` is written before it is complete."""
    return folder / f"{step}.saving"


def publish(folder: Path, step: int) -> None:
    """Makes what was staged the checkpoint of `step`, in place of an earlier one of that step."""
    if (folder / str(step)).exists():
        remove(folder, step)
    staging(folder, step).rename(folder / str(step))
    _sync(folder)


def remove(folder: Path, step: int) -> None:
    """Removes a checkpoint; if the process is killed meanwhile, no half of it is taken for a whole."""
    doomed = folder / f"{step}.deleting"
    (folder / str(step)).rename(doomed)
    shutil.rmtree(doomed)


def set_aside(folder: Path, step: int) -> Path:
    """Renames a damaged checkpoint so that its step can be saved again; returns its new path."""
    names = [f"{step}.damaged", *(f"{step}.damaged-{n}" for n in range(2, 1000))]
    aside = next(folder / name for name in names if not (folder / name).exists())
    (folder / str(step)).rename(aside)
    _sync(folder)
    return aside


def sweep(folder: Path) -> None:
    """Removes what a save or removal that was interrupted left behind, as far as that is possible."""
    for name in _names(folder):
        if _LEFTOVER.fullmatch(name):
            shutil.rmtree(folder / name, ignore_errors=True)


def newest_sound(folder: Path) -> tuple[int | None, dict[int, str]]:
    """Looks for the newest checkpoint whose files are all as they were written.

    Returns:
      (its step, or None; what is wrong with each newer one, the newest first).

    Raises:
      CheckpointError: if there is none, but were some.
    """
    damages: dict[int, str] = {}
    for step in reversed(complete_steps(folder)):
        if (damage := find_damage(folder / str(step))) is None:
            return step, damages
        damages[step] = damage
    aside = sorted(name for name in _names(folder) if ".damaged" in name)
    if damages or aside:
        why = "; ".join(f"{step}: {damage}" for step, damage in damages.items()) or ", ".join(aside)
        raise CheckpointError(
            f"{folder}: every checkpoint is damaged ({why}); "
            "put back a copy, or remove this folder to start from step 0"
        )
    return None, {}


def use_newest(folder: Path, strict: bool, rename: bool, note: Callable[[str], None]) -> int | None:
    """Returns the step of the newest sound checkpoint, after getting damaged ones out of its way.

    Args:
      folder: of the checkpoints.
      strict: refuse if there are any.
      rename: set them aside, so that their steps can be saved again.
      note: takes a line about each.

    Raises:
      CheckpointError: see `newest_sound`, or because of `strict`.
    """
    sound, damages = newest_sound(folder)
    for step, damage in damages.items():
        where, kept = folder / str(step), ""
        if strict:
            raise CheckpointError(f"{where}: {damage}; without --strict_restore {sound} is used instead")
        if rename:
            try:
                kept = f", kept as {set_aside(folder, step).name}"
            except OSError as error:
                kept = f", cannot be renamed ({error.strerror})"
        note(f"warning: {where} is damaged{kept}: {damage}; using {sound} instead")
    return sound


def unusable(folder: Path, step: int, reason: str) -> CheckpointError:
    """Returns the error of a checkpoint that cannot be read, with what there is instead."""
    others = [s for s in complete_steps(folder) if s != step]
    return CheckpointError(
        f"{folder / str(step)}: cannot be restored ({reason}); "
        f"move it away to continue from {others[-1] if others else 'the start'}"
    )


def scored_steps(folder: Path) -> dict[int, Metrics]:
    """Returns the dev scores of each checkpoint that has been evaluated."""
    return {step: m for step in complete_steps(folder) if (m := read_metrics(folder, step)) is not None}


def best_steps(folder: Path, metric: str, count: int) -> list[int]:
    """Returns at most `count` evaluated steps, the best first.

    Raises:
      CheckpointError: if no checkpoint has this metric, or a number for it.
    """
    scored = scored_steps(folder)
    if not (best := ranked(scored, metric)):
        names = {name for m in scored.values() for name in m}
        if metric in names:
            raise CheckpointError(
                f"{folder}: '{metric}' is no number in any checkpoint; name a step, or take the last"
            )
        raise CheckpointError(f"{folder}: no checkpoint has '{metric}'{did_you_mean(metric, names)}")
    return best[:count]


def read_metrics(folder: Path, step: int) -> Metrics | None:
    """Returns the dev scores of a checkpoint, if it was evaluated and they are not damaged."""
    try:
        found = json.loads((folder / str(step) / _METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    sound = isinstance(found, dict) and not find_damage(folder / str(step), ["metrics"])
    return found if sound else None


def write_metrics(folder: Path, step: int, metrics: Metrics) -> None:
    """Adds dev scores to a checkpoint.

    Raises:
      OSError: if they cannot be written.
      ValueError: if its manifest is damaged.
    """
    write_json(folder / str(step) / _METRICS, metrics)
    add_digest(folder / str(step), _METRICS)


def obstacle(folder: Path, needed: int) -> str | None:
    """Returns what writing `needed` bytes would run into, as far as it can be told before."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return f"{error.strerror}: {folder}"
    if not os.access(folder, os.W_OK):
        return f"{os.strerror(errno.EACCES)}: {folder}"
    if free < needed:
        return f"{os.strerror(errno.ENOSPC)}: {_megabytes(needed)} needed, {_megabytes(free)} free"
    return None


def check_space(folder: Path, checkpoint_bytes: int, kept: int) -> None:
    """Refuses to begin a run whose checkpoints do not fit on the disk.

    Args:
      folder: of the checkpoints; may not exist yet.
      checkpoint_bytes: size of one checkpoint.
      kept: how many are kept at a time; one more is there while a new one is written.

    Raises:
      CheckpointError: if there is less room than that beside the checkpoints that are there already.
    """
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    more = max(1, kept + 1 - len(complete_steps(folder)))
    if free < more * checkpoint_bytes:
        raise CheckpointError(
            f"{folder}: {_megabytes(free)} are free on this disk, but {more} more checkpoints of "
            f"{_megabytes(checkpoint_bytes)} each have to fit ({kept} are kept, and the next is written "
            "before the oldest goes); make room, or lower config.run.keep_latest and keep_best"
        )


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.exists() else []


def _sync(folder: Path) -> None:
    """Forces new names in `folder` to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
