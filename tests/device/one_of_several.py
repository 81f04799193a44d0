"""One process of a small JAX program of several, for test_processes.py; what it does is its first argument.

    one_of_several.py WHAT COORDINATOR COUNT INDEX [HEARTBEAT]

COORDINATOR may be "-": the place is then found in the environment.
"""

import os
import sys
import time

import jax
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from transformer.errors import DataError, Preempted, UserError
from transformer.io.processes import Processes, start
from transformer.run.signals import StopRequest


def total(processes: Processes) -> float:
    """Returns the sum over all devices of (process + 1), as all of them compute it together."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    mine = np.full((jax.local_device_count(),), processes.index + 1.0, np.float32)
    array = jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("data")), mine)
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.jit(lambda x: x.sum(), out_shardings=replicated)(array).item()


def say(text: str) -> None:
    print(text, flush=True)


def sums(processes: Processes) -> None:
    """Agrees, sums, and ends when the last one has saved."""
    processes.agree({"model.d_model": "512", "data": "abc"})
    processes.barrier("ready")
    say(f"total {total(processes):g}")
    if processes.index:
        time.sleep(2)  # a save that takes longer than on process 0


def differs(processes: Processes) -> None:
    processes.agree({"model.d_model": str(512 + processes.index), "data": "abc"})
    say("went on")


def computes(processes: Processes) -> None:
    """Is in collectives nearly all the time."""
    total(processes)
    say("running")
    for _ in range(2000):
        total(processes)


def waits(processes: Processes) -> None:
    """Does nothing that needs the others."""
    total(processes)
    say("running")
    time.sleep(60)


def fails(processes: Processes) -> None:
    """Process 0 finds bad data while the others wait for it."""
    if processes.first:
        time.sleep(0.5)
        raise DataError("corpus.en: line 3 is not UTF-8; save it as UTF-8")
    processes.barrier("prepared")


def crashes(processes: Processes) -> None:
    total(processes)
    if processes.index:
        raise RuntimeError("a bug")
    total(processes)


def stops(processes: Processes) -> None:
    """Stops together after SIGTERM to any of them."""
    with StopRequest() as stop:
        total(processes)
        say("running")
        while not process_allgather(np.array(stop.signal is not None)).any():
            time.sleep(0.1)
    raise Preempted("saved")


def main() -> int:
    what, coordinator, count, index, *rest = sys.argv[1:]
    heartbeat = float(rest[0]) if rest else 3.0
    flags = (None, None, None) if coordinator == "-" else (coordinator, int(count), int(index))
    timeout = float(os.environ.get("TEST_TIMEOUT", "60"))
    try:
        with start(*flags, heartbeat=heartbeat, timeout=timeout) as processes:
            globals()[what](processes)
    except UserError as error:
        print(f"transformer: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
