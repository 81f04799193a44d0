"""Recipes (`configs/*.py`) and what the command line changes in them."""

import importlib.util
import json
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer.config import BASE_SECTIONS, PRESET_SIZES, Config, default_config
from transformer.config_mapping import from_config_dict
from transformer.continuation import FREE
from transformer.errors import CheckpointError, ConfigError, did_you_mean

PREFIX = "--config."


def load_config(recipe: str, overrides: Sequence[str], base: Mapping[str, Any] | None = None) -> Config:
    """Returns the configuration of a recipe with overrides applied, checked.

    With `init.model`, the sections BASE_SECTIONS are that model's. On top comes what the recipe sets
    to other than the default, of keys that may change when a run is continued, and all that the
    command line sets. So any recipe fine-tunes any model.

    Args:
      recipe: path of a Python file with a function `get_config() -> ConfigDict`.
      overrides: arguments such as "--config.model.d_model=256" (or the value as the next one).
      base: settings of `init.model`, where they are recorded already; None: they are read there.

    Raises:
      ConfigError: if the recipe cannot be used, a key is unknown or a value impossible; one line
        for each fault.
    """
    config = _get_config(Path(recipe))
    commands = {}
    for key, value in _pairs(overrides):
        section, _, name = key.partition(".")
        commands[section, name] = config.setdefault(section, {})[name] = value
    if model := config.get("init", {}).get("model"):
        model = config["init"]["model"] = str(Path(str(model)).expanduser())
        base = base or _settings(Path(model))
        defaults = default_config()
        own_pieces = config["init"].get("vocabulary") == "transplant"
        for section in [name for name in BASE_SECTIONS if name != "tokenizer" or not own_pieces]:
            usual, given = defaults[section], config.get(section, {})
            stated = {
                name: value
                for name, value in given.items()
                if (section, name) in commands
                or name not in usual
                or (f"{section}.{name}" in FREE and value != usual[name])
            }
            open_ones = PRESET_SIZES if "preset" in stated else ()
            kept = {name: value for name, value in base[section].items() if name not in open_ones}
            config[section] = {**kept, **stated}
    return from_config_dict(config)


def _settings(folder: Path) -> Mapping[str, Any]:
    """Returns the sections of a model directory's configuration."""
    file = folder / "config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        return {section: dict(settings[section]) for section in BASE_SECTIONS}
    except FileNotFoundError:
        reason = "has no config.json; give the folder of a run, an average or an import"
        raise ConfigError(f"config.init.model: {folder}: {reason}") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from None


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
        found = module.get_config()
    except ConfigError:
        raise
    except Exception as error:  # a recipe is the user's program: whatever it raises is theirs to mend
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        text = error.args[0] if error.args and isinstance(error.args[0], str) else str(error)
        raise ConfigError(f"--config: {where}: {type(error).__name__}: {' '.join(text.split())}") from None
    try:
        return {section: dict(values) for section, values in found.items()}
    except (AttributeError, TypeError, ValueError):
        what = "nothing" if found is None else type(found).__name__
        raise ConfigError(
            f"--config: {path}: get_config() returned {what}, expected sections of keys; end it with "
            "`return config`"
        ) from None


def _pairs(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields (key, text) of "--config.key=text" and "--config.key text"."""
    rest = iter(overrides)
    for argument in rest:
        if not argument.startswith(PREFIX):
            raise ConfigError(f"{argument}: unknown argument; overrides look like --config.model.d_model=256")
        key, equals, value = argument.removeprefix(PREFIX).partition("=")
        if not equals:
            value = next(rest, "")
            if not value or value.startswith(PREFIX):
                raise ConfigError(f"{argument}: needs a value, as in {argument}=VALUE")
        yield key, value
