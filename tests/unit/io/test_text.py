"""What lines are written to: emptied only for results, and told where it cannot be written."""

import subprocess
import sys

import pytest

from transformer.errors import DataError
from transformer.io.text import line_writer
from transformer.io.workdir import write_json


def test_an_old_output_is_there_until_there_are_results(tmp_path):
    file = tmp_path / "out"
    file.write_text("old\n")
    with pytest.raises(ZeroDivisionError), line_writer(str(file)):
        assert 1 / 0
    assert file.read_text() == "old\n"
    with line_writer(str(file), append=True) as write:
        write(["a\nb", "c"])
        assert file.read_text() == "old\na b\nc\n"
    with line_writer(str(file)) as write:
        write(["d"])
        write(["e"])
    assert file.read_text() == "d\ne\n"
    with line_writer(str(file)):
        pass  # nothing came out
    assert file.read_text() == ""


def test_a_full_disk_is_one_line():
    message = r"^/dev/full: cannot be written \(No space left on device\)$"
    with pytest.raises(DataError, match=message), line_writer("/dev/full") as write:
        write(["a"])
    program = "import sys; from transformer.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "evaluate", "--hypothesis", __file__, "--reference", __file__]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (2, "transformer: error: No space left on device\n")


def test_json_goes_through_links_and_into_pipes(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_json(link, {"a": 1})
    assert link.is_symlink() and target.read_text() == '{\n  "a": 1\n}\n'
    program = "import pathlib, transformer.io.workdir as w; w.write_json(pathlib.Path('/dev/stdout'), 2)"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout == "2\n"
