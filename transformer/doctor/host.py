"""What a machine tells of itself: accelerators, driver, packages, environment."""

import dataclasses
import functools
import importlib.metadata
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

_DISPLAY, _NVIDIA, _GOOGLE = "0x03", "0x10de", "0x1ae0"  # PCI class and vendors
_PROCESSING = ("0x12", "0xff")  # PCI classes of TPUs; Google's network cards have the same vendor
_DRIVER = re.compile(r"\s(\d{3,}(?:\.\d+)+)\s")  # in /proc/driver/nvidia/version


def installed() -> dict[str, str]:
    """Returns the version of every installed package; names in small letters, with hyphens."""
    found: dict[str, str] = {}
    for package in importlib.metadata.distributions():
        if name := package.metadata["Name"]:
            # The first on the path is the one that is imported.
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), package.version)
    return found


@dataclasses.dataclass(frozen=True)
class Devices:
    """What JAX opened, seen from a process of its own.

    Attributes:
      platform: "cpu", "gpu", "tpu"; empty if nothing could be opened.
      count: number of devices.
      kind: the name of the first one.
      memory: bytes of the first one; 0 where it does not say.
      complaints: what JAX said of platforms that it could not open, or why there is no answer at all.
    """

    platform: str = ""
    count: int = 0
    kind: str = ""
    memory: int = 0
    complaints: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Host:
    """A machine, as seen through its files.

    Attributes:
      devices: what JAX opened on it.
      root: folder that /proc, /sys, /dev and the folders of the environment's paths are looked up in.
      environment: of the process.
      versions: of installed packages, see `installed`.
    """

    devices: Devices = Devices()
    root: Path = Path("/")
    environment: Mapping[str, str] = dataclasses.field(default_factory=lambda: dict(os.environ))
    versions: Mapping[str, str] = dataclasses.field(default_factory=installed)

    def path(self, absolute: str) -> Path:
        """Returns where the file of this name is."""
        return self.root / absolute.lstrip("/")

    @functools.cached_property
    def nvidia_gpus(self) -> int:
        """Number of NVIDIA GPUs in this machine, whether or not they can be used."""
        pci = sum(kind.startswith(_DISPLAY) for kind in self._pci_classes(_NVIDIA))
        driver = len(list(self.path("/proc/driver/nvidia/gpus").glob("*")))
        return max(pci, driver, len(list(self.path("/dev").glob("nvidia[0-9]*"))), len(self._drivers_by_smi))

    @functools.cached_property
    def tpus(self) -> int:
        """Number of TPU chips in this machine."""
        files = len(list(self.path("/dev").glob("accel[0-9]*")))
        pci = sum(kind.startswith(_PROCESSING) for kind in self._pci_classes(_GOOGLE))
        return files or (pci if self.path("/dev/vfio").exists() else 0)

    @functools.cached_property
    def driver(self) -> str:
        """Version of the NVIDIA driver; empty if none is loaded."""
        found = _DRIVER.search(_read(self.path("/proc/driver/nvidia/version")))
        return found[1] if found else next(iter(self._drivers_by_smi), "")

    @property
    def has_gpu_files(self) -> bool:
        """Whether there are the device files without which JAX does not even try."""
        return any(self.path(f"/dev/{name}").exists() for name in ("nvidia0", "nvidiactl", "dxg"))

    def plugins(self) -> list[str]:
        """Returns the installed CUDA plugins of JAX: "cuda12", "cuda13"."""
        return [extra for extra in ("cuda12", "cuda13") if f"jax-{extra}-plugin" in self.versions]

    def folders(self, variable: str) -> list[str]:
        """Returns the folders that an environment variable such as PATH lists."""
        return [folder for folder in self.environment.get(variable, "").split(":") if folder]

    @functools.cached_property
    def _drivers_by_smi(self) -> list[str]:
        """Driver version, once for each GPU: all that WSL shows of them."""
        for folder in self.folders("PATH"):
            if (program := self.path(folder) / "nvidia-smi").is_file():
                query = [str(program), "--query-gpu=driver_version", "--format=csv,noheader"]
                try:
                    told = subprocess.run(query, capture_output=True, text=True, timeout=30)
                except (OSError, subprocess.TimeoutExpired):
                    return []
                # Without a driver it says so, in a sentence and with an exit code.
                return told.stdout.split() if told.returncode == 0 else []
        return []

    def _pci_classes(self, vendor: str) -> list[str]:
        devices = self.path("/sys/bus/pci/devices").glob("*")
        return [_read(device / "class") for device in devices if _read(device / "vendor").strip() == vendor]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
