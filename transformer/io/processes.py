"""Start and end of a run of several processes, and what they say to one another outside of the arrays."""

import contextlib
import dataclasses
import json
import os
import re
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import NoReturn

import jax

from transformer.errors import ConfigError, Interrupted, PeerLost, Preempted, UserError
from transformer.io.clusters import find_place, own_gpu
from transformer.io.peers import Peers
from transformer.io.relay import relay
from transformer.io.rendezvous import gather
from transformer.io.standard_error import say

# How JAX's errors begin when another process may be the cause; gloo's, NCCL's, the coordination service's.
_FROM_AFAR = re.compile(r"\b(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED): ")
_SHUTDOWN_TIMEOUT = 60  # seconds


@dataclasses.dataclass(frozen=True)
class Processes:
    """This process among the processes of a run.

    To be entered with `with` at once. Leaving it is the common end: whoever is done waits for those that
    still save, and an error here ends the others too, so that nobody hangs in a collective. With
    several processes an error does not leave the block: it is printed and the process exits, since
    JAX's own end would wait for the others. Preempted and Interrupted are common ends.

    Attributes:
      index: this process, from 0.
      count: number of processes.
      peers: the watch over the others; None for one process.
    """

    index: int = 0
    count: int = 1
    peers: Peers | None = None

    @property
    def first(self) -> bool:
        """Whether this is process 0, which alone writes files and the progress line."""
        return self.index == 0

    def describe(self) -> str:
        """Returns one line on who this is: ``process 1 of 4 on HOST (pid 123): 2 of 8 devices (cpu)``."""
        return (
            f"process {self.index} of {self.count} on {socket.gethostname()} (pid {os.getpid()}): "
            f"{jax.local_device_count()} of {jax.device_count()} devices ({jax.devices()[0].device_kind})"
        )

    def agree(self, facts: Mapping[str, str]) -> None:
        """Compares facts of all processes with those of process 0.

        Args:
          facts: what must be the same everywhere: keys of the configuration, digests, versions.

        Raises:
          ConfigError: on all processes, naming the first process and key that differ and both values.
        """
        if self.peers is None:
            return
        peers = self.peers
        mine = json.dumps(dict(facts))
        fault = peers.meet("agree", mine, lambda texts: _difference(peers, [json.loads(t) for t in texts]))
        if fault:
            raise ConfigError(fault)

    def barrier(self, name: str) -> None:
        """Waits until every process is here.

        Args:
          name: says which barrier it is; every process comes to the same ones in the same order.
        """
        if self.peers is not None:
            self.peers.meet(name)

    def leave(self, error: UserError) -> NoReturn:
        """Ends all processes of the run here and now because of an error; from any thread."""
        assert self.peers is not None
        _leave(self.peers, error)

    def __enter__(self) -> "Processes":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.peers is None:
            return
        try:
            if error is None or isinstance(error, (Preempted, Interrupted)):
                self.peers.meet("end")
                jax.distributed.shutdown()
                self.peers.close()
                return
        except BaseException as fault:
            error = fault
        _leave(self.peers, error)


def _difference(peers: Peers, facts: list[dict[str, str]]) -> str:
    for index, theirs in enumerate(facts):
        for key in sorted(facts[0].keys() | theirs.keys()):
            ours, other = facts[0].get(key, "absent"), theirs.get(key, "absent")
            if ours != other:
                return (
                    f"{peers.name(index)} differs in {key}: {other!r}, but {ours!r} in process 0 on "
                    f"{peers.hosts[0]}; start all processes with the same command, code and data"
                )
    return ""


def _leave(peers: Peers, error: BaseException) -> NoReturn:
    """Ends this process because of an error, and tells the others."""
    code = 1
    if isinstance(error, OSError) and error.filename is not None:
        error = UserError(f"{error.filename}: {error.strerror}")  # as the command line says it
    try:
        if not isinstance(error, UserError) and _FROM_AFAR.search(str(error)):
            # The watch finds out who is lost, says so and ends this process meanwhile.
            time.sleep(peers.heartbeat + 3)
        if isinstance(error, UserError):
            code = error.exit_code
            say(f"transformer: error: {error}")
        elif isinstance(error, KeyboardInterrupt):
            code = Interrupted.exit_code
        else:
            traceback.print_exception(error)
        known = isinstance(error, UserError)
        reason = str(error) if known else " ".join(f"{type(error).__name__}: {error}".split())
        peers.leave(reason, code if known else PeerLost.exit_code)
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(code)


def start(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    heartbeat: float = 60.0,
    timeout: float = 300.0,
) -> Processes:
    """Makes this process one of its run: by the flags, or as Slurm, Open MPI, Kubernetes or a TPU pod says.

    Must come before anything that touches JAX's devices. One process alone starts nothing.

    Args:
      coordinator: ``HOST:PORT`` where process 0 listens, or None; the first three all or none.
      num_processes: number of processes, or None.
      process_id: this one, or None.
      heartbeat: seconds of silence after which a process counts as lost.
      timeout: seconds to wait for all processes to come.

    Raises:
      ConfigError: flags, environment or processes that do not fit together.
      PeerLost: somebody did not come in time.
    """
    if not 0 < heartbeat <= 86400:
        raise ConfigError(f"--heartbeat {heartbeat:g}: must be above 0 seconds, and at most a day")
    place = find_place(coordinator, num_processes, process_id, timeout)
    if place is None:
        return Processes()
    peers = gather(place.coordinator, place.index, place.count, heartbeat, timeout)
    processes = Processes(place.index, place.count, peers)
    try:
        _start_jax(peers, place.coordinator, timeout)
        say(processes.describe())
    except BaseException as error:
        _leave(peers, error)
    return processes


def _start_jax(peers: Peers, coordinator: str, timeout: float) -> None:
    """Starts JAX's coordination service in process 0, at a free port, and its clients.

    Nothing of it may notice a loss before `peers` does, since all it does then is to abort.
    """
    host = coordinator.rpartition(":")[0].strip("[]")
    everywhere = "127.0.0.1" if host in ("localhost", "127.0.0.1") else "[::]"
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = int(peers.meet("port", str(probe.getsockname()[1]), lambda texts: texts[0]))
    # gRPC would send even the way to its own host through a proxy, and JAX only warns of it.
    direct = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy")  # noqa: SIM112
    os.environ["no_grpc_proxy"] = ",".join(filter(None, (direct, "127.0.0.1")))  # noqa: SIM112
    jax.config.update("jax_check_proxy_envs", False)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM away from run/signals.py.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        f"127.0.0.1:{relay(host, port, timeout) if peers.index else port}",
        len(peers.hosts),
        peers.index,
        local_device_ids=own_gpu(peers.hosts, peers.index),
        cluster_detection_method="deactivate",
        initialization_timeout=int(timeout),
        heartbeat_timeout_seconds=int(10 * peers.heartbeat + 100),
        shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT,
        coordinator_bind_address=f"{everywhere}:{port}",
    )
