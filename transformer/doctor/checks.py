"""What can be wrong with a machine whatever is trained on it; each check is a function of a Host."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator

from transformer.doctor.findings import Finding, Status, bytes_text
from transformer.doctor.host import Host

NEEDED_DRIVER = {"cuda13": 580, "cuda12": 525}  # major versions; the best extra first
_LIBRARIES = re.compile(r"lib(cudart|cublas|cudnn|cufft|cusolver|cusparse|nccl|nvrtc|nvJitLink)\w*\.so.*")
_SHOWN = re.compile(r"(XLA|JAX|NCCL|TPU|LIBTPU)_\w+|\w+_VISIBLE_DEVICES|(no|all|https?|grpc)_proxy", re.I)
_PASSWORD = re.compile(r"//[^@/]*@")
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "sentencepiece")


def check_host(host: Host) -> Iterator[Finding]:
    """Yields what was found about program, packages, devices, driver, libraries and environment."""
    yield _machine(host)
    yield packages(host)
    yield devices(host)
    if host.nvidia_gpus:
        yield driver(host)
    yield libraries(host)
    yield _environment(host)


def _environment(host: Host) -> Finding:
    shown = [f"{key}={value}" for key, value in sorted(host.environment.items()) if _SHOWN.fullmatch(key)]
    text = _PASSWORD.sub("//...@", " ".join(shown))  # reports are sent around
    return Finding("ok", "environment", text or "nothing is set that JAX or XLA looks at")


def _machine(host: Host) -> Finding:
    text = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        lines = host.path("/proc/meminfo").read_text().splitlines()
        memory = {key: int(value.split()[0]) * 1024 for key, _, value in (x.partition(":") for x in lines)}
        text += f", {bytes_text(memory['MemAvailable'])} of {bytes_text(memory['MemTotal'])} memory free"
    except (OSError, ValueError, LookupError):
        pass  # not Linux
    return Finding("ok", "machine", f"{text}, {cores} CPU cores")


def packages(host: Host) -> Finding:
    """Compares the installed packages with those that this one asks for, and JAX's parts with each other."""
    versions = host.versions
    shown = ", ".join(f"{name} {versions[name]}" for name in _PACKAGES if name in versions)
    lacking = []
    for asked in importlib.metadata.requires("transformer") or ():
        if found := re.fullmatch(r"([\w-]+)>=([\d.]+)", asked):  # the others belong to extras
            name = found[1].replace("_", "-").lower()
            if name not in versions:
                lacking.append(f"{name} is missing")
            elif _numbers(versions[name]) < _numbers(found[2]):
                lacking.append(f"{name} {versions[name]} is older than {found[2]}")
    if lacking:
        return Finding("problem", "packages", ", ".join(lacking), "pip install -U -e .")
    jax, jaxlib = versions["jax"], versions.get("jaxlib", "missing")
    # JAX itself refuses a jaxlib that does not fit; an older one that fits is used but rarely tested.
    if _numbers(jax) != _numbers(jaxlib):
        status: Status = "warning" if host.devices.platform else "problem"
        text = f"jax {jax} and jaxlib {jaxlib} are not of one version"
        return Finding(status, "packages", text, f"pip install -U jax=={jax} jaxlib=={jax}")
    for extra in host.plugins():
        plugin = f"jax-{extra}-plugin"
        if _numbers(versions[plugin]) != _numbers(jaxlib):
            text = f"{plugin} {versions[plugin]} does not fit jaxlib {jaxlib}"
            return Finding("warning", "packages", text, f"pip install -U 'jax[{extra}]=={jax}'")
    return Finding("ok", "packages", shown)


def devices(host: Host) -> Finding:
    """Compares the devices that JAX uses with those that the machine has."""
    found, gpus, tpus = host.devices, host.nvidia_gpus, host.tpus
    if found.platform not in ("", "cpu"):
        memory = f", {bytes_text(found.memory)} each" if found.memory else ""
        return Finding("ok", "devices", f"{found.count} x {found.kind} ({found.platform}){memory}")
    if gpus or tpus:
        count, what = (gpus, "NVIDIA GPU") if gpus else (tpus, "TPU chip")
        chosen, why, cure = _why_no_gpu(host) if gpus else _why_no_tpu(host)
        # What somebody asked for is no fault.
        status: Status = "warning" if chosen and found.platform else "problem"
        used = "the CPU is used" if found.platform else "JAX opens nothing"
        there = f"there is {count} {what}" if count == 1 else f"there are {count} {what}s"
        return Finding(status, "devices", f"{used} although {there}: {why}", cure)
    if not found.platform:
        asked = host.environment.get("JAX_PLATFORMS")
        who, cure = (f"JAX_PLATFORMS={asked}", "unset it") if asked else ("JAX", "pip install -U -e .")
        why = " ".join(found.complaints) or "it does not say why"
        return Finding("problem", "devices", f"{who} opens nothing: {why}", cure)
    return Finding("ok", "devices", f"{found.count} x CPU; this machine shows no NVIDIA GPU and no TPU")


def _why_no_gpu(host: Host) -> tuple[bool, str, str]:
    """Returns (whether somebody asked for it, the cause, the cure); the likeliest cause first."""
    if chosen := _excluded(host, ("cuda", "gpu")):
        return chosen
    visible = host.environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
        return True, f"CUDA_VISIBLE_DEVICES={visible} hides it", "unset CUDA_VISIBLE_DEVICES"
    if not host.driver:
        cure = f"install the NVIDIA driver {NEEDED_DRIVER['cuda13']} or newer"
        return False, "its driver is not loaded", f"{cure} (in a container: on the host)"
    if not host.has_gpu_files:
        return (
            False,
            "there is no /dev/nvidia*",
            "start the container with its GPUs, as docker run --gpus all",
        )
    plugins, extra = host.plugins(), _fitting_extra(host)
    if not plugins:
        first = "" if extra else f"{driver(host).cure}; then "
        return False, "JAX's CUDA plugin is not installed", f"{first}pip install -e '.[{extra or 'cuda12'}]'"
    for finding in (driver(host), packages(host)):
        if finding.status != "ok":
            return False, finding.text, finding.cure
    why = _complaint(host, "cuda") or f"jax-{plugins[-1]}-plugin is installed but opened nothing"
    if libraries(host).status != "ok":
        return False, f"{why} ({libraries(host).text})", libraries(host).cure
    return False, why, f"see what nvidia-smi says; pip install -U --force-reinstall 'jax[{plugins[-1]}]'"


def _why_no_tpu(host: Host) -> tuple[bool, str, str]:
    if chosen := _excluded(host, ("tpu",)):
        return chosen
    if "libtpu" not in host.versions:
        return False, "libtpu is not installed", "pip install -e '.[tpu]'"
    why = _complaint(host, "tpu") or "libtpu is installed but opened nothing"
    return False, why, "end the program that holds it (sudo lsof -w /dev/accel* /dev/vfio/*)"


def _excluded(host: Host, names: tuple[str, ...]) -> tuple[bool, str, str] | None:
    """Says so if the environment lists platforms without those of these names."""
    listed = host.environment.get("JAX_PLATFORMS", "")
    if not listed or any(name in listed.split(",") for name in names):
        return None
    return True, f"JAX_PLATFORMS={listed} is set", "unset JAX_PLATFORMS"


def _complaint(host: Host, name: str) -> str:
    about = [text for text in host.devices.complaints if name in text.lower()]
    return next(iter(about or host.devices.complaints), "")


def driver(host: Host) -> Finding:
    """Compares the NVIDIA driver with what the installed plugins, or the best one, need."""
    if not host.driver:
        return Finding("problem", "driver", "no NVIDIA driver is loaded", "install it, or load its module")
    major = int(host.driver.split(".")[0])
    wanted = {extra: NEEDED_DRIVER[extra] for extra in host.plugins()} or {"cuda12": NEEDED_DRIVER["cuda12"]}
    for extra, least in wanted.items():
        if major < least:
            text = f"NVIDIA driver {host.driver} is too old for {extra}, which needs {least}"
            other = _fitting_extra(host)
            also = f", or pip uninstall jax-{extra}-plugin and pip install -e '.[{other}]'" if other else ""
            return Finding("problem", "driver", text, f"update the driver to {least} or newer{also}")
    return Finding("ok", "driver", f"NVIDIA driver {host.driver}")


def _fitting_extra(host: Host) -> str:
    """Returns the newest extra that the driver can do; empty if none."""
    major = int(host.driver.split(".")[0]) if host.driver else 0
    return next((extra for extra, least in NEEDED_DRIVER.items() if major >= least), "")


def libraries(host: Host) -> Finding:
    """Looks for CUDA libraries in LD_LIBRARY_PATH, which come before those that pip installed."""
    shadows = []
    for folder in host.folders("LD_LIBRARY_PATH"):
        try:
            names = sorted(os.listdir(host.path(folder)))
        except OSError:
            continue
        if first := next((name for name in names if _LIBRARIES.fullmatch(name)), None):
            shadows.append(f"{folder} ({first})")
    if not shadows:
        return Finding("ok", "LD_LIBRARY_PATH", "no CUDA libraries in it")
    wheels = any(name.startswith(("nvidia-cu", "nvidia-nccl")) for name in host.versions)
    if not wheels:
        return Finding("ok", "LD_LIBRARY_PATH", f"{', '.join(shadows)}; pip installed no others")
    text = f"{', '.join(shadows)} is loaded instead of the libraries that pip installed for JAX"
    return Finding("warning", "LD_LIBRARY_PATH", text, "unset LD_LIBRARY_PATH")


def _numbers(version: str) -> tuple[int, ...]:
    """Returns the leading numbers of a version: (0, 10, 2) of "0.10.2.dev1"."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
