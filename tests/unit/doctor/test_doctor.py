"""The doctor's checks, on machines made of a few files."""

import dataclasses
import gzip
import sys
import time
from pathlib import Path

import jax
import pytest

from transformer.config import DataConfig
from transformer.config_mapping import from_config_dict
from transformer.doctor import needs
from transformer.doctor import trial as trials
from transformer.doctor.checks import check_host, devices, driver, libraries, packages
from transformer.doctor.children import cause, check_sum, find_devices
from transformer.doctor.host import Devices, Host, installed
from transformer.doctor.trial import Trial, environment_for, train_both
from transformer.doctor.verb import doctor
from transformer.errors import ConfigError
from transformer.io.workdir import Workdir

CPU, GPU = Devices("cpu", 1, "cpu"), Devices("gpu", 2, "NVIDIA H100", 80_000_000_000)
JAX = {"jax": "0.10.2", "jaxlib": "0.10.2"}
CUDA13 = {**JAX, "jax-cuda13-plugin": "0.10.2", "nvidia-cudnn-cu13": "9.1"}
PCI = {"/sys/bus/pci/devices/0/vendor": "0x10de\n", "/sys/bus/pci/devices/0/class": "0x030200\n"}


def loaded(version: str) -> dict[str, str]:
    """The files of a machine with one NVIDIA GPU and its driver."""
    text = f"NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {version}  Release Build\nGCC 11.4\n"
    return {**PCI, "/proc/driver/nvidia/version": text, "/dev/nvidia0": "", "/dev/nvidiactl": ""}


def host(root: Path, files: dict[str, str], found: Devices = CPU, versions=None, **environment: str) -> Host:
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Host(found, root, environment, {**installed(), **JAX} if versions is None else versions)


OLD, NEW = "535.129.03", "580.65.06"
CLOSED = {name: text for name, text in loaded(NEW).items() if not name.startswith("/dev")}
FAILED = Devices("cpu", 1, "cpu", 0, ("no tpu here", "cuda: Unable to load cuDNN"))
HUNG = Devices(complaints=("no answer within 180 s",))
OTHER = {**CUDA13, "jax-cuda13-plugin": "0.9.1"}


@pytest.mark.parametrize(
    ("files", "found", "versions", "text"),
    [
        (PCI, CPU, JAX, "its driver is not loaded; install the NVIDIA driver 580 or newer"),
        (CLOSED, CPU, CUDA13, "--gpus all"),
        (loaded(NEW), CPU, JAX, "plugin is not installed; pip install -e '.[cuda13]'"),
        (loaded(OLD), CPU, JAX, "plugin is not installed; pip install -e '.[cuda12]'"),
        (loaded("470.82.01"), CPU, JAX, "update the driver to 525 or newer; then pip install"),
        (loaded(OLD), CPU, CUDA13, "too old for cuda13, which needs 580; update the driver to 580 or newer"),
        (loaded(OLD), CPU, CUDA13, "or pip uninstall jax-cuda13-plugin and pip install -e '.[cuda12]'"),
        (loaded(NEW), CPU, OTHER, "does not fit jaxlib 0.10.2; pip install -U 'jax[cuda13]==0.10.2'"),
        (loaded(NEW), FAILED, CUDA13, "there is 1 NVIDIA GPU: cuda: Unable to load cuDNN; see what"),
        (
            loaded(NEW),
            HUNG,
            CUDA13,
            "JAX opens nothing although there is 1 NVIDIA GPU: no answer within 180 s",
        ),
        (
            {"/dev/accel0": "", "/dev/accel1": ""},
            CPU,
            JAX,
            "2 TPU chips: libtpu is not installed; pip install",
        ),
    ],
)
def test_a_silent_fall_back_to_the_cpu_is_named_with_its_cure(files, found, versions, text, tmp_path):
    finding = devices(host(tmp_path, files, found, {**installed(), **versions}))
    assert finding.status == "problem"
    assert text in finding.line() and "\n" not in finding.line()


@pytest.mark.parametrize(("name", "value"), [("JAX_PLATFORMS", "cpu"), ("CUDA_VISIBLE_DEVICES", "")])
def test_a_cpu_that_somebody_asked_for_is_a_warning(name, value, tmp_path):
    finding = devices(host(tmp_path, loaded(NEW), CPU, CUDA13, **{name: value}))
    assert (finding.status, finding.cure) == ("warning", f"unset {name}")


def test_a_gpu_that_only_nvidia_smi_shows(tmp_path):
    there = host(
        tmp_path,
        {"/usr/lib/wsl/lib/nvidia-smi": "#!/bin/sh\necho 581.15\n", "/dev/dxg": ""},
        PATH="/usr/lib/wsl/lib",
    )
    (tmp_path / "usr/lib/wsl/lib/nvidia-smi").chmod(0o755)
    assert (there.nvidia_gpus, there.driver) == (1, "581.15")
    assert "cuda13" in devices(there).cure


def test_other_hardware_is_no_accelerator(tmp_path):
    card = {"/sys/bus/pci/devices/0/vendor": "0x1ae0\n", "/sys/bus/pci/devices/0/class": "0x020000\n"}
    sound = {"/sys/bus/pci/devices/1/vendor": "0x10de\n", "/sys/bus/pci/devices/1/class": "0x040300\n"}
    there = host(tmp_path, {**card, **sound, "/dev/vfio/vfio": ""})
    assert (there.nvidia_gpus, there.tpus) == (0, 0)
    assert devices(there).status == "ok"


def test_devices_that_are_used(tmp_path):
    there = host(tmp_path, loaded("580.65.06"), GPU)
    assert devices(there) == ("ok", "devices", "2 x NVIDIA H100 (gpu), 80.0 GB each", "")
    assert driver(there) == ("ok", "driver", "NVIDIA driver 580.65.06", "")


def test_libraries_that_come_before_those_of_pip(tmp_path):
    files = {"/opt/cuda/lib64/libcudnn_ops.so.9": "", "/opt/mine/libmine.so": ""}
    folders = "/opt/mine:/opt/none:/opt/cuda/lib64"
    shadowed = libraries(host(tmp_path, files, versions=CUDA13, LD_LIBRARY_PATH=folders))
    assert shadowed.status == "warning"
    assert "/opt/cuda/lib64 (libcudnn_ops.so.9)" in shadowed.text and "/opt/mine" not in shadowed.text
    assert shadowed.cure == "unset LD_LIBRARY_PATH"
    assert libraries(host(tmp_path, {}, versions=JAX, LD_LIBRARY_PATH=folders)).status == "ok"
    assert libraries(host(tmp_path, {}, versions=CUDA13, LD_LIBRARY_PATH="/opt/mine")).status == "ok"


def test_packages(tmp_path):
    good = {**installed(), **JAX}
    assert packages(host(tmp_path, {}, versions=good)).status == "ok"
    for change, text in (
        ({"flax": "0.9.0"}, "flax 0.9.0 is older than 0.12"),
        ({"jaxlib": "0.10.1"}, "jax 0.10.2 and jaxlib 0.10.1"),
    ):
        finding = packages(host(tmp_path, {}, Devices(), {**good, **change}))
        assert finding.status == "problem" and text in finding.text and finding.cure
    missing = packages(host(tmp_path, {}, versions={k: v for k, v in good.items() if k != "optax"}))
    assert (missing.status, missing.text) == ("problem", "optax is missing")


def test_a_report_shows_the_environment_but_no_password(tmp_path):
    there = host(tmp_path, {}, XLA_FLAGS="--xla_x=1", https_proxy="http://me:secret@proxy:80", HOME="/root")
    lines = [finding.line() for finding in check_host(there)]
    assert any("XLA_FLAGS=--xla_x=1" in line for line in lines)
    assert not any("secret" in line or "HOME" in line for line in lines)


def test_jax_that_cannot_be_imported_is_told_in_one_line(tmp_path):
    (tmp_path / "jax.py").write_text("raise ImportError('libfoo.so.3: no such file')\n")
    found = find_devices({"PYTHONPATH": str(tmp_path)})
    assert found == Devices(complaints=("ImportError libfoo.so.3: no such file",))
    (tmp_path / "jax.py").write_text("import os; os._exit(9)\n")
    assert find_devices({"PYTHONPATH": str(tmp_path)}).complaints == ("its process ended with code 9",)
    (tmp_path / "jax.py").write_text("import time; time.sleep(60)\n")
    assert find_devices({"PYTHONPATH": str(tmp_path)}, timeout=1).complaints == ("no answer within 1 s",)


def test_two_processes_that_hang_or_fail_are_told_in_one_line(tmp_path):
    (tmp_path / "jax.py").write_text("import time; time.sleep(60)\n")
    began = time.monotonic()
    hung = check_sum({"PYTHONPATH": str(tmp_path)}, timeout=1.0)
    assert time.monotonic() - began < 10
    assert hung.status == "problem" and "no end within 1 s" in hung.text
    (tmp_path / "jax.py").write_text("raise OSError('no such network')\n")
    failed = check_sum({"PYTHONPATH": str(tmp_path), "http_proxy": "http://proxy"}, timeout=30.0)
    assert failed.status == "problem" and "OSError: no such network" in failed.text
    assert "unset http_proxy" in failed.cure


def test_the_line_that_tells_most():
    assert cause("INFO a\ntransformer: error: b\nINFO c\n") == "b"
    assert cause("Traceback\n  x\nValueError: d\n") == "ValueError: d"
    assert (cause("e\nf\n"), cause("")) == ("f", "")


def test_data_files_are_counted_side_by_side(tmp_path):
    (tmp_path / "a.en").write_bytes("one\ntwo\u2028still two\nthree".encode())
    (tmp_path / "a.de").write_bytes(gzip.compress(b"eins\nzwei\ndrei\n"))
    (tmp_path / "b.en").write_text("one\n")
    (tmp_path / "empty").write_text("")
    data = DataConfig(
        root=str(tmp_path),
        train_source=("a.en", "b.en", "b.en"),
        train_target=("a.de", "a.de"),
        dev_source=("b.en",),
        dev_target=("none.de",),
        test_source=("empty",),
        test_target=("empty",),
    )
    found = [(f.status, f.name, f.text) for f in needs.check_data(data)]
    assert found[:2] == [
        ("ok", "data train", "a.en: 3 lines | a.de: 3 lines"),
        ("problem", "data train", "b.en: 1 lines | a.de: 3 lines"),
    ]
    assert [status for status, _, _ in found[2:]] == ["problem"] * 3
    assert "without a file of the other side" in found[2][2] and "none.de: no such file" in found[3][2]
    # What is good file by file, and not what training wants.
    for changes, message in (
        (dict(train_target=()), "without a file of the other side"),
        (dict(holdout_lines=5), "holdout_lines"),
        (dict(train_source=()), "without a file of the other side"),
        (dict(train_source=(), train_target=()), "no training data is named"),
    ):
        whole = DataConfig(root=str(tmp_path), train_source=("a.en",), train_target=("a.de",))
        found = [(f.status, f.text) for f in needs.check_data(dataclasses.replace(whole, **changes))]
        assert any(status == "problem" and message in text for status, text in found), found
    tsv = [f.line() for f in needs.check_data(DataConfig(kind="tsv", train_tsv=str(tmp_path / "a.en")))]
    assert "3 pairs" in tsv[0] and "none is named" in tsv[1]
    lines = DataConfig(root=str(tmp_path), kind="lines", train_target=("b.en", "empty"))
    found = [(f.status, f.text) for f in needs.check_data(lines)]
    assert found[0] == ("problem", "b.en: 1 pairs, empty: 0 pairs")


def test_a_checkpoint_is_as_large_as_its_arrays():
    settings = {"optim": {"ema_decay": 0.9}, "model": {"d_model": 16, "d_ff": 32, "num_heads": 2}}
    items = needs.saved_items(from_config_dict(settings), 40, 40)
    counts = {name: jax.tree.leaves(tree) for name, tree in items.items()}
    sizes = {name: sum(x.size for x in leaves) for name, leaves in counts.items()}
    assert sizes["ema"] == sizes["params"] and sizes["optimizer"] - 2 * sizes["params"] in (1, 2)


@pytest.fixture
def slow_disk(monkeypatch):
    monkeypatch.setattr(needs, "write_speed", lambda folder: 10e6)


def test_disk(tmp_path, slow_disk):
    workdir = Workdir(tmp_path / "not" / "there")
    good = list(needs.check_disk(workdir, 1_000_000, 3))
    assert [f.status for f in good] == ["ok", "ok"]
    assert "4 checkpoints need 4.0 MB" in good[0].text
    assert "10 MB/s" in good[1].text and "takes 0.1 s" in good[1].text
    slow = list(needs.check_disk(workdir, 400_000_000, 3))
    assert slow[1].status == "warning" and "takes 40.0 s" in slow[1].text
    full = list(needs.check_disk(workdir, 10**15, 3))
    assert full[0].status == "problem" and "keep_latest" in full[0].text
    assert not list(tmp_path.iterdir())


def test_measuring_the_disk_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(needs, "_SAMPLE", 1_000_000)
    monkeypatch.setattr(needs, "_PIECE", 100_000)
    assert needs.write_speed(tmp_path) > 0
    assert not list(tmp_path.iterdir())


def test_arguments_that_cannot_be_used():
    with pytest.raises(ConfigError, match="needs --config"):
        doctor(None, ["--config.data.seed=1"], None)


@pytest.mark.parametrize(
    ("found", "before", "name", "value"),
    [
        (CPU, {"XLA_FLAGS": "--a --xla_force_host_platform_device_count=8"}, "XLA_FLAGS", ["--a", "4"]),
        (Devices("gpu", 8), {}, "CUDA_VISIBLE_DEVICES", ["0,1,2,3"]),
        (Devices("gpu", 5), {"CUDA_VISIBLE_DEVICES": "7,6,5,4,3"}, "CUDA_VISIBLE_DEVICES", ["7,6,5,4"]),
        (Devices("gpu", 4), {}, "CUDA_VISIBLE_DEVICES", None),
    ],
)
def test_a_mesh_gets_its_devices(found, before, name, value, monkeypatch):
    monkeypatch.setattr(trials, "find_devices", lambda environment: found)
    after = environment_for((2, 2, 1), before)
    assert (
        after.get(name) and after[name].replace("--xla_force_host_platform_device_count=", "").split()
    ) == value


@pytest.mark.parametrize("found", [Devices("gpu", 2), Devices("tpu", 8), Devices()])
def test_a_mesh_without_its_devices(found, monkeypatch):
    monkeypatch.setattr(trials, "find_devices", lambda environment: found)
    with pytest.raises(ConfigError, match="--mesh 2x2x1"):
        environment_for((2, 2, 1), {})


def test_the_report_of_this_python(tmp_path):
    assert sys.version.split()[0] in next(check_host(host(tmp_path, {}))).text


@pytest.mark.parametrize(("saved", "stop"), [(["6", "8"], 8), (["6", "12"], 6)])
def test_a_run_that_ends_before_the_signal_loses_its_last_steps(saved, stop, tmp_path, monkeypatch):
    trial, told = Trial("recipe.py", (), 6, (1, 2, 1), tmp_path), []

    def fake(what, words, environment, last, stop_after=None):
        """Leaves behind what a training process does."""
        told.append((what, words, stop_after))
        if "whole" in words[-1]:
            (trial.whole / "tokenizer").mkdir(parents=True)
        elif stop_after:
            for step in saved:
                (trial.stopped / "checkpoints" / step).mkdir(parents=True)

    monkeypatch.setattr(trials, "_train", fake)
    found, how = train_both(trial, {}, {})
    assert found == stop and "continued on mesh 1x2x1" in how
    assert max(int(path.name) for path in (trial.stopped / "checkpoints").iterdir()) == stop
    assert [stop_after for _, _, stop_after in told] == [None, 6, None]
    assert "--config.mesh.fsdp=2" in told[2][1] and "--config.run.num_steps=12" in told[0][1]
