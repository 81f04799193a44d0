"""One flipped bit on one device is found, and the device named where its replicas can outvote it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("drifting_replicas.py")
NORM, KERNEL = "encoder/layer_0/feed_forward_norm/scale", "decoder/layer_0/feed_forward/wi/kernel"


def ask(mesh: str, devices: str) -> list:
    done = subprocess.run(
        [sys.executable, PROGRAM, mesh, devices], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_replicas_outvote_the_one_that_drifted():
    assert ask("8x1x1", "0,5") == [
        None,
        *([path, 0, device, None] for path in (NORM, KERNEL) for device in (0, 5)),
    ]


def test_of_two_replicas_the_later_one_is_named_with_its_rival():
    """With 2 x 2 x 2 a kernel lies twice, on devices n and n + 4; a norm lies on all eight."""
    norms = [NORM, 0, 1, None], [NORM, 0, 6, None]
    assert ask("2x2x2", "1,6") == [None, *norms, [KERNEL, 0, 5, [0, 1]], [KERNEL, 0, 6, [0, 2]]]


@pytest.mark.slow
def test_what_lies_once_cannot_drift():
    assert ask("1x2x4", "3") == [None, [NORM, 0, 3, None], None]
