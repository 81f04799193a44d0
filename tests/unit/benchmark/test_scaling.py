"""Several meshes in one table, without running them."""

import pytest

from transformer.benchmark import scaling

FIGURES = {
    "source_tokens_per_second": 900.0,
    "step_time_median": 0.5,
    "step_time_spread": 0.1,
    "mfu": 0.25,
    "bytes_sent": 4e6,
    "step_memory": 1e9,
}


def result(devices: int, speed: float, platform: str) -> dict[str, object]:
    figures = {**FIGURES, "target_tokens_per_second": speed}
    return {
        "mesh": {"data": devices, "fsdp": 1, "tensor": 1},
        "devices": {"platform": platform, "count": devices, "kind": platform},
        "figures": {key: {"value": value, "unit": "", "note": ""} for key, value in figures.items()},
    }


@pytest.mark.parametrize(("platform", "efficiency"), [("gpu", [1.0, 0.75]), ("cpu", [1.0, 1.5])])
def test_efficiency_is_per_device_unless_they_are_simulated(platform, efficiency):
    results = [result(1, 1000.0, platform), result(2, 1500.0, platform)]
    rows = scaling.compare(["1x1x1", "2x1x1"], results)
    assert [row["efficiency"] for row in rows] == efficiency
    lines = scaling.table(rows)
    assert len({len(line) for line in lines}) == 1, "not aligned"
    words = lines[2].split()
    assert words[:5] == ["2x1x1", "2", f"{100 * efficiency[1]:.0f}", "%", "900.00"]
    assert "4.0 MB" in lines[2] and "1.0 GB" in lines[2] and "25.0 %" in lines[2]
