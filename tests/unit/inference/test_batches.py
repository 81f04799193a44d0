"""Programs that several threads want at once."""

import threading
import time
from collections.abc import Callable

import pytest

from transformer.inference.batches import OneAtATime


def together(*jobs: Callable[[], None]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_program_is_made_by_one_thread_while_others_make_theirs():
    turns = OneAtATime()
    made: list[str] = []
    meeting = threading.Barrier(2, timeout=5)  # "a" and "b" are made at the same time

    def make(program: str) -> None:
        with turns.once(program):
            if program not in made:
                meeting.wait()
                time.sleep(0.1)
                made.append(program)

    together(*(lambda program=program: make(program) for program in "aabba"))
    assert sorted(made) == ["a", "b"]

    def use() -> None:
        with turns.once("a"):
            meeting.wait()  # what is made is used by several at once

    together(use, use)
    assert not meeting.broken


def test_after_a_failure_the_next_one_tries():
    turns = OneAtATime()
    with pytest.raises(ValueError, match="first"), turns.once("a"):
        raise ValueError("first")
    with turns.once("a"):
        pass
