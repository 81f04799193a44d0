"""A run's log as others read it: the file, TensorBoard's records, the line on the screen."""

import contextlib
import errno
import io
import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import threading
import time

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from transformer.io.runlog import RunLog, read_metrics


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def step_metrics(**changes):
    values = dict(loss=2.0, nll=1.0, learning_rate=1e-3, gradient_norm=0.5)
    return {**values, "source_tokens": 30, "target_tokens": 70, "data_wait": 0.5, **changes}


TAGS = [*step_metrics(), "tokens_per_second"]


def make_log(workdir, clock, num_steps=10, **options):
    stream = io.StringIO()
    return RunLog(workdir, num_steps, stream=stream, clock=clock, **options), stream


def checksum(data):
    """CRC-32C, bit by bit, rotated and shifted as the TFRecord format asks."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_events(workdir):
    """Parses the TFRecord frames: length, its checksum, an Event, its checksum."""
    events = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            length, first = struct.unpack("<QI", data[:12])
            message, (second,) = data[12 : 12 + length], struct.unpack("<I", data[12 + length : 16 + length])
            assert (first, second) == (checksum(data[:8]), checksum(message))
            events.append(Event.FromString(message))
            data = data[16 + length :]
    return events


def scalars(events):
    return {(v.tag, e.step): v.simple_value for e in events for v in e.summary.value}


def test_every_nth_step_and_the_last_are_logged(tmp_path):
    log, _ = make_log(tmp_path, Clock(), num_steps=7, log_every=3)
    for step in range(1, 8):
        log.train(step, step_metrics(loss=float(step)))
    log.close()
    entries = read_metrics(tmp_path)
    assert [(e["split"], e["step"], e["loss"]) for e in entries] == [
        ("train", 3, 3.0),
        ("train", 6, 6.0),
        ("train", 7, 7.0),
    ]


def test_tokens_per_second_are_real_tokens_without_evaluation_and_compilation(tmp_path):
    clock = Clock()
    log, stream = make_log(tmp_path, clock, num_steps=100, log_every=1)
    with log.busy("compiling"):
        clock.now += 60
    for step in range(1, 6):
        clock.now += 2
        log.train(step, step_metrics())
        with log.busy("evaluating"):
            clock.now += 1000
    log.close()
    first, *later = [entry["tokens_per_second"] for entry in read_metrics(tmp_path)]
    assert first == pytest.approx(100 / 62)  # nothing to measure from but the start
    assert later == [pytest.approx(50)] * 4
    line = next(line for line in stream.getvalue().split("\n") if line.startswith("step 5/"))
    # 95 steps at 2 s are left; a wait of 0.5 s in a step of 2 s is 25 %.
    assert line == (
        "step 5/100  3 min 10 s left  loss 2.000  ppl 2.718  50 tokens/s  data wait 25%  "
        "lr 1.00e-03  grad norm 0.5"
    )


def test_steps_that_were_compiled_too_are_in_no_rate(tmp_path):
    clock = Clock()
    log, stream = make_log(tmp_path, clock, num_steps=100, log_every=1)
    for step in range(1, 51):  # as with batches of six shapes; each step takes a second
        new_shape = step % 8 == 1
        with log.busy("compiling") if new_shape else contextlib.nullcontext():
            clock.now += 6 if new_shape else 1
        log.train(step, step_metrics(source_tokens=600, target_tokens=400), timed=not new_shape)
    rates = [entry["tokens_per_second"] for entry in read_metrics(tmp_path)]
    assert rates[1:] == [pytest.approx(1000)] * 49
    assert "step 49/100  51 s left" in stream.getvalue()


def test_the_window_moves(tmp_path):
    clock = Clock()
    log, _ = make_log(tmp_path, clock, num_steps=60, log_every=30)
    for step in range(1, 61):
        clock.now += 10 if step <= 30 else 1
        log.train(step, step_metrics())
    log.close()
    assert [e["tokens_per_second"] for e in read_metrics(tmp_path)] == [pytest.approx(10), pytest.approx(100)]


def test_scores_go_everywhere_and_text_to_the_file_only(tmp_path):
    log, stream = make_log(tmp_path, Clock())
    log.scores("dev", 1000, {"bleu": 33.125, "num_lines": 1014, "bleu_signature": "nrefs:1|tok:13a"})
    log.record("data", 0, {"pairs": 5})
    log.close()
    assert stream.getvalue() == "dev at step 1,000: bleu 33.12  num_lines 1,014\n"
    dev, data = read_metrics(tmp_path)
    assert dev == {
        "split": "dev",
        "step": 1000,
        "bleu": 33.125,
        "num_lines": 1014,
        "bleu_signature": "nrefs:1|tok:13a",
    }
    assert data == {"split": "data", "step": 0, "pairs": 5}
    assert scalars(read_events(tmp_path)) == {("dev/bleu", 1000): 33.125, ("dev/num_lines", 1000): 1014}


def test_tensorboard_has_every_number_and_is_told_of_a_resumption(tmp_path):
    log, _ = make_log(tmp_path, Clock(), log_every=1)
    for step in (1, 2, 3):
        log.train(step, step_metrics(loss=float(step)))
    log.close()
    log, stream = make_log(tmp_path, Clock(), resume_step=2, log_every=1)
    log.train(3, step_metrics(loss=30.0))
    log.close()
    assert "metrics.jsonl: removed 1 line after step 2" in stream.getvalue()
    assert [e["loss"] for e in read_metrics(tmp_path)] == [1.0, 2.0, 30.0]
    events = read_events(tmp_path)
    restarts = [(i, e.step) for i, e in enumerate(events) if e.session_log.status == SessionLog.START]
    assert [step for _, step in restarts] == [0, 3]  # TensorBoard hides what came before, from that step on
    assert scalars(events[: restarts[1][0]])["train/loss", 3] == 3.0
    assert scalars(events[restarts[1][0] :])["train/loss", 3] == 30.0
    assert {tag for tag, _ in scalars(events)} == {f"train/{k}" for k in TAGS}


def test_a_loss_that_is_no_number_stays_visible(tmp_path, caplog):
    log, stream = make_log(tmp_path, Clock(), log_every=1)
    log.train(1, step_metrics(loss=math.nan, nll=1e6, gradient_norm=math.inf))
    log.train(10, step_metrics(nll=math.nan))
    log.close()
    assert "loss nan  ppl inf" in stream.getvalue() and "grad norm inf" in stream.getvalue()
    assert json.loads((tmp_path / "metrics.jsonl").read_text().split("\n")[0])["loss"] == "nan"
    assert math.isnan(scalars(read_events(tmp_path))["train/loss", 1])
    assert not caplog.records


def test_nothing_on_standard_output_and_no_warning_in_a_fresh_process(tmp_path):
    program = f"""
import pathlib
from transformer.io.runlog import RunLog
log = RunLog(pathlib.Path({str(tmp_path)!r}), num_steps=1)
log.train(1, {step_metrics()!r})
log.close()
"""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("step 1/1  loss 2.000  ppl 2.718")
    assert [e["step"] for e in read_metrics(tmp_path)] == [1]


@pytest.fixture
def full(monkeypatch):
    """Lets the log's writes fail while it is set, after half of what is to be written."""
    full = threading.Event()

    class File(io.FileIO):
        def write(self, data):
            if full.is_set():
                super().write(data[: len(data) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)

    monkeypatch.setattr(pathlib.Path, "open", lambda path, mode, **options: File(path, mode[0]))
    return full


def test_a_full_disk_is_told_once_and_what_was_kept_is_written(tmp_path, full):
    clock = Clock()
    log, stream = make_log(tmp_path, clock, log_every=1)
    log.train(1, step_metrics(loss=1.0))
    full.set()
    for step in (2, 3, 4):
        clock.now += 60
        log.train(step, step_metrics(loss=float(step)))
        assert [e["step"] for e in read_metrics(tmp_path)] == [1]
        assert scalars(read_events(tmp_path)).keys() == {(f"train/{k}", 1) for k in TAGS}
    log.go_back(3, 5)
    assert log.reached == 5
    full.clear()
    clock.now += 60
    log.train(4, step_metrics(loss=40.0))
    log.close()
    assert [(e["step"], e["loss"]) for e in read_metrics(tmp_path)] == [(1, 1), (2, 2), (3, 3), (4, 40)]
    losses = [(e.step, v.simple_value) for e in read_events(tmp_path) for v in e.summary.value[:1]]
    assert losses == [(1, 1), (2, 2), (3, 3), (4, 4), (4, 40)]  # what is void stays; TensorBoard hides it
    restarts = [e.step for e in read_events(tmp_path) if e.session_log.status == SessionLog.START]
    assert restarts == [0, 4]
    (events,) = (tmp_path / "tensorboard").iterdir()
    said = [line for line in stream.getvalue().splitlines() if not line.startswith("step ")]
    files = f"{tmp_path}/metrics.jsonl and {events}"
    assert said == [
        f"warning: {files} cannot be written: No space left on device; training goes on, "
        "and what belongs there is kept in memory until it can",
        f"{files}: written again, with what was kept in memory",
    ]


def test_what_is_missing_in_the_end_is_counted(tmp_path, full):
    log, stream = make_log(tmp_path, Clock(), log_every=1)
    full.set()
    log.train(1, step_metrics())
    log.scores("dev", 1, {"nll": 1.0})
    log.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert stream.getvalue().splitlines()[-2:] == [
        f"warning: {tmp_path}/metrics.jsonl: 2 entries are missing",
        f"warning: {events}: 2 entries are missing",
    ]


def test_the_file_of_events_is_the_last_one_whatever_the_clock_says(tmp_path, monkeypatch):
    for step, now in enumerate((1.8e9, 1.8e9 + 0.2, 1.7e9, 0.0, 1.9e9)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        log, _ = make_log(tmp_path, Clock(), resume_step=step, log_every=1)
        log.train(step + 1, step_metrics(loss=float(step)))
        log.close()
    assert [path.name.split(".")[3] for path in sorted((tmp_path / "tensorboard").iterdir())] == [
        f"1{n:09d}" for n in (800000000, 800000001, 800000002, 800000003, 900000000)
    ]
    losses = [(tag, step) for tag, step in scalars(read_events(tmp_path)) if tag == "train/loss"]
    assert losses == [("train/loss", step) for step in range(1, 6)]
