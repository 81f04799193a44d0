"""The ready files of deploy/: that shells and Kubernetes could read them, and a real requeue under Slurm."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from transformer import errors

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SLURM = Path(__file__).with_name("one_node_slurm.sh")
SCRIPTS = [DEPLOY / "train.sbatch", DEPLOY / "tpu_pod.sh", SLURM]
JOBSETS = [DEPLOY / "jobset_gpu.yaml", DEPLOY / "jobset_tpu.yaml"]
LASTING = [
    kind.exit_code
    for kind in (errors.ConfigError, errors.DataError, errors.CheckpointError, errors.DivergedError)
]


def test_every_file_is_checked_here():
    assert {*DEPLOY.iterdir()} == {*SCRIPTS[:2], *JOBSETS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_it(script: Path):
    assert os.access(script, os.X_OK) or script.suffix == ".sbatch"
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path):
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True)
    assert done.stdout == ""


def job_of(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Returns the JobSet, its only Job and that one's only container."""
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    jobset = yaml.safe_load(path.read_text())
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    return jobset, job, container


@pytest.mark.parametrize("path", JOBSETS, ids=lambda path: path.stem)
def test_jobset_has_the_fields_that_count(path: Path):
    """Names as in jobset.x-k8s.io/v1alpha2 and batch/v1; a user's error ends all, a fault starts again."""
    jobset, job, container = job_of(path)
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] > 1
    assert job["backoffLimit"] == 0  # the first pod that fails fails the Job
    (pod_rule,) = job["podFailurePolicy"]["rules"]
    codes = {"containerName": container["name"], "operator": "In", "values": LASTING}
    assert pod_rule == {"action": "FailJob", "onExitCodes": codes}
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy asks for it
    assert pod["terminationGracePeriodSeconds"] >= 60
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_flags_in_the_gpu_jobset_name_its_own_first_pod():
    jobset, job, container = job_of(DEPLOY / "jobset_gpu.yaml")
    shell, option, script = container["command"]
    assert (shell, option) == ("sh", "-c")
    name, replicated = jobset["metadata"]["name"], jobset["spec"]["replicatedJobs"][0]["name"]
    words = script.split()
    # `exec`, so that SIGTERM reaches the program and not the shell.
    assert words[:3] == ["exec", "transformer", "train"]
    flags = dict(zip(words[3::2], words[4::2], strict=True))
    assert flags["--coordinator"] == f"{name}-{replicated}-0-0.{name}:55527"
    assert flags["--num_processes"] == str(job["parallelism"])
    assert flags["--process_id"] == '"$JOB_COMPLETION_INDEX"'


def test_tpu_pod_starts_again_after_faults_alone(tmp_path: Path):
    """A `gcloud` of the test's own says 255, then 6, then 3."""
    (tmp_path / "gcloud").write_text(
        f"""#!/bin/sh
        cd {tmp_path}
        echo "$*" >>calls
        exit "$(sed -n "$(wc -l <calls)p" codes)"
        """
    )
    (tmp_path / "gcloud").chmod(0o755)
    (tmp_path / "codes").write_text("255\n6\n3\n0\n")
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TPU": "pod", "ZONE": "z", "PAUSE": "0"}
    command = [DEPLOY / "tpu_pod.sh", "--config", "a b.py"]
    assert subprocess.run(command, env=env, capture_output=True).returncode == 3
    calls = (tmp_path / "calls").read_text().splitlines()
    ssh = "compute tpus tpu-vm ssh pod --zone z --worker=all --command"
    assert calls == [rf"{ssh} cd transformer && .venv/bin/transformer train --config a\ b.py"] * 3


def slurm_is_there() -> bool:
    path = f"{os.environ['PATH']}:/usr/sbin"
    return all(shutil.which(x, path=path) for x in ("slurmctld", "slurmd", "munged")) and os.geteuid() == 0


@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.skipif(not slurm_is_there(), reason="needs slurm-wlm, munge and root")
def test_slurm_stops_a_job_before_its_time_limit_and_starts_it_again(tmp_path: Path):
    """A `transformer` of the test's own: first it waits for SIGTERM and ends with 75, then it is done.

    Takes three minutes: Slurm waits two of them before a job that was put back may start.
    """
    program = tmp_path / "transformer"
    program.write_text(
        f"""#!/usr/bin/env bash
        echo "start ${{SLURM_RESTART_COUNT:-0}} $SLURM_PROCID $*" >>{tmp_path}/events
        [ "${{SLURM_RESTART_COUNT:-0}}" = 0 ] || exit 0
        trap 'echo stopped >>{tmp_path}/events; exit 75' TERM
        while :; do sleep 0.2; done
        """
    )
    program.chmod(0o755)
    # A machine without GPUs cannot promise any.
    script = tmp_path / "train.sbatch"
    script.write_text(re.sub(r"#SBATCH --gpus.*\n", "", (DEPLOY / "train.sbatch").read_text()))
    options = "--nodes=1 --ntasks-per-node=2 --cpus-per-task=1 --time=2 --signal=TERM@110"
    watch = f"""
        id=$(sbatch --parsable {options} --output={tmp_path}/log {script} --config c.py)
        while squeue --noheader --job="$id" | grep -q .; do sleep 1; done
        scontrol show job "$id" | grep -o 'JobState=[A-Z]*\\|Restarts=[0-9]*'
    """
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([SLURM, "bash", "-c", watch], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["JobState=COMPLETED", "Restarts=1"], done.stderr
    starts = [f"start {count} {task} train --config c.py" for count in range(2) for task in range(2)]
    assert sorted((tmp_path / "events").read_text().splitlines()) == [*starts, "stopped", "stopped"]
    assert "stopped and saved; back into the queue" in (tmp_path / "log").read_text()
