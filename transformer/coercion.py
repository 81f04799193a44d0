"""Values from the command line or from JSON, turned into what a field's annotation asks for."""

import typing
from typing import Any, Literal

from transformer.errors import ConfigError, did_you_mean


def coerce(value: Any, hint: Any, where: str) -> Any:
    """Converts a value (text from the command line, or Python) to a field's type.

    Args:
      value: what was given; text is read as the type asks ("1_000", "true", "a,b").
      hint: the field's annotation.
      where: the key, for the message.

    Raises:
      ConfigError: if it does not fit.
    """
    origin = typing.get_origin(hint)
    if origin is Literal:
        allowed = typing.get_args(hint)
        if value in allowed:
            return value
        raise ConfigError(f"{where}: {value!r} is not a choice{did_you_mean(str(value), map(str, allowed))}")
    if origin is tuple:
        if isinstance(value, str):
            inner = value[1:-1]
            if value in (f"({inner})", f"[{inner}]") and not set(inner) & set("()[]"):
                value = inner
            value = [part for text in value.split(",") if (part := text.strip())]
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where}: expected a list such as a,b, got {value!r}")
        return tuple(coerce(v, typing.get_args(hint)[0], where) for v in value)
    try:
        if hint is bool:
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        if hint is int and not isinstance(value, bool):
            if isinstance(value, float) and not value.is_integer():
                raise ValueError
            return int(value)
        if hint is float and not isinstance(value, bool):
            return float(value)
        if hint is str and isinstance(value, str):
            value.encode()
            return value
    except UnicodeEncodeError:
        raise ConfigError(f"{where}: {value!a} is not UTF-8; rename the file, or type it anew") from None
    except (ValueError, KeyError, TypeError):
        pass
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    raise ConfigError(f"{where}: expected {kinds[hint]}, got {value!r}")
