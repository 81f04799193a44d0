"""`transformer benchmark scaling`: `benchmark train` on one mesh after the other."""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer.benchmark import report
from transformer.errors import CheckpointError, ConfigError, DataError, UserError
from transformer.io.devices import parse_mesh, simulated
from transformer.io.standard_error import say
from transformer.io.text import check_output

_KINDS = {kind.exit_code: kind for kind in (ConfigError, DataError, CheckpointError)}
_ERROR = "transformer: error: "
_PASSED_ON = ("config", "preset", "vocab_size", "data", "workdir", "mean_length", "steps", "warmup")
_COLUMNS = {  # figures of `benchmark train`, their headings and units
    "source_tokens_per_second": ("source tokens/s", "tokens/s"),
    "target_tokens_per_second": ("target tokens/s", "tokens/s"),
    "step_time_median": ("step median", "s"),
    "step_time_spread": ("spread", "share"),
    "mfu": ("MFU", "share"),
    "bytes_sent": ("sent per device", "B"),
    "step_memory": ("step memory", "B"),
}


def run(args: argparse.Namespace) -> int:
    """Measures each mesh in a process of its own, prints one table and writes `args.json`.

    Raises:
      UserError: if an option cannot be used, or as the first process that could not measure ended.
    """
    meshes = args.meshes.split(",")
    for mesh in meshes:
        parse_mesh(mesh)
    check_output(args.json)
    words = [f"--{name}={value}" for name in _PASSED_ON if (value := getattr(args, name)) is not None]
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        if (args.data or args.config) and args.data != "synthetic" and args.workdir is None:
            words.append(f"--workdir={Path(scratch, 'work')}")  # what the first encodes serves the others
        for mesh in meshes:
            file = Path(scratch, "report.json")
            _measure([*words, f"--mesh={mesh}", f"--json={file}", *args.overrides], mesh)
            results.append(json.loads(file.read_text()))
    rows, shared = compare(meshes, results), is_simulated(results)
    for line in (*_heading(results[0], shared), "", *table(rows)):
        print(line)
    report.write(args.json, {"benchmark": "scaling", "simulated": shared, "meshes": rows, "runs": results})
    return 0


def _heading(first: Mapping[str, Any], shared: bool) -> list[str]:
    host = first["host"]
    lines = [
        f"data    {first['data']}; the same global batch on every mesh",
        f"device  {first['devices']['kind']}; {host['processor']}, {host['usable_cores']} cores usable",
    ]
    if shared:
        lines += [
            "note    the devices are simulated and share the cores, so only the overhead of dividing shows:",
            "        efficiency is tokens/s over those of the first mesh, whatever the number of devices",
        ]
    return lines


def is_simulated(results: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether some mesh had several devices on one host's cores."""
    return any(r["devices"]["platform"] == "cpu" and r["devices"]["count"] > 1 for r in results)


def compare(meshes: Sequence[str], results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row for each mesh: speed, and efficiency against the first.

    Efficiency is tokens/s per device over those of the first mesh. Simulated devices add no cores,
    so there it is tokens/s over tokens/s.
    """
    rows: list[dict[str, Any]] = []
    for mesh, result in zip(meshes, results, strict=True):
        figures = {name: figure["value"] for name, figure in result["figures"].items()}
        devices = math.prod(result["mesh"].values())
        row = {"mesh": mesh, "devices": devices, **{key: figures[key] for key in _COLUMNS}}
        rows.append(row)
    share = [1 if is_simulated(results) else row["devices"] for row in rows]
    speeds = [row["target_tokens_per_second"] / n for row, n in zip(rows, share, strict=True)]
    return [{**row, "efficiency": speed / speeds[0]} for row, speed in zip(rows, speeds, strict=True)]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the rows as aligned lines under a heading."""
    cells = [["mesh", "devices", "efficiency", *(name for name, _ in _COLUMNS.values())]]
    for row in rows:
        found = [
            report.shown(row[key], unit)[0] if unit == "tokens/s" else " ".join(report.shown(row[key], unit))
            for key, (_, unit) in _COLUMNS.items()
        ]
        cells.append([row["mesh"], str(row["devices"]), f"{100 * row['efficiency']:.0f} %", *found])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells]


def _measure(words: Sequence[str], mesh: str) -> None:
    """Runs `benchmark train` and passes on what it says; on CPU there are as many devices as the mesh has.

    Raises:
      UserError: with its error's line and kind.
    """
    command = [sys.executable, "-m", "transformer", "benchmark", "train", *words]
    error: list[str] = []
    pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
    environment = simulated(math.prod(parse_mesh(mesh) or ()), os.environ)
    with subprocess.Popen(
        command,
        env=environment,
        stdout=quiet,
        stderr=pipe,
        text=True,
        errors="replace",
    ) as child:
        try:
            for line in child.stderr or ():
                if error or line.startswith(_ERROR):  # which may have several lines
                    error.append(line.removeprefix(_ERROR).rstrip())
                else:
                    say(f"{mesh}: {line.rstrip()}")
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        kind = _KINDS.get(child.returncode, UserError)
        why = "\n".join(error) or f"its process ended with code {child.returncode}"
        raise kind(f"--meshes, {mesh}: {why}")
