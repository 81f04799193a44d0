"""What a person is told when JAX's compilation cache fails; the program is compiled anew then."""

import re
import warnings
from typing import Any

from transformer.io.standard_error import say

_FAILURE = re.compile(r"Error (read|writ)ing persistent compilation cache entry for '.*?': (.*)", re.DOTALL)
_LONGEST = 200  # characters of JAX's reason


def tell_cache_failures_once() -> None:
    """Turns JAX's warnings, one for each program that it compiles, into one line on standard error."""
    show = warnings.showwarning
    told = False

    def showwarning(message: Warning | str, *args: Any, **options: Any) -> None:
        nonlocal told
        failure = _FAILURE.match(str(message))
        if failure is None:
            show(message, *args, **options)
        elif not told:
            told = True
            say(_line(*failure.groups()))

    warnings.showwarning = showwarning


def _line(what: str, reason: str) -> str:
    import jax  # the command line does without as long as it can

    trouble = {"read": "an entry cannot be read", "writ": "cannot be written"}[what]
    remedy = {
        "read": "compiled anew; remove what is in that folder, or name another",
        "writ": "the next start will compile again; make room or give write access",
    }[what]
    reason = " ".join(reason.split())[:_LONGEST]
    folder = jax.config.values["jax_compilation_cache_dir"]
    return f"warning: compilation cache {folder}: {trouble} ({reason}); {remedy}"
