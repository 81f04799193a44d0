"""Tables and slopes of the scripts in benchmarks/, which lie outside the package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import compare  # noqa: E402
import corpus_start  # noqa: E402
import curves  # noqa: E402


def result(rate: float, **more: object) -> dict:
    around = {"versions": {"x": "1"}, "threads": 2, "device": "cpu"}
    return {"target_tokens_per_second": rate, "step_time_median": 1.0, "cores_busy": 2.0, **around, **more}


def test_comparison_shows_medians_ratios_and_the_same_use_of_the_peak(
    capsys: pytest.CaptureFixture, tmp_path
):
    ours = [result(r, model_flops_per_target_token=1e6, gemm_peak=p) for r, p in ((900, 1e9), (300, 2e9))]
    results = {"ours": [*ours, result(600, model_flops_per_target_token=1e6, gemm_peak=1e9)]}
    results["torch"] = [result(300), result(400), result(100)]
    compare.add_mfu(results)
    found = {**compare.heading("training, small", 3), "results": results}
    file = tmp_path / "found.json"
    file.write_text(json.dumps([found]))
    subprocess.run([sys.executable, str(FOLDER / "compare.py"), "show", str(file)], check=True)
    compare.show(found)
    mine, theirs = (line for line in capsys.readouterr().out.splitlines()[-3:-1])
    assert mine.split()[:2] == ["ours", "600"]
    assert theirs.split()[:2] == ["torch", "300"]
    assert theirs.split()[-2:] == ["100-400", "2.00"]
    # 600 and 300 tokens/s of 1 MFLOP each at a peak of 2 GFLOP/s.
    assert "30.0" in mine.split()
    assert "15.0" in theirs.split()


def test_slopes_are_exponents():
    rows = {n: dict.fromkeys(curves._DECODE, 3.0 * n**2) for n in (1, 2, 4)}
    axis = curves.Axis("beam", {n: [] for n in rows}, curves._DECODE)
    lines = curves.table(axis, rows)
    assert lines[2].startswith("| 1 | 3.00 |")
    assert lines[-1] == "| slope at the end | 2.00 | 2.00 | 2.00 | 2.00 |"


def test_points_are_measured_once_and_the_others_go_on(tmp_path: Path, capfd: pytest.CaptureFixture):
    script = tmp_path / "point.py"
    script.write_text(
        "import json, sys\nvalue, file = float(sys.argv[1]), sys.argv[3]\n"
        "assert value != 2\nprint(value)\njson.dump({name: value for name in ['a', 'b']}, open(file, 'w'))\n"
    )
    axis = curves.Axis("size", {n: [script, str(n)] for n in (1, 2, 3)}, ("a", "b"))
    for _ in range(2):
        curves.measure(axis, tmp_path / "size")
    told = capfd.readouterr().err
    assert told.count("size 1\n") == told.count("size 3\n") == 1
    assert told.count("size 2: failed with exit code 1") == 2
    rows = {n: curves.read(json.loads((tmp_path / "size" / f"{n}.json").read_text())) for n in (1, 3)}
    assert rows == {1: {"a": 1.0, "b": 1.0}, 3: {"a": 3.0, "b": 3.0}}
    curves.draw(axis, rows, tmp_path / "size.png")
    assert (tmp_path / "size.png").stat().st_size > 5000


def test_a_corpus_starts_twice(tmp_path: Path):
    file = tmp_path / "found.json"
    command = [sys.executable, corpus_start.__file__, "--pairs", "3000", "--json", str(file)]
    subprocess.run(command, check=True)
    found = json.loads(file.read_text())
    assert set(found) == set(curves._CORPUS)
    assert 0 < found["second start s"] < found["first start s"]
