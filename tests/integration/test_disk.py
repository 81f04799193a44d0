"""A disk that is full, closed or too small: training goes on, and ends when there is no hope."""

import contextlib
import os
import resource
import shutil
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest
from small_disk import fill, small_disk
from tiny_run import compiled_once, make_config, read_arrays, write_corpus

from transformer.config import RunConfig
from transformer.errors import CheckpointError
from transformer.io import checkpoint_folder
from transformer.io.checkpoint import Checkpoints
from transformer.io.checkpoint_folder import check_space
from transformer.run.train import train

RUN = RunConfig(keep_latest=1, keep_best=0)
MEGABYTE = 1_000_000


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path, megabytes=4) as folder:
        yield folder


@contextlib.contextmanager
def filled(disk):
    ballast = fill(disk)
    try:
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def read_only(disk):
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@contextlib.contextmanager
def short_files(disk):
    """Lets every write end after some bytes, without root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def items(step):
    return {"params": {"w": jnp.asarray(np.random.default_rng(step).normal(size=(500, 500)), jnp.float32)}}


def same(folder, step):
    """Asserts that the checkpoint of `step` is all there is, and whole."""
    assert sorted(path.name for path in folder.iterdir() if path.name != "ballast") == [str(step)]
    reader = Checkpoints(folder)
    arrays, position = reader.restore_newest(items(0), strict=True)
    reader.close()
    assert position == {"step": step} and np.array_equal(arrays["params"]["w"], items(step)["params"]["w"])


def through(folder, trouble, reason):
    """Saves before, in and after a trouble; the third failure in a row must end it."""
    said = []
    checkpoints = Checkpoints(folder, RUN, said.append)

    def save(step):
        checkpoints.save(step, items(step), {"step": step})
        return checkpoints.wait()

    assert save(1) and not said
    with trouble(folder):
        assert not save(2) and not save(3)
        checkpoints.add_metrics(3, {"nll": 1.0})
        assert [line.split(":")[:2] for line in said] == [
            ["warning", f" step {step} could not be saved"] for step in (2, 3)
        ]
        assert all(reason in line and line.endswith("; the next save tries again") for line in said), (
            "\n".join(said)
        )
        same(folder, 1)
    assert save(4)  # and the count begins anew
    same(folder, 4)
    with trouble(folder):
        assert not save(5) and not save(6)
        with pytest.raises(CheckpointError) as caught:
            save(7)
        checkpoints.close()
        same(folder, 4)
    message = str(caught.value)
    assert (
        message.startswith(f"{folder}: 3 saves in a row failed, the last after step 7: ")
        and reason in message
    )
    assert "; the checkpoint of step 4 is kept; make room or give write access, " in message
    assert "\n" not in message and len(said) == 5 and caught.value.exit_code == 4


def test_a_full_disk(disk):
    through(disk, filled, "No space left on device: 1.0 MB needed, ")


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(disk, monkeypatch):
    monkeypatch.setattr(checkpoint_folder, "obstacle", lambda *args: None)
    through(disk, filled, "No space left on device")


def test_a_disk_that_is_closed(disk):
    through(disk, read_only, "Permission denied: ")


def test_writes_that_fail(tmp_path):
    through(tmp_path, short_files, "File too large")


def test_the_last_save_must_not_fail(tmp_path):
    checkpoints = Checkpoints(tmp_path, RUN, print)
    with short_files(tmp_path):
        checkpoints.save(1, items(1), {})
        with pytest.raises(
            CheckpointError, match=r"the last state could not be saved: .*there is no checkpoint yet"
        ):
            checkpoints.close()


def test_scores_that_cannot_be_kept(disk):
    said = []
    checkpoints = Checkpoints(disk, RUN, said.append)
    checkpoints.save(1, items(1), {"step": 1})
    assert checkpoints.wait()
    with filled(disk):
        checkpoints.add_metrics(1, {f"metric {n}": 0.5 for n in range(1000)})
    assert (
        len(said) == 1
        and "the scores of step 1 could not be kept with it: No space left on device" in said[0]
    )
    assert checkpoints.metrics(1) is None
    checkpoints.add_metrics(1, {"nll": 0.5})
    assert checkpoints.metrics(1) == {"nll": 0.5}
    checkpoints.close()
    same(disk, 1)


def test_space_is_checked_before_a_run(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10 * MEGABYTE))
    check_space(tmp_path / "not" / "yet", 2 * MEGABYTE, 4)
    with pytest.raises(CheckpointError) as caught:
        check_space(tmp_path / "not" / "yet", 2 * MEGABYTE, 5)
    message = str(caught.value)
    assert "10.0 MB are free on this disk, but 6 more checkpoints of 2.0 MB each" in message
    assert "(5 are kept, " in message and "\n" not in message
    for name in ("1", "2", "2.damaged", "3.saving"):
        (tmp_path / name).mkdir()
    check_space(tmp_path, 2 * MEGABYTE, 6)  # two of seven are there
    with pytest.raises(CheckpointError, match="but 6 more checkpoints"):
        check_space(tmp_path, 2 * MEGABYTE, 7)
    with pytest.raises(CheckpointError, match="but 1 more checkpoint"):  # one more is written first, always
        check_space(tmp_path, 11 * MEGABYTE, 1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    with compiled_once():
        yield write_corpus(folder)


def test_a_run_survives_a_full_disk_and_is_ended_by_a_hopeless_one(
    corpus, disk, tmp_path, monkeypatch, capfd
):
    run = {"num_steps": 12, "save_every": 2, "eval_every": 12, "keep_latest": 1, "keep_best": 0}
    train(make_config(corpus, run=run), str(tmp_path / "calm"))
    workdir = tmp_path / "troubled"
    workdir.mkdir()
    (workdir / "checkpoints").symlink_to(disk)  # only what is saved is on the small disk
    capfd.readouterr()
    save = Checkpoints.save
    trouble = contextlib.ExitStack()

    def save_in_trouble(checkpoints, step, *args):
        checkpoints.wait()
        if step in starts:
            trouble.enter_context(filled(disk))
        if step in ends:
            trouble.close()
        save(checkpoints, step, *args)

    monkeypatch.setattr(Checkpoints, "save", save_in_trouble)
    starts, ends = {6}, {}
    with trouble, pytest.raises(CheckpointError, match=r"3 saves in a row failed, the last after step 10: "):
        train(make_config(corpus, run=run), str(workdir))
    assert os.listdir(disk) == ["4"]
    starts, ends = {6}, {10}
    train(make_config(corpus, run=run), str(workdir))
    said = capfd.readouterr().err
    assert (
        said.count("could not be saved: No space left on device") == 5 and "continuing after step 4" in said
    )
    arrays, calm = read_arrays(workdir, 12), read_arrays(tmp_path / "calm", 12)
    assert {k: x.tobytes() for k, x in arrays.items()} == {k: x.tobytes() for k, x in calm.items()}
