"""Lines from pipes, files and standard input; what they are written to, and told where that cannot be."""

import gzip
import os
import subprocess
import sys

import pytest

from transformer.errors import DataError
from transformer.io.text import line_writer, read_lines
from transformer.io.workdir import write_json


@pytest.mark.parametrize("zipped", [False, True])
def test_a_pipe_is_read_as_a_file_is(zipped):
    reader, writer = os.pipe()
    os.write(writer, gzip.compress(b"a\nb\n") if zipped else b"a\nb\n")
    os.close(writer)
    assert read_lines(f"/dev/fd/{reader}") == ["a", "b"]
    os.close(reader)


def test_what_opens_and_cannot_be_read_is_named():
    with pytest.raises(
        DataError, match=r"^/proc/self/mem: cannot be read after line 0: .*Input/output error"
    ):
        read_lines("/proc/self/mem")


def test_a_process_ends_while_its_standard_input_is_open():
    program = """if True:
        import sys
        from transformer.errors import DataError
        from transformer.io.text import stream_blocks
        try:
            list(stream_blocks(None, 4))
        except DataError as error:
            sys.exit(f"error: {error}")"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stderr
        process.stdin.write(b"good\n\xff\n")
        process.stdin.flush()
        told = process.stderr.read().decode()  # until it has ended, though nobody closed its input
        assert (process.wait(), told.count("\n")) == (1, 1), told
        assert told.startswith("error: standard input: line 2 is not UTF-8")


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
