"""Recipes (`configs/*.py`) and what the command line changes in them."""

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformer.config import Config, from_config_dict
from transformer.errors import ConfigError, did_you_mean

_PREFIX = "--config."


def load_config(recipe: str, overrides: Sequence[str]) -> Config:
    """Returns the configuration of a recipe with overrides applied, checked.

    Args:
      recipe: path of a Python file with a function `get_config() -> ConfigDict`.
      overrides: arguments such as "--config.model.d_model=256" (or the value as the next one).

    Raises:
      ConfigError: if the recipe cannot be used, a key is unknown or a value impossible; one line
        for each fault.
    """
    config = _get_config(Path(recipe))
    for key, value in _pairs(overrides):
        section, _, name = key.partition(".")
        config.setdefault(section, {})[name] = value
    return from_config_dict(config)


def _get_config(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        near = (
            did_you_mean(path.name, [p.name for p in path.parent.glob("*.py")])
            if path.parent.is_dir()
            else ""
        )
        raise ConfigError(f"--config: {path}: no such recipe{near}")
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config: {path}: not a Python file; a recipe is a .py file with get_config()")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return {section: dict(values) for section, values in module.get_config().items()}
    except ConfigError:
        raise
    except Exception as error:  # a recipe is the user's program: whatever it raises is theirs to mend
        reason = " ".join(str(error).split())
        raise ConfigError(f"--config: {path}: {type(error).__name__}: {reason}") from None


def _pairs(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields (key, text) of "--config.key=text" and "--config.key text"."""
    rest = iter(overrides)
    for argument in rest:
        if not argument.startswith(_PREFIX):
            guess = did_you_mean(argument.partition("=")[0], ("--config", "--workdir", "--dry_run"))
            raise ConfigError(
                f"{argument}: unknown argument{guess}; overrides look like --config.model.d_model=256"
            )
        key, equals, value = argument.removeprefix(_PREFIX).partition("=")
        if not equals:
            value = next(rest, "")
            if not value or value.startswith(_PREFIX):
                raise ConfigError(f"{argument}: needs a value, as in {argument}=VALUE")
        yield key, value
