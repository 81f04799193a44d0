"""Moments of a base's optimizer that a run goes on with (`config.init.optimizer`)."""

from collections.abc import Container, Mapping
from typing import Any

import numpy as np

from transformer.errors import CheckpointError
from transformer.inference.model_directory import LoadedModel
from transformer.io.arrays import read_arrays
from transformer.io.workdir import Workdir
from transformer.paths import by_path

_ITEM = "optimizer"
_ALIKE = {"adamw": "adam"}  # whose moments are those of another
NO_MOMENTS = "leave config.init.optimizer out"  # the remedy


def moments_in(opt_state: Any, params: Container[str]) -> dict[str, Any]:
    """Returns the moments of parameters in an optimizer's state, and the counts of steps beside them.

    What lies under a parameter's path is a moment of it. A count beside it belongs to it: bias is
    corrected by it. The schedule counts for itself, and is left alone.

    Args:
      opt_state: the optimizer's state.
      params: paths of parameters.
    """
    leaves, found = by_path(opt_state), {}
    for path, x in leaves.items():
        keys = path.split("/")
        start = next((i for i in range(1, len(keys)) if "/".join(keys[i:]) in params), None)
        if start is not None:
            found[path] = x
            count = "/".join([*keys[: start - 1], "count"])
            found |= {count: leaves[count]} if count in leaves else {}
    return found


def base_moments(
    folder: str, base: LoadedModel, optimizer: str, wanted: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Reads the moments that a run wants of its base.

    Args:
      folder: of the base.
      base: what was read of it.
      optimizer: the run's `optim.name`.
      wanted: paths in the optimizer's state, as `moments_in` returns them.

    Raises:
      CheckpointError: if the base has other moments, or none.
    """
    workdir, name = Workdir(folder), base.config.optim.name
    told = f"config.init.optimizer: {folder}, step {base.step:,}"
    if not (workdir.checkpoints / str(base.step) / _ITEM).exists():
        raise CheckpointError(f"{told}: has no optimizer, as imports, exports and averages; {NO_MOMENTS}")
    if _ALIKE.get(name, name) != _ALIKE.get(optimizer, optimizer):
        raise CheckpointError(
            f"{told}: has the moments of {name}, this run's are of {optimizer}; {NO_MOMENTS}"
        )
    found = read_arrays(workdir.checkpoints, base.step, _ITEM)
    if missing := [path for path in wanted if path not in found]:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise CheckpointError(
            f"{told}: has no moment {missing[0]}{more}, which is trained here; {NO_MOMENTS}"
        )
    return {path: found[path] for path in wanted}
