"""Errors that are the user's to mend: one line, no traceback, an exit code each."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the person at the keyboard can mend; the message says what, where and how."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration key, type or value that cannot be used."""

    exit_code = 2


class DataError(UserError):
    """Input text, dataset or tokenizer that cannot be used."""

    exit_code = 3


class CheckpointError(UserError):
    """A run directory or checkpoint that cannot be used."""

    exit_code = 4


class DivergedError(UserError):
    """The loss is no longer a number."""

    exit_code = 5


class PeerLost(UserError):
    """Another process of the run died or no longer answers."""

    exit_code = 6


class Preempted(UserError):
    """SIGTERM arrived; everything is saved and the same command continues."""

    exit_code = 75


class Interrupted(UserError):
    """Ctrl-C arrived; everything is saved and the same command continues."""

    exit_code = 130


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'x'?"`` for the nearest of `known`, or the short list of them.

    Args:
      word: what was given.
      known: the names that would have been right.

    Returns:
      A clause to append to an error message; never empty.
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(names)}"
