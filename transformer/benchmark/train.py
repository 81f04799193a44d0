"""`transformer benchmark train`: how fast a configuration trains, and what of the device that takes."""

import argparse
import contextlib
import math
import os

import jax
from jax.sharding import AxisType, Mesh

from transformer.axes import MESH_AXES
from transformer.benchmark import preset, report
from transformer.benchmark.figures import Measured, figures_of, heading
from transformer.benchmark.material import MEAN_LENGTH, Material, real_material, synthetic_material
from transformer.benchmark.peak import measure_gemm_peak
from transformer.benchmark.resources import counted_compilations, peak_memory
from transformer.benchmark.timing import Stepper, run_window
from transformer.config import Config
from transformer.data.pipeline import row_lengths
from transformer.errors import ConfigError
from transformer.io.allocator import keep_freed_memory
from transformer.io.devices import (
    check_attention,
    check_lengths,
    check_sizes,
    make_mesh,
    mesh_overrides,
    one_step_at_a_time,
    parse_mesh,
)
from transformer.io.progress import Progress
from transformer.io.text import check_output
from transformer.recipes import load_config

_STEPS = {"cpu": (20, 3)}  # measured and before them; an accelerator does more of them in less time
_MORE_STEPS = (100, 20)
_PEAK = "measuring the fastest matrix product"


def run(args: argparse.Namespace) -> int:
    """Measures, prints a table and writes `args.json`.

    Raises:
      UserError: if the configuration, its data or an option cannot be used.
    """
    for name, least in (("steps", 1), ("warmup", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name} {value}: must be at least {least}")
    check_output(args.json)
    config = load_config(args.config or preset.__file__, overrides(args))
    one_step_at_a_time()
    mesh = choose_mesh(args.mesh, config)
    keep_freed_memory(mesh)
    check_attention(mesh, config.model)
    check_lengths(mesh.shape, config.model, row_lengths(config.data, config.row_length))
    progress = Progress()
    try:
        material = choose_material(args, config, progress)
        found = measure(config, material, mesh, args.steps, args.warmup, progress)
    finally:
        progress.close()
    figures = figures_of(found, mesh)
    around = report.surroundings(config)
    for line in (*heading(found.model, material.origin, mesh, around), "", *report.table(figures)):
        print(line)
    about = {"benchmark": "train", "data": material.origin, "mesh": dict(mesh.shape)}
    report.write(args.json, {**about, **around, "figures": report.as_json(figures)})
    return 0


def overrides(args: argparse.Namespace) -> list[str]:
    """Returns the changes of the configuration that the options ask for, the user's own last."""
    changes = []
    if args.preset:
        changes.append(f"--config.model.preset={args.preset}")
    if args.vocab_size is not None:
        changes.append(f"--config.tokenizer.vocab_size={args.vocab_size}")
    if sizes := parse_mesh(args.mesh):
        changes += mesh_overrides(sizes)
    return [*changes, *args.overrides]


def choose_mesh(text: str | None, config: Config) -> Mesh:
    """Returns the mesh asked for, of the first devices; without one the configuration's, of all.

    Raises:
      ConfigError: if there are not enough devices.
    """
    if (sizes := parse_mesh(text)) is None:
        return make_mesh(config.mesh)
    if config.mesh.sequence != 1:
        raise ConfigError(
            f"--mesh {text}: has no axis for config.mesh.sequence {config.mesh.sequence}; give all sizes "
            "in config.mesh, or set config.mesh.sequence=1"
        )
    wanted, devices = math.prod(sizes), jax.devices()
    if wanted > len(devices):
        remedy = f"; XLA_FLAGS=--xla_force_host_platform_device_count={wanted} simulates them"
        raise ConfigError(
            f"--mesh {text}: needs {wanted} devices, there are {len(devices)} ({devices[0].platform})"
            + (remedy if devices[0].platform == "cpu" else "; choose a smaller one")
        )
    return jax.make_mesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:wanted])


def choose_material(args: argparse.Namespace, config: Config, progress: Progress) -> Material:
    """Returns what is trained on: with a recipe its own data unless told otherwise, else synthetic."""
    kind = args.data or ("real" if args.config else "synthetic")
    if kind == "real":
        if args.mean_length is not None:
            raise ConfigError("--mean_length: belongs to --data synthetic")
        return real_material(config, args.workdir, progress.note)
    if args.workdir is not None:
        raise ConfigError("--workdir: belongs to --data real; synthetic data need no folder")
    if config.model.kind == "encoder_only":
        raise ConfigError(
            f"--data synthetic: is pairs, which '{config.model.kind}' models do not read; leave it out"
        )
    if config.model.source_features:
        raise ConfigError("--data synthetic: is pieces, and the model reads frames; measure --data real")
    return synthetic_material(config, MEAN_LENGTH if args.mean_length is None else args.mean_length)


def measure(
    config: Config, material: Material, mesh: Mesh, steps: int | None, warmup: int | None, progress: Progress
) -> Measured:
    """Compiles a training step, warms up, and measures steps together and one by one, and the peak.

    A host's cores are shared with others more often than an accelerator is. So their peak is taken
    before and after, and the better counts; on an accelerator it would count as the step's memory.

    Args:
      config: the run.
      material: what is trained on.
      mesh: devices.
      steps: of each of the two windows; None: 20 on CPU, 100 elsewhere.
      warmup: steps that come before and do not count; None: 3 on CPU, 20 elsewhere.
      progress: shows how far it is.

    Raises:
      ConfigError: if the mesh does not divide the model.
    """
    device = mesh.devices.flat[0]
    usual = _STEPS.get(device.platform, _MORE_STEPS)
    steps, warmup = steps or usual[0], warmup or usual[1]
    sizes = {"source": material.source_vocab, "target": material.target_vocab}
    check_sizes(mesh.shape, config.model, sizes)
    load, peaks = os.getloadavg()[0], []
    if device.platform == "cpu":
        progress.note(_PEAK)
        peaks.append(measure_gemm_peak(config.model.dtype, device=device))
    # On one device there is nothing to constrain.
    with jax.set_mesh(mesh) if mesh.size > 1 else contextlib.nullcontext(), counted_compilations() as count:
        stepper = Stepper(config, material, mesh)
        try:
            progress.note("compiling")
            first = stepper.feed().batch
            compiled = stepper.compile(first)
            progress.note(f"compiled in {compiled.compile_seconds:.1f} s; {warmup} steps to warm up")
            stepper.step(first)
            run_window(
                stepper, warmup - 1, False, lambda n: progress.show(f"warming up: {n + 1} of {warmup}")
            )
            early = count.total
            whole = run_window(stepper, steps, False, lambda n: progress.show(f"together: {n} of {steps}"))
            single = run_window(stepper, steps, True, lambda n: progress.show(f"one by one: {n} of {steps}"))
        finally:
            stepper.close()
    memory, late = peak_memory(mesh), count.total - early
    progress.note(_PEAK)
    peaks.append(measure_gemm_peak(config.model.dtype, device=device))
    return Measured(
        stepper.model, compiled, whole, single, len(stepper.shapes), count, late, memory, max(peaks), load
    )
