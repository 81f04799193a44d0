"""Whether this process is one of several, and which: flags, or what a cluster left in the environment.

Slurm, Open MPI, Kubernetes and TPU pods are recognised by JAX's own detection. What is decided here is
when to ask it: JAX would wait for tasks that nobody started in a batch script without `srun`, and for
a job that does not exist in a lone pod.
"""

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Any

from transformer.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Place:
    """One of the processes of a run.

    Attributes:
      coordinator: ``HOST:PORT`` where process 0 listens.
      count: number of processes.
      index: this one.
    """

    coordinator: str
    count: int
    index: int


def find_place(
    coordinator: str | None, num_processes: int | None, process_id: int | None, timeout: float
) -> Place | None:
    """Returns which process this is, or None if it is the only one.

    Args:
      coordinator: ``HOST:PORT``; with the next two, all or none are given.
      num_processes: number of processes.
      process_id: this one, from 0.
      timeout: seconds that a cluster's name service may take to know process 0.

    Raises:
      ConfigError: flags that do not fit together, or an environment that does not tell enough.
    """
    flags = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [name for name, value in flags.items() if value is None]
    if len(missing) == len(flags):
        place = _from_environment(timeout)
    elif missing:
        raise ConfigError(
            f"{' and '.join(missing)}: missing; give --coordinator, --num_processes and --process_id "
            "together, or none of them where Slurm, Open MPI, Kubernetes or a TPU pod says it"
        )
    else:
        assert coordinator is not None and num_processes is not None and process_id is not None
        place = Place(coordinator, num_processes, process_id)
    if place and place.count < 1:
        raise ConfigError(f"--num_processes {place.count}: must be at least 1")
    if place and not 0 <= place.index < place.count:
        raise ConfigError(
            f"--process_id {place.index}: must be from 0 to {place.count - 1}, below --num_processes"
        )
    return place if place and place.count > 1 else None


def _from_environment(timeout: float) -> Place | None:
    if _is_shell_of_a_slurm_job():
        tasks = os.environ["SLURM_NTASKS"]
        print(
            f"one process in a Slurm job of {tasks} tasks; to use all, start it with srun",
            file=sys.stderr,
            flush=True,
        )
        return None
    cluster = _cluster()
    if cluster is None:
        return None
    try:
        count = cluster.get_process_count()
        if count == 1:
            return None
        port = os.environ.get("JAX_COORDINATOR_PORT")
        address = cluster.get_coordinator_address(timeout_secs=int(timeout), override_coordinator_port=port)
        return Place(address, count, cluster.get_process_id())
    except (RuntimeError, ValueError, LookupError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{cluster.__name__}: cannot tell the processes of this job ({reason}); give --coordinator, "
            "--num_processes and --process_id"
        ) from error


def _is_shell_of_a_slurm_job() -> bool:
    """A batch script and an interactive shell are one process, but see the number of tasks of their job."""
    env = os.environ
    if "OMPI_COMM_WORLD_SIZE" in env or int(env.get("SLURM_NTASKS", "1")) == 1:
        return False
    return int(env.get("SLURM_STEP_NUM_TASKS", "1")) == 1


def _cluster() -> Any | None:
    """Returns JAX's description of the cluster that this process runs in."""
    from jax._src.clusters import ClusterEnv, K8sCluster

    env = os.environ
    in_indexed_job = "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env
    for cluster in ClusterEnv._cluster_types:
        if cluster.opt_in_only_method:
            continue
        if cluster is K8sCluster:
            if not in_indexed_job:  # a pod of its own, such as a notebook's
                continue
            if not _can_import("kubernetes"):
                raise ConfigError(
                    "an indexed Kubernetes job, but the package that tells its size is missing; pip install "
                    "'jax[k8s]', or give --coordinator, --num_processes and --process_id"
                )
        if cluster.is_env_present():
            return cluster
    if int(env.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        raise ConfigError(
            "Open MPI 5 does not tell where process 0 is; give --coordinator HOST:PORT "
            "--num_processes $OMPI_COMM_WORLD_SIZE --process_id $OMPI_COMM_WORLD_RANK (in sh -c '...')"
        )
    return None


def _can_import(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def own_gpu(hosts: Sequence[str], index: int) -> list[int] | None:
    """Returns the one GPU of each of several processes on a host; None: all that are visible.

    Args:
      hosts: host name of every process.
      index: the process that asks.
    """
    if hosts.count(hosts[index]) == 1 or "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and "," not in visible:  # the cluster gave each process its own
        return None
    return [hosts[:index].count(hosts[index])]
