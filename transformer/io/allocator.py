"""The C library's allocator, told to keep what a step gives back for the next one."""

import ctypes
import os

from jax.sharding import Mesh

# Numbers of glibc's malloc.h, and what they are set to.
_SETTINGS = (
    (-4, 0),  # M_MMAP_MAX: no large block is a mapping of its own, which would end when it is freed
    (-1, -1),  # M_TRIM_THRESHOLD: nothing free is given back to the system
    (-2, 256 << 20),  # M_TOP_PAD: bytes asked of the system beyond those that are needed now
    (-8, 1),  # M_ARENA_MAX: what one thread frees another one takes
)


def keep_freed_memory(mesh: Mesh) -> bool:
    """Lets a process that computes on CPUs keep the memory it has had; returns whether it does.

    Otherwise glibc gives large blocks back as soon as they are free and is given them anew, page by page,
    in each step, which takes a seventh of it. Nothing is done where the devices are accelerators, where
    the C library is another one, and where the environment says how memory is to be allocated
    (GLIBC_TUNABLES, MALLOC_...).
    """
    named = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None or named or mesh.devices.flat[0].platform != "cpu":
        return False
    done = [mallopt(number, value) for number, value in _SETTINGS]
    return all(done)
