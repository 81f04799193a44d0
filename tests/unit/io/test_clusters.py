"""Which process this is, from flags and from the environments that clusters make."""

import importlib.machinery
import socket
import sys
import types
from typing import Any

import pytest
from jax._src.clusters import K8sCluster, cloud_tpu_cluster

from transformer.errors import ConfigError
from transformer.io.clusters import Place, find_place, own_gpu
from transformer.io.processes import start

SLURM = {  # of `srun -N 2 -n 4`, the last task
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "8192.0;tcp://10.1.2.3,172.17.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "2"}
TPU = {
    "TPU_WORKER_HOSTNAMES": "10.0.0.5,10.0.0.6",
    "TPU_WORKER_ID": "1",
    "MEGASCALE_COORDINATOR_ADDRESS": "",
    "MEGASCALE_NUM_SLICES": "",
    "MEGASCALE_SLICE_ID": "",
}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes away what the machine of the tests has of a cluster."""
    for name in [*SLURM, *OPEN_MPI, *KUBERNETES, *TPU, "JAX_COORDINATOR_PORT"]:
        monkeypatch.delenv(name, raising=False)


def found(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], **changed: str) -> Place | None:
    for name, value in (env | changed).items():
        monkeypatch.setenv(name, value)
    return find_place(None, None, None, timeout=1)


def test_a_plain_start_is_alone(monkeypatch: pytest.MonkeyPatch):
    assert found(monkeypatch, {}) is None


def test_flags_come_before_the_environment(monkeypatch: pytest.MonkeyPatch):
    found(monkeypatch, SLURM)
    assert find_place("a:1", 3, 2, 1.0) == Place("a:1", 3, 2)
    assert find_place("a:1", 1, 0, 1.0) is None


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("a:1", None, None), "--num_processes and --process_id: missing"),
        ((None, 2, 0), "--coordinator: missing"),
        (("a:1", 2, 2), "--process_id 2: must be from 0 to 1"),
        (("a:1", 0, 0), "--num_processes 0: must be at least 1"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags: tuple[Any, Any, Any], says: str):
    with pytest.raises(ConfigError, match=says):
        find_place(*flags, timeout=1)


@pytest.mark.parametrize("heartbeat", [0, -1, float("nan"), float("inf")])
def test_a_heartbeat_that_is_none_is_refused(heartbeat: float):
    with pytest.raises(ConfigError, match=r"--heartbeat .*: must be above 0 seconds, and at most a day"):
        start("localhost:1", 2, 0, heartbeat)


def test_task_of_slurm(monkeypatch: pytest.MonkeyPatch):
    assert found(monkeypatch, SLURM) == Place("node07:61441", 4, 3)  # 65535 - 4096 + 1 + 4097 % 4096
    monkeypatch.setenv("JAX_COORDINATOR_PORT", "1234")
    assert find_place(None, None, None, 1.0) == Place("node07:1234", 4, 3)


def test_srun_of_one_task_is_alone(monkeypatch: pytest.MonkeyPatch):
    assert found(monkeypatch, SLURM, SLURM_NTASKS="1", SLURM_STEP_NUM_TASKS="1", SLURM_PROCID="0") is None


@pytest.mark.parametrize("step_tasks", [None, "1"])  # sbatch; an interactive step of salloc
def test_shell_of_a_slurm_job_is_alone_and_hears_of_srun(
    step_tasks: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    env = {**SLURM, "SLURM_PROCID": "0", "SLURM_LOCALID": "0"} | {"SLURM_STEP_NUM_TASKS": step_tasks or ""}
    if step_tasks is None:
        del env["SLURM_STEP_NUM_TASKS"]
    assert found(monkeypatch, env) is None
    assert "start it with srun" in capsys.readouterr().err


def test_rank_of_open_mpi_also_inside_slurm(monkeypatch: pytest.MonkeyPatch):
    assert found(monkeypatch, OPEN_MPI) == Place("10.1.2.3:61442", 2, 1)  # 61440 + 8192 / 4096
    shell = {name: SLURM[name] for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")}
    assert found(monkeypatch, OPEN_MPI | shell) == Place("10.1.2.3:61442", 2, 1)


def test_open_mpi_without_address_is_told_to_give_flags(monkeypatch: pytest.MonkeyPatch):
    """Version 5; newer JAX wants mpi4py there, older does not notice it."""
    env = {name: value for name, value in OPEN_MPI.items() if "orte" not in name}
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ConfigError, match="give --coordinator"):
        found(monkeypatch, env)


def test_host_of_a_tpu_pod(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    assert found(monkeypatch, TPU) == Place("10.0.0.5:8482", 2, 1)
    slices = {"MEGASCALE_COORDINATOR_ADDRESS": "10.0.0.1", "MEGASCALE_NUM_SLICES": "2"}
    assert found(monkeypatch, TPU, **slices, MEGASCALE_SLICE_ID="1") == Place("10.0.0.1:8482", 4, 3)
    alone = {"TPU_WORKER_HOSTNAMES": "10.0.0.5", "MEGASCALE_NUM_SLICES": "", "TPU_WORKER_ID": "0"}
    assert found(monkeypatch, TPU, **alone, MEGASCALE_SLICE_ID="") is None


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Kubernetes says to a pod of a JobSet with four of them."""
    package: Any = types.ModuleType("kubernetes")
    package.__spec__ = importlib.machinery.ModuleSpec("kubernetes", None)
    package.config = types.SimpleNamespace(load_incluster_config=lambda: None)
    package.client = types.SimpleNamespace(
        CoreV1Api=lambda: None,
        BatchV1Api=lambda: None,
        exceptions=types.SimpleNamespace(ApiException=OSError),
    )
    labels = {"jobset.sigs.k8s.io/jobset-name": "translation"}
    job = types.SimpleNamespace(
        metadata=types.SimpleNamespace(name="translation-workers-0", labels=labels),
        spec=types.SimpleNamespace(parallelism=4),
    )
    monkeypatch.setitem(sys.modules, "kubernetes", package)
    monkeypatch.setattr(K8sCluster, "_controller", lambda: types.SimpleNamespace(kind="Job"))
    monkeypatch.setattr(K8sCluster, "_job", lambda: job)
    monkeypatch.setattr(K8sCluster, "_pod", lambda: None)
    monkeypatch.setattr(socket, "gethostbyname", lambda host: "10.0.0.9")


@pytest.mark.usefixtures("api")
def test_pod_of_a_jobset(monkeypatch: pytest.MonkeyPatch):
    assert found(monkeypatch, KUBERNETES) == Place("translation-workers-0-0.translation:55527", 4, 2)


@pytest.mark.usefixtures("api")
def test_pod_of_no_job_is_alone(monkeypatch: pytest.MonkeyPatch):
    assert found(monkeypatch, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) is None


def test_pod_of_a_job_needs_the_package_that_asks(monkeypatch: pytest.MonkeyPatch):
    """Else every pod would train for itself, all in one folder."""
    with pytest.raises(ConfigError, match=r"jax\[k8s\]"):
        found(monkeypatch, KUBERNETES)


@pytest.mark.usefixtures("api")
def test_what_kubernetes_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def refuse() -> None:
        raise RuntimeError("Kubernetes API Error: 403 - Forbidden\nIt appears that ...")

    monkeypatch.setattr(K8sCluster, "_job", refuse)
    with pytest.raises(ConfigError, match="403 - Forbidden It appears") as error:
        found(monkeypatch, KUBERNETES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("hosts", "index", "env", "gpus"),
    [
        ("a b", 1, {}, None),  # one a host: all its GPUs
        ("a a b b", 3, {}, [1]),
        ("a b a b", 2, {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [1]),
        ("a a", 1, {"CUDA_VISIBLE_DEVICES": "3"}, None),  # the cluster gave each its own
        ("a a", 1, {"JAX_LOCAL_DEVICE_IDS": "2,3"}, None),  # JAX reads it itself
    ],
)
def test_processes_of_one_host_take_a_gpu_each(
    hosts: str, index: int, env: dict[str, str], gpus: list[int] | None, monkeypatch: pytest.MonkeyPatch
):
    for name in ("CUDA_VISIBLE_DEVICES", "JAX_LOCAL_DEVICE_IDS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert own_gpu(hosts.split(), index) == gpus
