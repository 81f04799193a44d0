"""Figures on the screen and in a JSON file, and where they were measured."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from transformer.benchmark.resources import processor, usable_cores
from transformer.config import Config
from transformer.config_mapping import to_dict
from transformer.io.workdir import write_json

_PACKAGES = ("transformer", "jax", "jaxlib", "flax", "optax", "grain", "numpy")
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_SCALED = ("FLOP/s", "FLOP", "B")


class Figure(NamedTuple):
    """One number of a report.

    Attributes:
      key: its name in JSON, words joined by "_".
      value: in `unit`; None: unknown.
      unit: "s", "B", "FLOP", "FLOP/s", "tokens/s", "share" (of 1), "" for a plain number, ...
      note: what a reader has to know about it.
    """

    key: str
    value: float | None
    unit: str
    note: str = ""


def table(figures: Sequence[Figure]) -> Iterator[str]:
    """Yields one aligned line for each figure: its name, its value, its unit, its note."""
    cells = [(f.key.replace("_", " "), *shown(f.value, f.unit), f.note) for f in figures]
    name, value, unit = (max(len(row[i]) for row in cells) for i in range(3))
    for row in cells:
        yield f"{row[0]:<{name}}  {row[1]:>{value}} {row[2]:<{unit}}  {row[3]}".rstrip()


def shown(value: float | None, unit: str) -> tuple[str, str]:
    """Returns a value and its unit as a person reads them: (4.75e11, "FLOP/s") as ("475.0", "GFLOP/s")."""
    if value is None:
        return "unknown", ""
    if unit == "share":
        return f"{100 * value:.1f}", "%"
    if unit == "s":
        return (f"{value:.3f}", "s") if value >= 1 else (f"{1e3 * value:.2f}", "ms")
    if unit in _SCALED:
        scale, prefix = next(((s, p) for s, p in _PREFIXES if abs(value) >= s), (1.0, ""))
        return f"{value / scale:.1f}", prefix + unit
    if isinstance(value, int):
        return f"{value:,}", unit
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"), unit


def as_json(figures: Sequence[Figure]) -> dict[str, dict[str, Any]]:
    """Returns {key: {"value", "unit", "note"}}, values in units without prefix, unknown ones null."""
    return {f.key: {"value": f.value, "unit": f.unit, "note": f.note} for f in figures}


def surroundings(config: Config) -> dict[str, Any]:
    """Returns what was measured with: versions, devices, processor, cores, configuration."""
    devices = jax.devices()
    return {
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "devices": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
        },
        "host": {"processor": processor(), "usable_cores": usable_cores()},
        "config_digest": digest(config),
    }


def digest(config: Config) -> str:
    """Returns 16 hexadecimal digits of the configuration; where its data lie does not count."""
    values = to_dict(config)
    del values["data"]["root"]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def write(file: str | None, report: dict[str, Any]) -> None:
    """Writes a report as JSON, if a file was asked for."""
    if file is not None:
        write_json(Path(file), report)
