"""What a process used: compilations, memory, cores."""

import contextlib
import os
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

_COMPILED = "/jax/core/compile/backend_compile_duration"
_FROM_CACHE = "/jax/compilation_cache/cache_hits"


class Compilations:
    """How many programs were compiled so far, and how many of them came from JAX's cache on disk."""

    def __init__(self) -> None:
        self.total = self.cached = 0


@contextlib.contextmanager
def counted_compilations() -> Iterator[Compilations]:
    """Counts the programs that JAX compiles in this process."""
    count = Compilations()

    def compiled(event: str, duration_secs: float, **_: Any) -> None:
        count.total += event == _COMPILED

    def cached(event: str, **_: Any) -> None:
        count.cached += event == _FROM_CACHE

    jax.monitoring.register_event_duration_secs_listener(compiled)
    jax.monitoring.register_event_listener(cached)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(compiled)
        jax.monitoring.unregister_event_listener(cached)


def peak_memory(mesh: Mesh) -> tuple[int, str]:
    """Returns the most bytes in use so far, and what they are: a device's, or on CPU the process's."""
    known = [stats for device in mesh.devices.flat if (stats := device.memory_stats())]
    if known:
        return max(stats["peak_bytes_in_use"] for stats in known), "of the fullest device"
    return resident_peak(), "resident, whole process"


def resident_peak() -> int:
    """Returns the most bytes that were resident in this process so far."""
    try:
        # The process's own; what getrusage tells begins with the memory of the one that started it.
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def usable_cores() -> int:
    """Returns the processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not every system has affinities
        return os.cpu_count() or 1


def processor() -> str:
    """Returns the name of the host's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
