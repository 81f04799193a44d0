"""metrics.jsonl: whole lines, honest numbers, and each step once however often the run was killed."""

import contextlib
import errno
import json
import resource

import jax.numpy as jnp
import numpy as np
import pytest

from transformer.errors import DataError
from transformer.io import patient_file
from transformer.io.metrics_file import MetricsFile, add_metrics, read_metrics
from transformer.io.patient_file import RETRY_EVERY


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


def test_what_was_skipped_stays_known(tmp_path):
    file = MetricsFile(tmp_path, 0)
    file.record("train", 4, {"loss": 1})
    file.record("skipped", 5, {"pairs": []})
    MetricsFile(tmp_path, 3)
    assert [entry["split"] for entry in read_metrics(tmp_path)] == ["skipped"]
    MetricsFile(tmp_path, 0)  # another run
    assert read_metrics(tmp_path) == []


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


def test_what_is_recorded_beside_a_run_takes_nothing_out(tmp_path):
    """An evaluation, say: the run may since have been given fewer steps than it has done."""
    file = MetricsFile(tmp_path, 0)
    file.record("train", 20, {})
    file.record("test", 20, {"bleu": 1})
    inode = file.path.stat().st_ino
    for bleu in (2, 3):
        assert add_metrics(tmp_path, "test", 10, {"bleu": bleu}) is None
        file.record("train", 20 + bleu, {})
    assert file.path.stat().st_ino == inode  # so that no line of the run's can have been lost
    read = [("train", 20), ("test", 20), ("train", 22), ("test", 10), ("train", 23)]
    assert [(line["split"], line["step"]) for line in read_metrics(tmp_path)] == read
    assert [line["bleu"] for line in read_metrics(tmp_path) if line["split"] == "test"] == [1, 3]
    MetricsFile(tmp_path, 23)
    assert len(file.path.read_text().splitlines()) == len(read)


def test_what_is_recorded_behind_a_torn_line_is_a_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"split": "train", "st')
    assert add_metrics(tmp_path, "test", 10, {"bleu": 2}) is None
    assert MetricsFile(tmp_path, 10).removed == {"damaged": 1}
    assert read_metrics(tmp_path) == [{"split": "test", "step": 10, "bleu": 2}]


def test_what_cannot_be_recorded_is_told(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "nowhere" / "x")
    error = add_metrics(tmp_path, "test", 10, {})
    assert error is not None and error.filename == str(tmp_path / "metrics.jsonl")


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


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@contextlib.contextmanager
def files_end_at(size):
    """Lets every write end in the middle of a line, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


SIZE = 1_000_000  # above what anything else in this process writes meanwhile


def nearly_full(tmp_path):
    """A file with ten bytes left to `SIZE`, and its clock."""
    clock = Clock()
    file = MetricsFile(tmp_path, 0, clock)
    file.record("data", 0, {"x": ""})
    file.record("data", 0, {"x": "x" * (SIZE - 10 - len(raw(tmp_path)))})
    assert len(raw(tmp_path)) == SIZE - 10
    return file, clock


def test_what_cannot_be_written_waits_and_nothing_is_torn(tmp_path):
    file, clock = nearly_full(tmp_path)
    with files_end_at(SIZE):
        for step in range(1, 4):
            file.record("train", step, {"loss": step})
            clock.now += 60
            assert len(raw(tmp_path)) == SIZE - 10 and len(read_metrics(tmp_path)) == 1
        assert file.error.errno == errno.EFBIG and len(file.waiting) == 3
    file.record("train", 4, {"loss": 4})
    assert file.error is None and not file.waiting and not file.lost
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [0, 1, 2, 3, 4]


def test_a_failing_disk_is_not_asked_at_every_step(tmp_path):
    file, clock = nearly_full(tmp_path)
    with files_end_at(SIZE):
        file.record("train", 1, {})
    clock.now += RETRY_EVERY / 2
    file.record("train", 2, {})
    assert len(read_metrics(tmp_path)) == 1
    file.write_out(at_once=True)
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [0, 1, 2]


def test_lines_that_wait_are_replaced_and_taken_back_like_others(tmp_path):
    file, _ = nearly_full(tmp_path)
    with files_end_at(SIZE):
        for step in (1, 2, 3):
            file.record("train", step, {"loss": step})
        file.record("train", 1, {"loss": 10})
        file.record("skipped", 3, {})
        file.go_back(2)
        file.record("data", 0, {"x": 1})  # replaces what is in the file
        file.record("train", 3, {"loss": 30})
    assert len(read_metrics(tmp_path)) == 1
    file.write_out(at_once=True)
    assert [(e["split"], e["step"], e.get("loss")) for e in read_metrics(tmp_path)] == [
        ("train", 2, 2),
        ("train", 1, 10),
        ("skipped", 3, None),
        ("data", 0, None),
        ("train", 3, 30),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_opening_on_a_full_disk_takes_lines_out_later(tmp_path):
    MetricsFile(tmp_path, 0).record("train", 1, {"x": "x" * SIZE})
    MetricsFile(tmp_path, 1).record("train", 2, {})
    before = raw(tmp_path)
    with files_end_at(SIZE):
        file = MetricsFile(tmp_path, 1)
        assert file.removed == {"after step 1": 1} and file.error.errno == errno.EFBIG
    assert raw(tmp_path) == before and [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    file.write_out(at_once=True)
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [1]


def test_more_than_memory_should_hold_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(patient_file, "MOST_WAITING", 3)
    file, _ = nearly_full(tmp_path)
    with files_end_at(SIZE):
        for step in range(1, 6):
            file.record("train", step, {})
    assert len(file.waiting) == 3 and file.lost == 2
    file.write_out(at_once=True)
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [0, 3, 4, 5]


def test_a_file_that_somebody_removes_begins_anew(tmp_path):
    file, clock = nearly_full(tmp_path)
    with files_end_at(SIZE):
        file.record("train", 1, {})
    (tmp_path / "metrics.jsonl").unlink()
    clock.now += 60
    file.record("train", 2, {})
    file.record("train", 2, {"again": True})
    assert [entry["step"] for entry in read_metrics(tmp_path)] == [1, 2]
