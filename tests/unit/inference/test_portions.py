"""A file translated in shards, or with an interruption, is the file translated at once."""

import json
import os
import random
import re
import threading

import pytest
from unit.small_model import WORDS

from transformer.errors import ConfigError, DataError
from transformer.run import translate as verb
from transformer.run.portions import shard_lines
from transformer.run.translate import translate


@pytest.fixture
def source(tmp_path, loaded, monkeypatch):
    """A file of eleven lines, and small blocks."""
    draw = random.Random(0)
    file = tmp_path / "source"
    file.write_text("".join(" ".join(draw.choices(WORDS, k=1 + i % 4)) + "\n" for i in range(11)))
    monkeypatch.setattr(verb, "load_model", lambda model, checkpoint: loaded)
    monkeypatch.setattr(verb, "_BLOCK", 3)
    return file


def run(source, output, n_best=None, shard=None, resume=False, **options):
    options = {"beam_size": 2, **options}
    translate("", "last", str(source), str(output), n_best, options, shard=shard, resume=resume)
    return output.read_bytes()


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"beam_size": 1, "temperature": 1.0, "seed": 3}, marks=pytest.mark.slow)]
)
def test_shards_make_the_whole(source, tmp_path, options):
    whole = run(source, tmp_path / "whole", **options)
    parts = [run(source, tmp_path / f"part {i}", shard=f"{i}/3", **options) for i in (1, 2, 3)]
    assert b"".join(parts) == whole
    assert [part.count(b"\n") for part in parts] == [3, 4, 4]


@pytest.mark.parametrize("cut", [0, 1, -1, 30, -30])
def test_as_many_outputs_as_there_are_of_a_line_are_continued(source, tmp_path, cut):
    """An empty line has one, the others two."""
    source.write_text("".join(f"{line}\n\n" for line in source.read_text().split("\n")[:3]))
    whole = run(source, tmp_path / "whole", n_best=2)
    assert [int(line.split(b"\t")[0]) for line in whole.splitlines()] == [1, 1, 2, 3, 3, 4, 5, 5, 6]
    output = tmp_path / "output"
    assert run(source, output, n_best=2, resume=True) == whole
    output.write_bytes(whole[:cut] if cut else whole)
    assert run(source, output, n_best=2, resume=True) == whole


@pytest.mark.parametrize(("n_best", "cut"), [(None, -3), (None, 0), (2, -3), (2, -40)])
def test_an_interrupted_output_is_continued(source, tmp_path, n_best, cut):
    whole = run(source, tmp_path / "whole", n_best)
    output = tmp_path / "output"
    first = run(source, output, n_best, shard="2/2", resume=True)
    assert whole.endswith(first) and 0 < len(first) < len(whole)
    output.write_bytes(first[:cut] if cut else first)
    assert run(source, output, n_best, shard="2/2", resume=True, batch_size=2) == first
    assert run(source, output, n_best, shard="2/2", resume=True) == first


def test_what_was_made_otherwise_is_not_continued(source, tmp_path):
    output = tmp_path / "output"
    run(source, output, resume=True)
    for changes in ({"beam_size": 1}, {"shard": "1/2"}, {"n_best": 1}):
        with pytest.raises(DataError, match=r"output: was begun with another (search|shard|n_best); remove"):
            run(source, output, resume=True, **changes)
    source.write_text("ant\n")
    with pytest.raises(DataError, match="was begun with another input"):
        run(source, output, resume=True)
    (tmp_path / "output.json").write_text("[]")
    with pytest.raises(DataError, match="was begun with another input, model"):
        run(source, output, resume=True)
    (tmp_path / "output.json").unlink()
    with pytest.raises(DataError, match=r"exists, and .*output.json does not: it was not begun"):
        run(source, output, resume=True)


def test_the_record_names_the_model(source, tmp_path, learned, monkeypatch):
    run(source, tmp_path / "output", resume=True)
    assert json.loads((tmp_path / "output.json").read_text())["search"]["beam_size"] == 2
    monkeypatch.setattr(verb, "load_model", lambda model, checkpoint: learned)
    with pytest.raises(DataError, match="was begun with another model;"):
        run(source, tmp_path / "output", resume=True)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "a", "1/", "-1/2"])
def test_shards_that_do_not_exist(source, shard):
    with pytest.raises(ConfigError, match=r"--shard: .*: expected I/N with I from 1 to N"):
        shard_lines(str(source), shard)


def test_a_pipe_is_read_once(source, tmp_path, capsys):
    """Its lines are not counted beforehand: that would use them up."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sender = threading.Thread(target=lambda: pipe.write_text(source.read_text()), daemon=True)
    with pytest.raises(ConfigError, match="--resume: needs --input and --output, two files"):
        run(pipe, tmp_path / "output", resume=True)
    sender.start()
    output = run(pipe, tmp_path / "output")
    assert re.search(r"^translated \d+ lines  [0-9.]+ lines/s$", capsys.readouterr().err, re.MULTILINE)
    assert output == run(source, tmp_path / "whole")
    assert capsys.readouterr().err.splitlines()[-1].startswith("translated 11 of 11 lines  ")


def test_standard_streams_have_no_portions(source):
    with pytest.raises(ConfigError, match="--shard: needs --input"):
        shard_lines(None, "1/2")
    with pytest.raises(ConfigError, match="--resume: needs --input and --output"):
        translate("", "last", str(source), None, None, {}, resume=True)


def test_an_output_in_no_folder_and_no_outputs_at_all_are_refused(source, tmp_path):
    with pytest.raises(DataError, match=r"there is no folder .*; make it first"):
        run(source, tmp_path / "new" / "output", resume=True)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match="n_best"):
        run(source, tmp_path / "output", n_best=0)
