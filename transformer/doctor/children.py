"""The doctor's children: what may hang, crash or hold a device runs in processes of their own.

python -m transformer.doctor.children devices
python -m transformer.doctor.children sum HOST:PORT INDEX
"""

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from transformer.doctor.findings import Finding
from transformer.doctor.host import Devices
from transformer.io.standard_error import say

_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy", "all_proxy")
_SUMMED = 1_000_000  # float32 numbers of each process


def find_devices(environment: Mapping[str, str], timeout: float = 180.0) -> Devices:
    """Asks a process of its own what JAX opens.

    Args:
      environment: of that process.
      timeout: seconds; a driver that hangs would hang the doctor.
    """
    # Without preallocation it needs little of a GPU on which something runs.
    quiet = {**environment, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    try:
        told = subprocess.run(
            _command("devices"), env=quiet, capture_output=True, text=True, timeout=timeout, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return Devices(complaints=(f"no answer within {timeout:.0f} s",))
    for line in reversed(told.stdout.splitlines()):
        with contextlib.suppress(ValueError, TypeError):
            found = json.loads(line)
            return Devices(**{**found, "complaints": tuple(found["complaints"])})
    return Devices(complaints=(cause(told.stderr) or f"its process ended with code {told.returncode}",))


def check_sum(environment: Mapping[str, str], timeout: float = 60.0) -> Finding:
    """Lets two processes of this machine sum over both, on CPU, started as those of a run are.

    Args:
      environment: of both.
      timeout: seconds for all of it.
    """
    name = "two processes"
    try:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            address = f"localhost:{probe.getsockname()[1]}"
            socket.create_connection(probe.getsockname(), timeout=5).close()
    except OSError as error:
        why = error.strerror or str(error)
        return Finding("problem", name, f"127.0.0.1 cannot be used: {why}", "ip link set lo up")
    began = time.monotonic()
    codes, outputs, errors = _run_two(address, {**environment, "JAX_PLATFORMS": "cpu"}, timeout)
    took = time.monotonic() - began
    if codes == [0, 0] and (found := _seconds_of_sum(outputs[0])) is not None:
        size = f"{4 * _SUMMED / 1e6:.0f} MB"
        return Finding("ok", name, f"sum of {size} over both in {found * 1e3:.1f} ms, {took:.1f} s in all")
    why = next((text for text in map(cause, errors) if text), "")
    if None in codes:
        why = f"no end within {timeout:.0f} s" + (f" ({why})" if why else "")
    set_ones = [key for key in environment if key.lower() in _PROXIES]
    if set_ones:
        return Finding(
            "problem", name, why or f"codes {codes}", f"unset {' '.join(set_ones)}, or no_proxy=localhost"
        )
    return Finding("problem", name, why or f"codes {codes}", "see whether a firewall guards 127.0.0.1")


def cause(stderr: str) -> str:
    """Returns the line of a program's standard error that tells most; empty if it said nothing."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    for mark in ("transformer: error: ", "Error"):
        if found := [line for line in lines if mark in line]:
            return found[-1].removeprefix("transformer: error: ")
    return lines[-1] if lines else ""


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "transformer.doctor.children", *words]


def _run_two(
    address: str, environment: Mapping[str, str], timeout: float
) -> tuple[list[int | None], list[str], list[str]]:
    """Returns exit codes (None: had to be killed), standard outputs and standard errors of both."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as files:
        children = []
        try:
            for index in ("0", "1"):
                out, err = (files.enter_context(Path(folder, kind + index).open("wb")) for kind in "oe")
                words = _command("sum", address, index)
                children.append(subprocess.Popen(words, env=environment, stdout=out, stderr=err))
            deadline = time.monotonic() + timeout
            while time.monotonic() < deadline and any(child.poll() is None for child in children):
                time.sleep(0.02)
            codes = [child.poll() for child in children]
        finally:
            for child in children:
                child.kill()
                child.wait()
        texts = {p.name: p.read_text(errors="replace") for p in Path(folder).iterdir()}
    return codes, [texts["o0"], texts["o1"]], [texts["e0"], texts["e1"]]


def _seconds_of_sum(output: str) -> float | None:
    """Returns the seconds that process 0 measured, if the sum was right."""
    for line in output.splitlines():
        if line.startswith("sum "):
            _, value, seconds = line.split()
            return float(seconds) if float(value) == 3.0 else None
    return None


def _tell_devices() -> None:
    complaints: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            error = record.exc_info[1] if record.exc_info else None
            text = " ".join(f"{record.getMessage()} {error or ''}".split())
            if "nable to initialize" in text or "plugin" in text.lower():
                complaints.append(text)

    logger = logging.getLogger("jax")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(Listener())
    answer: dict[str, object] = {}
    try:
        import jax

        devices = jax.devices()
        statistics = devices[0].memory_stats() or {}
        answer = {
            "platform": devices[0].platform,
            "count": len(devices),
            "kind": devices[0].device_kind,
            "memory": statistics.get("bytes_limit", 0),
        }
    except Exception as error:  # whatever a driver or a package of another version raises
        complaints.append(" ".join(f"{type(error).__name__} {error}".split()))
    print(json.dumps({**answer, "complaints": complaints}), flush=True)


def _tell_sum(address: str, index: int) -> None:
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from transformer.io.processes import start

    with start(address, 2, index, heartbeat=10.0, timeout=45.0):
        # One device of each process: some environments simulate more.
        firsts = [next(d for d in jax.devices() if d.process_index == i) for i in range(2)]
        mesh = Mesh(np.array(firsts), ("data",))
        rows = NamedSharding(mesh, PartitionSpec("data"))
        mine = np.full((1, _SUMMED), index + 1.0, np.float32)
        x = jax.make_array_from_process_local_data(rows, mine, (2, _SUMMED))
        add = jax.jit(lambda x: x.sum(0), out_shardings=NamedSharding(mesh, PartitionSpec()))
        add(x).block_until_ready()
        began = time.monotonic()
        total = np.asarray(add(x).addressable_data(0))
        seconds = time.monotonic() - began
        value = float(total[0]) if (total == total[0]).all() else float("nan")
        print(f"\nsum {value:g} {seconds:.6f}", flush=True)


def main(words: list[str]) -> int:
    """Runs one child; returns its exit code."""
    from transformer.errors import UserError

    if words[0] == "devices":
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
        _tell_devices()
        return 0
    try:
        _tell_sum(words[1], int(words[2]))
    except UserError as error:
        say(f"transformer: error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
