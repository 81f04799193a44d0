"""What reaches a terminal and what reaches a file, seen as a terminal shows it."""

import io
import os
import pty
import re
import time

import pytest

from transformer.io import progress
from transformer.io.progress import Pace, Progress, duration


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def screen(text):
    """Returns the lines that a terminal shows after `text`; only \\r, \\n and erase-to-end are known."""
    lines, column = [""], 0
    for token in re.findall(r"\x1b\[K|.|\n|\r", text, re.DOTALL):
        if token == "\n":
            lines.append("")
            column = 0
        elif token == "\r":
            column = 0
        elif token == "\x1b[K":
            lines[-1] = lines[-1][:column]
        else:
            lines[-1] = lines[-1][:column] + token + lines[-1][column + 1 :]
            column += 1
    return lines


def test_terminal_has_one_live_line_that_notes_do_not_clobber():
    stream, clock = Terminal(), Clock()
    shown = Progress(stream, clock)
    shown.show("step 1: a long line")
    clock.now += 1
    shown.show("step 2")
    assert screen(stream.getvalue()) == ["step 2"]
    shown.note("saved")
    assert screen(stream.getvalue()) == ["saved", "step 2"]
    shown.close()
    assert screen(stream.getvalue()) == ["saved", "step 2", ""]


def test_live_line_is_cut_to_the_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    Progress(stream, Clock()).show("x" * 50)
    assert screen(stream.getvalue()) == ["x" * 19]


def test_live_line_is_not_redrawn_at_every_step():
    stream, clock = Terminal(), Clock()
    shown = Progress(stream, clock)
    for step in range(1000):
        shown.show(f"step {step}", last=step == 999)
        clock.now += 0.001
    assert 10 <= stream.getvalue().count("step") <= 12
    assert screen(stream.getvalue()) == ["step 999"]


def test_a_file_gets_plain_lines_ten_seconds_apart_and_the_last():
    stream, clock = io.StringIO(), Clock()
    shown = Progress(stream, clock)
    for step in range(1, 26):
        shown.show(f"step {step}", last=step == 25)
        clock.now += 1
    shown.note("done")
    shown.close()
    assert stream.getvalue() == "step 1\nstep 11\nstep 21\nstep 25\ndone\n"


def test_busy_ticks_on_a_terminal(monkeypatch):
    monkeypatch.setattr(progress, "TICK_EVERY", 0.01)
    stream, clock = Terminal(), Clock()
    shown = Progress(stream, clock)
    shown.show("step 1")
    with shown.busy("compiling"):
        assert screen(stream.getvalue()) == ["compiling ... 0 s"]
        clock.now += 12
        deadline = time.monotonic() + 10
        while screen(stream.getvalue()) != ["compiling ... 12 s"]:
            assert time.monotonic() < deadline, "never ticked"
            time.sleep(0.005)
    assert screen(stream.getvalue()) == ["step 1"]


def test_busy_is_one_plain_line_elsewhere_and_nested_time_counts_once():
    stream, clock = io.StringIO(), Clock()
    shown = Progress(stream, clock)
    with pytest.raises(KeyError), shown.busy("evaluating"):
        clock.now += 2
        with shown.busy("compiling"):
            clock.now += 3
        raise KeyError
    assert stream.getvalue() == "evaluating ...\ncompiling ...\n"
    assert shown.paused == 5


def test_a_real_terminal(capfd):
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as stream:
        shown = Progress(stream, time.monotonic)
        with shown.busy("compiling"):
            pass
        shown.show("y" * 200)  # the pseudo-terminal states no width: 80 columns
        shown.close()
        text = ""
        while not text.endswith("\r\n"):  # the terminal hands over what is there by now
            text += os.read(leader, 4096).decode()
    os.close(leader)
    assert screen(text.replace("\r\n", "\n")) == ["y" * 79, ""]
    assert capfd.readouterr() == ("", "")


def test_default_is_standard_error(capsys):
    Progress(None, Clock()).note("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_durations():
    assert [duration(s) for s in (0.2, 59.4, 59.6, 200, 3720, 360_000)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "3 min 20 s",
        "1 h 02 min",
        "100 h 00 min",
    ]


@pytest.mark.parametrize("total, whole, left", [(400, " of 400", "  12 s left"), (None, "", "")])
def test_pace_tells_rate_and_time_left(total, whole, left, monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    pace = Pace("parsed", total, "sentences")
    clock.now += 2
    pace.add(40)
    clock.now += 2
    pace.add(60)
    first, second = (
        f"parsed 40{whole} sentences  20.0",
        f"parsed 100{whole} sentences  25.0 sentences/s{left}",
    )
    shown = capsys.readouterr().err.splitlines()
    assert shown[0].startswith(first) and len(shown) == 1  # the second came within ten seconds
    clock.now += 10
    pace.add(0)
    assert capsys.readouterr().err == second.replace("25.0", "7.1").replace("12 s", "42 s") + "\n"
    assert pace.done == 100
