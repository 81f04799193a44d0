"""Programs with eight simulated devices, in processes of their own: their number is fixed when JAX starts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_TESTS = Path(__file__).parents[1]


def run_on_eight(
    script: str, *words: str, timeout: int = 280, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a program of this folder, whether it fails or not."""
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    path = map(str, filter(None, (_TESTS.parent, _TESTS, os.environ.get("PYTHONPATH"))))
    ours = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(path), "XLA_FLAGS": flags}
    return subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script)), *words],
        env={**os.environ, **ours, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def report_of_eight(script: str, *words: str) -> dict[str, Any]:
    """Returns what a program printed as JSON, which says first that there were eight devices."""
    done = run_on_eight(script, *words)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report.pop("devices") == 8
    return report
