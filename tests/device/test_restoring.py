"""A state that was saved on one mesh is restored on every other with the same bits."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("restoring.py")


def test_every_mesh_restores_what_every_mesh_saved(tmp_path):
    meshes = ["8", "2x2x2", "2", "1"]
    done = subprocess.run(
        [sys.executable, PROGRAM, tmp_path, *meshes], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    count, *differing = done.stdout.splitlines()
    assert int(count) > 100
    assert differing == []
