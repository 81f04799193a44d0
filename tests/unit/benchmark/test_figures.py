"""From measurements to figures, the table and the digest: by hand."""

import dataclasses
import resource
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from transformer.benchmark import peak, report
from transformer.benchmark.figures import Measured, figures_of, heading
from transformer.benchmark.peak import GemmPeak, datasheet_peak, measure_gemm_peak
from transformer.benchmark.report import Figure
from transformer.benchmark.resources import Compilations, counted_compilations, peak_memory
from transformer.benchmark.timing import CompiledStep, Fed, Sample, Window, run_window
from transformer.config import Config, DataConfig, ModelConfig
from transformer.data.batch import Batch
from transformer.model.transformer import Transformer


def mesh(platform: str, kind: str, data: int) -> SimpleNamespace:
    device = SimpleNamespace(platform=platform, device_kind=kind, memory_stats=lambda: None)
    shape = {"data": data, "fsdp": 1, "tensor": 1}
    return SimpleNamespace(devices=np.full((data, 1, 1), device), shape=shape, size=data)


def sample(seconds: float = 0.0, wait: float = 0.0) -> Sample:
    """A step of 10 pairs, 60 and 80 tokens in 8 rows of 16 positions."""
    return Sample(seconds, wait, 10, 60, 80, (128, 128), 2.5)


def measured(**changes: object) -> Measured:
    config = ModelConfig(d_model=8, d_ff=16, num_heads=2, num_encoder_layers=1, num_decoder_layers=2)
    compilations = Compilations()
    compilations.total = 4
    found = Measured(
        Transformer(config, 50, 50),
        CompiledStep(1.0, 2.0, 1000, 0.0),
        Window(2.0, 3.0, [sample(wait=0.1), sample(wait=0.3)]),
        Window(1.5, 1.5, [sample(t) for t in (0.4, 0.5, 0.6)]),
        1,
        compilations,
        0,
        (10**9, "resident"),
        GemmPeak(1e6, (4, 4, 4)),
        0.5,
    )
    return found._replace(**changes)


def values(found: Measured, where: SimpleNamespace) -> dict[str, float | None]:
    return {figure.key: figure.value for figure in figures_of(found, where)}


def test_speed():
    v = values(measured(), mesh("cpu", "cpu", 1))
    assert v["source_tokens_per_second"] == 120 / 2.0
    assert v["target_tokens_per_second"] == 160 / 2.0
    assert v["target_tokens_per_second_awaited"] == pytest.approx(80 / 0.5)
    assert v["step_time"] == 1.0
    assert (v["step_time_min"], v["step_time_median"], v["step_time_max"]) == (0.4, 0.5, 0.6)
    assert v["step_time_p90"] == pytest.approx(0.58)  # between the second and the third, four fifths of it
    assert v["step_time_spread"] == pytest.approx((0.58 - 0.42) / 0.5)
    assert v["data_wait"] == pytest.approx(0.2)
    assert v["padding_source"] == pytest.approx(1 - 60 / 128)
    assert v["padding_target"] == pytest.approx(1 - 80 / 128)
    assert v["cores_busy"] == 1.5 and v["core_time"] == 1.5


def test_model_flops_utilisation():
    D, F, V, S, T = 8, 16, 50, 6.0, 8.0
    encoder = 8 * S * D**2 + 4 * S**2 * D + 4 * S * D * F
    decoder = 8 * T * D**2 + 4 * T**2 * D + 4 * T * D * F + 4 * (T + S) * D**2 + 4 * T * S * D
    of_a_pair = 3 * (encoder + 2 * decoder + 2 * T * D * V)
    done = 20 * of_a_pair / 2.0  # 20 pairs in 2 seconds
    cpu = values(measured(), mesh("cpu", "cpu", 1))
    assert cpu["mean_source_length"], cpu["mean_target_length"] == (6, 8)
    assert cpu["model_flops_per_target_token"] == pytest.approx(of_a_pair / T)
    assert cpu["model_flops"] == pytest.approx(done)
    assert cpu["mfu"] == pytest.approx(done / 1e6)
    assert cpu["datasheet_peak"] is None and cpu["mfu_datasheet"] is None
    # Simulated devices share the cores; real ones have a peak each.
    assert values(measured(), mesh("cpu", "cpu", 4))["mfu"] == pytest.approx(done / 1e6)
    gpu = values(measured(), mesh("gpu", "NVIDIA H200", 4))
    assert gpu["mfu"] == pytest.approx(done / 4e6)
    assert gpu["mfu_datasheet"] == pytest.approx(done / (4 * 989.4e12))


def test_a_loss_that_is_no_number_is_unknown():
    odd = Window(1.0, 1.0, [sample(0.5)._replace(loss=float("nan"))])
    assert values(measured(single=odd), mesh("cpu", "cpu", 1))["last_loss"] is None


def test_table_and_heading():
    lines = list(report.table(figures_of(measured(), mesh("cpu", "cpu", 2))))
    assert "".join(lines[1].split()) == "targettokenspersecond80.00tokens/s2stepstogether;paddingnotcounted"
    assert any(line.startswith("datasheet peak") and "unknown" in line for line in lines)
    ends = {line.index(unit) for line in lines for unit in ("tokens/s", "%  ") if unit in line}
    assert len(ends) == 1, "values are not aligned"
    around = report.surroundings(Config())
    text = "\n".join(heading(measured().model, "made up", mesh("cpu", "cpu", 2), around))
    assert "simulated on shared cores" in text and f"jax {jax.__version__}" in text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (4.75e11, "FLOP/s", "475.0 GFLOP/s"),
        (989.4e12, "FLOP/s", "989.4 TFLOP/s"),
        (1.5e9, "B", "1.5 GB"),
        (0, "B", "0.0 B"),
        (0.0123, "s", "12.30 ms"),
        (2.5, "s", "2.500 s"),
        (0.985, "share", "98.5 %"),
        (12345.6, "tokens/s", "12,346 tokens/s"),
        (7, "", "7"),
        (None, "B", "unknown"),
    ],
)
def test_values_as_people_read_them(value, unit, text):
    assert " ".join(report.shown(value, unit)).strip() == text


def test_json_keeps_base_units():
    assert report.as_json([Figure("a_b", 1e9, "B", "n")]) == {"a_b": {"value": 1e9, "unit": "B", "note": "n"}}


def test_digest_is_of_what_is_trained_not_of_where_it_lies():
    here, there = (Config(data=DataConfig(root=root)) for root in ("here", "there"))
    assert report.digest(here) == report.digest(there)
    assert report.digest(here) != report.digest(dataclasses.replace(here, model=ModelConfig(d_ff=4)))


@pytest.mark.parametrize(
    ("kind", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756.5e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA H200 NVL", None),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA A100X", None),
        ("NVIDIA L4", None),
        ("TPU v4", 275e12),
        ("TPU v4 lite", None),
        ("TPU v5 lite", 197e12),
        ("TPU v5p", 459e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", None),
        ("cpu", None),
    ],
)
def test_datasheets(kind, flops):
    assert datasheet_peak(kind) == flops


def test_gemm_peak_is_the_fastest_product_of_all(monkeypatch):
    monkeypatch.setattr(peak, "_SHAPES", {"cpu": ((8, 8, 8), (16, 8, 4), (32, 16, 8))})
    monkeypatch.setattr(peak, "_SLICE", 0.002)
    times = {(8, 8): [1e-6], (16, 4): [1e-6, 2e-7, 3e-6], (32, 8): [1e-4]}

    def timed(multiply, arrays, calls):
        assert np.allclose(multiply(*arrays[:2], arrays[2].copy()), arrays[0] @ arrays[1], atol=1e-5)
        turns = times[arrays[2].shape]
        return turns.pop(0) if len(turns) > 1 else turns[0]

    monkeypatch.setattr(peak, "_run", timed)
    assert measure_gemm_peak("float32", seconds=0.01) == GemmPeak(2 * 16 * 8 * 4 / 2e-7, (16, 8, 4))


def test_gemm_peak_really_multiplies(monkeypatch):
    monkeypatch.setattr(peak, "_SHAPES", {"cpu": ((64, 64, 64),)})
    monkeypatch.setattr(peak, "_SLICE", 0.002)
    found = measure_gemm_peak("bfloat16", seconds=0.01)
    assert found.shape == (64, 64, 64) and 1e4 < found.flops < 1e13


def test_compilations_are_counted_once():
    with counted_compilations() as count:
        f = jax.jit(lambda x: 3 * x + 1)
        f(np.float32(1)), f(np.float32(2))
        assert count.total == 1
        f(np.ones(2, np.float32))
        assert count.total == 2
    f(np.ones(3, np.float32))
    assert count.total == 2


def test_peak_memory():
    most, what = peak_memory(mesh("cpu", "cpu", 1))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    assert pages * resource.getpagesize() <= 1.01 * most and "process" in what
    gpus = mesh("gpu", "NVIDIA L4", 2)
    told = ({"peak_bytes_in_use": 5}, {"peak_bytes_in_use": 7})
    gpus.devices = np.array([SimpleNamespace(memory_stats=lambda s=s: s) for s in told])
    assert peak_memory(gpus) == (7, "of the fullest device")


class FakeStepper:
    """Says in which order it is asked for what."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def feed(self) -> Fed:
        self.said.append("feed")
        return Fed(Batch(*(np.zeros((2, 3)),) * 6), 0.25, 4)

    def step(self, batch: Batch) -> dict[str, np.ndarray]:
        self.said.append("step")
        return {"source_tokens": np.int32(5), "target_tokens": np.int32(6), "loss": np.float32(1.5)}

    def finish(self) -> None:
        self.said.append("finish")


@pytest.mark.parametrize("awaited", [False, True])
def test_windows(awaited):
    stepper, told = FakeStepper(), []
    window = run_window(stepper, 2, awaited, told.append)
    step = ["feed", "step", "finish"] if awaited else ["feed", "step"]
    assert stepper.said == ["finish", *step, *step, "finish"] and told == [1, 2]
    assert len(window.samples) == 2 and window.total("wait") == 0.5 and window.total("target_tokens") == 12
    assert window.samples[0][2:] == (4, 5, 6, (6, 6), 1.5)
    assert window.seconds >= sum(s.seconds for s in window.samples) > 0
