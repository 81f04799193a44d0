"""From what was measured to the figures that are reported; docs/benchmark.md explains each."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from transformer.benchmark.peak import GemmPeak, datasheet_peak
from transformer.benchmark.report import Figure
from transformer.benchmark.resources import Compilations
from transformer.benchmark.timing import CompiledStep, Window
from transformer.model.size import count_parameters, flops_per_token
from transformer.model.transformer import Transformer


class Measured(NamedTuple):
    """Everything that was measured, before anything is computed from it.

    Attributes:
      model: the model.
      step: what its compilation told.
      whole: steps measured together.
      single: steps awaited one by one.
      shapes: shapes of batches seen.
      compilations: counted until the last step was done.
      late: those of them while steps were measured.
      memory: most bytes in use until then, and what they are.
      peak: fastest matrix product.
      load: processes that wanted to run in the minute before, as the system counts them.
    """

    model: Transformer
    step: CompiledStep
    whole: Window
    single: Window
    shapes: int
    compilations: Compilations
    late: int
    memory: tuple[int, str]
    peak: GemmPeak
    load: float


def figures_of(found: Measured, mesh: Mesh) -> list[Figure]:
    """Returns the figures of a report, in its order."""
    return [*speed_figures(found), *work_figures(found, mesh), *cost_figures(found)]


def speed_figures(found: Measured) -> list[Figure]:
    """Returns tokens per second, step times, waits and padding."""
    whole, single = found.whole, found.single
    steps, times = len(whole.samples), [sample.seconds for sample in single.samples]
    low, middle, high = np.percentile(times, [10, 50, 90]).tolist()
    target = single.total("target_tokens") / len(times)
    places = np.sum([sample.positions for sample in whole.samples], 0).tolist()
    source_tokens, target_tokens = whole.total("source_tokens"), whole.total("target_tokens")
    note = f"{steps} steps together; padding not counted"
    return [
        Figure("source_tokens_per_second", source_tokens / whole.seconds, "tokens/s", note),
        Figure("target_tokens_per_second", target_tokens / whole.seconds, "tokens/s", note),
        Figure(
            "target_tokens_per_second_awaited",
            target / middle,
            "tokens/s",
            "tokens of a step / its median time",
        ),
        Figure("source_tokens_per_step", source_tokens / steps, "tokens"),
        Figure("target_tokens_per_step", target_tokens / steps, "tokens"),
        Figure("step_time", whole.seconds / steps, "s", f"{steps} steps together, data included"),
        Figure("step_time_median", middle, "s", f"{len(times)} steps awaited one by one, without data"),
        Figure("step_time_p90", high, "s"),
        Figure("step_time_min", min(times), "s"),
        Figure("step_time_max", max(times), "s"),
        Figure("step_time_spread", (high - low) / middle, "share", "(p90 - p10) / median"),
        Figure("data_wait", whole.total("wait") / steps, "s", "per step"),
        Figure(
            "padding_source",
            1 - source_tokens / places[0] if places[0] else None,
            "share",
            "of all positions" if places[0] else "there are no sources",
        ),
        Figure("padding_target", 1 - target_tokens / places[1], "share", "of all positions"),
        Figure("core_time", whole.core_seconds / steps, "s", "of all cores together, per step"),
        Figure("cores_busy", whole.core_seconds / whole.seconds, "cores", "by this process, on the mean"),
        Figure("load_before", found.load, "processes", "that wanted to run in the minute before"),
    ]


def work_figures(found: Measured, mesh: Mesh) -> list[Figure]:
    """Returns the model's arithmetic, the device's, and their ratio."""
    whole, device = found.whole, mesh.devices.flat[0]
    pairs, target_tokens = whole.total("pairs"), whole.total("target_tokens")
    lengths = whole.total("source_tokens") / pairs, target_tokens / pairs
    per_token = flops_per_token(found.model, *lengths)
    done = per_token * target_tokens / whole.seconds
    # Devices that are simulated on a host's cores have one peak together.
    devices = 1 if device.platform == "cpu" else mesh.size
    sheet = datasheet_peak(device.device_kind)
    shape = " x ".join(map(str, found.peak.shape))
    return [
        Figure("mean_source_length", lengths[0], "tokens", "of the pairs in these steps, end mark included"),
        Figure("mean_target_length", lengths[1], "tokens"),
        Figure(
            "model_flops_per_target_token", per_token, "FLOP", "forward and backward, at the mean lengths"
        ),
        Figure("model_flops", done, "FLOP/s"),
        Figure("gemm_peak", found.peak.flops, "FLOP/s", f"measured: {shape}, of one device"),
        Figure("mfu", done / (devices * found.peak.flops), "share", "of the measured peak"),
        Figure("datasheet_peak", sheet, "FLOP/s", "dense bfloat16" if sheet else device.device_kind),
        Figure(
            "mfu_datasheet", done / (devices * sheet) if sheet else None, "share", "of the datasheet's peak"
        ),
    ]


def cost_figures(found: Measured) -> list[Figure]:
    """Returns memory, compilation, traffic, and the loss as a sign of life."""
    loss, count = found.single.samples[-1].loss, found.compilations
    return [
        Figure("peak_memory", found.memory[0], "B", found.memory[1]),
        Figure("step_memory", found.step.bytes, "B", "of a device, by the compiler's plan of the step"),
        Figure("bytes_sent", found.step.sent, "B", "by a device to others, per step"),
        Figure("trace_time", found.step.trace_seconds, "s", "from Python to the compiler"),
        Figure("compile_time", found.step.compile_seconds, "s", "of the training step, its first shape"),
        Figure("batch_shapes", found.shapes, "", "one compilation of the step each"),
        Figure("compilations", count.total, "", f"all programs; {count.cached} from JAX's cache on disk"),
        Figure("compilations_late", found.late, "", "of them while steps were measured"),
        Figure("last_loss", loss if math.isfinite(loss) else None, "nats", "per target token, smoothed"),
    ]


def heading(model: Transformer, origin: str, mesh: Mesh, around: Mapping[str, Any]) -> list[str]:
    """Returns the lines above the figures: what was measured, and on what.

    Args:
      model: the model.
      origin: of the data.
      mesh: devices used.
      around: as `report.surroundings` returns it.
    """
    c, host, devices = model.config, around["host"], around["devices"]
    used = " x ".join(f"{axis}={size}" for axis, size in mesh.shape.items())
    shared = ", simulated on shared cores" if mesh.size > 1 and devices["platform"] == "cpu" else ""
    return [
        f"model   d_model {c.d_model}, d_ff {c.d_ff}, {c.num_heads} heads, {c.num_encoder_layers} + "
        f"{c.num_decoder_layers} layers, vocabulary {model.source_vocab:,} and {model.target_vocab:,}, "
        f"{count_parameters(model)['total']:,} parameters, {c.dtype}",
        f"data    {origin}",
        f"device  {mesh.size} of {devices['count']} x {devices['kind']}, mesh {used}{shared}",
        f"host    {host['processor']}, {host['usable_cores']} cores usable",
        "with    " + ", ".join(f"{name} {version}" for name, version in around["versions"].items()),
        f"config  {around['config_digest']}",
    ]
