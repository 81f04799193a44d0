"""What a start reads: everything the first time, next to nothing the second, what changed at any time."""

import dataclasses
import os
import pathlib
import time

import pytest

from transformer.config import Config
from transformer.config_mapping import from_config_dict
from transformer.data.tokenizer import Tokenizer
from transformer.errors import ConfigError, DataError
from transformer.io.workdir import Workdir
from transformer.run.prepare import PreparedData, prepare_data


@pytest.fixture(autouse=True)
def later(monkeypatch):
    """Everything happens ten seconds after the last change of every file."""
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + 10**10)


def make_config(folder, count: int, **data) -> Config:
    folder.mkdir(exist_ok=True)
    for name, letter in (("a", "abc"), ("b", "bca")):
        (folder / name).write_text("".join(f"{letter * (i % 5 + 1)}\n" for i in range(count)))
        (folder / f"dev.{name}").write_text(f"{letter}\n" * 20)
    given = {"root": str(folder), "train_source": ("a",), "train_target": ("b",)}
    given |= {} if data else {"dev_source": ("dev.a",), "dev_target": ("dev.b",)}
    tokenizer = {"model_type": "char", "vocab_size": 8}
    return from_config_dict({"data": given | data, "tokenizer": tokenizer})


def start(config, root) -> PreparedData:
    workdir = Workdir(root)
    data = prepare_data(config, workdir, lambda line: None)
    workdir.save_config(config)
    return data


def bytes_read() -> int:
    return int(pathlib.Path("/proc/self/io").read_text().split()[1])


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="bytes are counted by Linux")
@pytest.mark.parametrize("data", [{}, {"holdout_lines": 2}])
def test_the_second_start_reads_as_much_however_long_the_corpus_is(tmp_path, data):
    read = {}
    for count in (10_000, 40_000):
        config = make_config(tmp_path / str(count), count, **data)
        start(config, tmp_path / f"run {count}")
        before = bytes_read()
        again = start(config, tmp_path / f"run {count}")
        read[count] = bytes_read() - before
        assert len(again.train[0]) == count - data.get("holdout_lines", 0)
    assert abs(read[40_000] - read[10_000]) < 35_000  # the last block of each side may be smaller
    assert read[40_000] < (tmp_path / "40000" / "a").stat().st_size / 2


def test_a_text_that_changed_is_refused_and_one_that_was_touched_is_not(tmp_path):
    config = make_config(tmp_path, 100)
    start(config, tmp_path / "run")
    text = tmp_path / "a"
    content, stat = text.read_bytes(), text.stat()
    os.utime(text)
    start(config, tmp_path / "run")
    time.sleep(0.02)  # the clock of the file system ticks
    text.write_bytes(content.replace(b"abc\n", b"acb\n", 1))
    os.utime(text, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(DataError, match="corpus changed since the run began: a had 1000 bytes, sha256 "):
            start(config, tmp_path / "run")
    text.write_bytes(content)
    start(config, tmp_path / "run")


def test_texts_of_weight_0_are_none_to_train_on(tmp_path):
    files = {"train_source": ("a", "long"), "train_target": ("b", "long"), "train_weights": (0.0, 1.0)}
    config = make_config(tmp_path / "data", 10, **files)
    (tmp_path / "data" / "long").write_text("abc" * 500 + "\n")
    with pytest.raises(DataError, match=r"no usable line to train on \(left out: none; 1 too_long\)"):
        start(config, tmp_path / "run")


def test_a_file_that_is_named_twice_is_counted_twice(tmp_path):
    twice = {"train_source": ("a", "a"), "train_target": ("b", "b"), "train_weights": (1.0, 3.0)}
    counts = start(make_config(tmp_path / "data", 10, **twice), tmp_path / "run").counts
    assert list(counts) == ["train a|b", "train a|b (2)"]


def test_patience_needs_a_dev_set(tmp_path):
    config = make_config(tmp_path / "data", 20, holdout_lines=0)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, patience=3))
    with pytest.raises(ConfigError, match=r"config.run.patience: there is no dev set to watch; name"):
        start(config, tmp_path / "run")


def test_a_tokenizer_that_was_there_before_the_run_is_told_of(tmp_path):
    config, workdir, notes = make_config(tmp_path / "data", 20), Workdir(tmp_path / "run"), []
    prepare_data(config, workdir, notes.append)  # as if it had been killed before its configuration was saved
    assert any("tokenizer: training char on 20 pairs" in line for line in notes)
    notes.clear()
    prepare_data(config, workdir, notes.append)
    was_there = f"tokenizer: {workdir.tokenizer}, which was there before; remove it to train a new one"
    assert notes[0] == was_there
    workdir.save_config(config)
    notes.clear()
    prepare_data(config, workdir, notes.append)
    assert was_there not in notes


def test_a_dev_set_of_which_nothing_is_left_is_refused(tmp_path):
    config = make_config(tmp_path / "data", 20)
    for name in ("a", "b"):
        (tmp_path / "data" / f"dev.{name}").write_text("\n" * 5)
    with pytest.raises(DataError, match=r"dev\.a\|dev\.b: no usable line to score .* 5 empty"):
        start(config, tmp_path / "run")


def test_a_label_with_a_tab_is_refused(tmp_path):
    config = make_config(tmp_path / "data", 20)
    (tmp_path / "data" / "b").write_text("x\ty\nz\n" * 10)
    labelled = dataclasses.replace(config.data, labels="line")
    model = dataclasses.replace(config.model, kind="encoder_only")
    config = dataclasses.replace(config, data=labelled, model=model)
    with pytest.raises(DataError, match=r"a\|b: the label 'x\\ty' has a tab, which separates labels"):
        start(config, tmp_path / "run")


def test_a_tokenizer_that_is_refused_is_not_left_to_the_next_start(tmp_path):
    def check(tokenizer):
        raise ConfigError("no such mesh")

    config, workdir = make_config(tmp_path / "data", 20), Workdir(tmp_path / "run")
    with pytest.raises(ConfigError, match="no such mesh"):
        prepare_data(config, workdir, lambda line: None, check)
    assert not Tokenizer.exists(workdir.tokenizer)
