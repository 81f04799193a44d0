"""What the processes of a run tell each other about the disk. All of them have to ask alike."""

import jax
import numpy as np
from jax.experimental import multihost_utils


def everywhere(ok: bool) -> bool:
    """Returns whether `ok` holds in every process."""
    return ok if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(ok)).all())


def of_first(number: int) -> int:
    """Returns the first process's number (32 bits)."""
    return number if jax.process_count() == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(number)))
