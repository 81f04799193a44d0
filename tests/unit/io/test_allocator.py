"""Freed memory, as the system sees it: in processes of their own, since the setting stays."""

import os
import platform
import subprocess
import sys

import pytest

CODE = """
import sys, numpy as np
from transformer.config import MeshConfig
from transformer.io.allocator import keep_freed_memory
from transformer.io.devices import make_mesh

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))

mesh = make_mesh(MeshConfig())
kept = keep_freed_memory(mesh) if sys.argv[1] == "keep" else None
before = resident()
block = np.ones(16 << 20)
held = resident()
del block
print(kept, held - before > 100_000, resident() - before > 100_000)
"""


def run(choice: str, **environment: str) -> list[str]:
    plain = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES" and not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", CODE, choice],
        env={**plain, **environment, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")
def test_what_is_freed_stays():
    assert run("leave") == ["None", "True", "False"]
    assert run("keep") == ["True", "True", "True"]


def test_what_the_environment_asks_for_comes_first():
    assert run("keep", MALLOC_ARENA_MAX="4")[0] == "False"
    assert run("keep", GLIBC_TUNABLES="glibc.malloc.arena_max=2")[0] == "False"
