"""Configurations as mappings: from what recipes and files say to the typed one, and back."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from transformer.coercion import coerce
from transformer.config import PRESET_SIZES, PRESETS, Config, DecodeConfig, ModelConfig
from transformer.errors import ConfigError, did_you_mean
from transformer.validation import find_faults


def from_config_dict(config: Mapping[str, Any]) -> Config:
    """Builds the typed configuration and checks it.

    Args:
      config: nested mapping as `default_config` makes it; missing keys take their defaults, and
        None in a size of the model takes the preset's.

    Returns:
      The validated configuration.

    Raises:
      ConfigError: with every fault found, one a line.
    """
    faults: list[str] = []
    sections = {}
    section_types = typing.get_type_hints(Config)
    for name in config:
        if name not in section_types:
            faults.append(f"config.{name}: unknown section{did_you_mean(name, section_types)}")
    for name, cls in section_types.items():
        try:
            given = dict(config.get(name) or {})
        except (TypeError, ValueError):
            faults.append(f"config.{name}: expected keys with values, got {config[name]!r}")
            continue
        if name == "model":
            given = _with_preset(given)
        sections[name] = _section(name, cls, given, faults)
    if faults:
        raise ConfigError("\n".join(faults))
    built = Config(**sections)
    faults = find_faults(built, flat(built))
    if faults:
        raise ConfigError("\n".join(faults))
    return built


def to_dict(config: Config) -> dict[str, Any]:
    """Returns the configuration as nested dicts of JSON values (tuples become lists)."""
    return {
        section: {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        for section, values in dataclasses.asdict(config).items()
    }


def flat(config: Config) -> dict[str, Any]:
    """Returns {"section.key": value}."""
    return {f"{s}.{k}": v for s, values in dataclasses.asdict(config).items() for k, v in values.items()}


def _with_preset(given: dict[str, Any]) -> dict[str, Any]:
    chosen = {k: v for k, v in given.items() if v is not None or k not in PRESET_SIZES}
    preset = dict(PRESETS.get(str(given.get("preset", ModelConfig.preset)), {}))
    if given.get("kind") == "decoder_only":
        preset["num_encoder_layers"] = 0
    return {**preset, **chosen}


def _section(name: str, cls: type, given: dict[str, Any], faults: list[str]) -> Any:
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in given.items():
        where = f"config.{name}.{key}"
        if key not in hints:
            faults.append(f"{where}: unknown key{did_you_mean(key, hints)}")
            continue
        try:
            values[key] = coerce(value, hints[key], where)
        except ConfigError as error:
            faults.append(str(error))
    return cls(**values)


def replace_decode(decode: DecodeConfig, options: Mapping[str, Any]) -> DecodeConfig:
    """Returns `decode` with some fields changed.

    Raises:
      ConfigError: if a name is unknown or a value cannot be used.
    """
    return from_config_dict({"decode": {**dataclasses.asdict(decode), **options}}).decode
