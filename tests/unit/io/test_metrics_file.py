"""metrics.jsonl: whole lines, honest numbers, and each step once however often the run was killed."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from transformer.errors import DataError
from transformer.io.metrics_file import MetricsFile, read_metrics


def raw(workdir):
    return (workdir / "metrics.jsonl").read_bytes()


def test_lines_are_json_and_come_back(tmp_path):
    file = MetricsFile(tmp_path, 0)
    file.record("train", 1, {"loss": np.float32(0.5), "tokens": np.int64(7), "rate": jnp.float32(2.5)})
    file.record("data", 1, {"left_out": {"too_long": 3}, "files": ["a", "ü"], "packed": True})
    assert raw(tmp_path).decode().split("\n") == [
        '{"split": "train", "step": 1, "loss": 0.5, "tokens": 7, "rate": 2.5}',
        '{"split": "data", "step": 1, "left_out": {"too_long": 3}, "files": ["a", "ü"], "packed": true}',
        "",
    ]
    assert [entry["split"] for entry in read_metrics(tmp_path)] == ["train", "data"]


def test_numbers_that_json_lacks_are_text_never_null(tmp_path):
    values = {"a": float("nan"), "b": np.float32("inf"), "c": jnp.array(-jnp.inf), "d": [float("nan")]}
    MetricsFile(tmp_path, 0).record("train", 1, values)
    assert json.loads(raw(tmp_path)) == {
        "split": "train",
        "step": 1,
        "a": "nan",
        "b": "inf",
        "c": "-inf",
        "d": ["nan"],
    }
    (entry,) = read_metrics(tmp_path)
    assert np.isnan(entry["a"]) and entry["b"] == np.inf and entry["c"] == -np.inf


@pytest.mark.parametrize("values", [{"step": 3}, {"split": "x"}, {"a": object()}, {"a": np.zeros(2)}])
def test_values_that_do_not_fit_are_refused_and_leave_no_trace(tmp_path, values):
    with pytest.raises(ValueError):
        MetricsFile(tmp_path, 0).record("train", 1, values)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_resuming_takes_out_later_steps(tmp_path):
    file = MetricsFile(tmp_path, 0)
    for step in range(1, 6):
        file.record("train", step, {"loss": step})
    file.record("dev", 5, {"nll": 1.0})
    resumed = MetricsFile(tmp_path, 3)
    assert resumed.removed == {"after step 3": 3}
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2, 3]
    resumed.record("train", 4, {"loss": 40})
    assert [entry["loss"] for entry in read_metrics(tmp_path)] == [1, 2, 3, 40]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize(
    "tail",
    [
        b'{"split": "train", "st',
        b'{"split": "train", "step": 2, "x"\n',
        b"\x00\x00\xff\n",
        b"[1]\n",
        b'{"a": 1}\n',
    ],
)
def test_resuming_takes_out_damaged_lines(tmp_path, tail):
    good = b'{"split": "train", "step": 1, "loss": 0.5}\n'
    (tmp_path / "metrics.jsonl").write_bytes(good + tail)
    assert MetricsFile(tmp_path, 2).removed == {"damaged": 1}
    assert raw(tmp_path) == good


def test_a_whole_last_line_without_its_end_is_completed(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"split": "train", "step": 1}')
    MetricsFile(tmp_path, 1).record("train", 2, {})
    assert raw(tmp_path) == b'{"split": "train", "step": 1}\n{"split": "train", "step": 2}\n'


def test_a_clean_file_is_not_touched(tmp_path):
    MetricsFile(tmp_path, 0).record("train", 1, {})
    before = (tmp_path / "metrics.jsonl").stat()
    assert MetricsFile(tmp_path, 1).removed == {}
    assert (tmp_path / "metrics.jsonl").stat().st_ino == before.st_ino


def test_the_same_split_and_step_again_replaces_the_line(tmp_path):
    MetricsFile(tmp_path, 0).record("test", 9, {"bleu": 1})
    again = MetricsFile(tmp_path, 9)
    again.record("train", 9, {})
    again.record("test", 9, {"bleu": 2})
    assert read_metrics(tmp_path) == [{"split": "train", "step": 9}, {"split": "test", "step": 9, "bleu": 2}]


def test_reading_a_file_that_is_being_written(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"split": "train", "step": 1}\n{"split": "tr')
    assert read_metrics(tmp_path) == [{"split": "train", "step": 1}]


def test_reading_names_the_damaged_line_and_the_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"metrics\.jsonl: not found"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(b'{"split": "train", "step": 1}\nnonsense\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2: expected a JSON object.*nonsense"):
        read_metrics(tmp_path)
