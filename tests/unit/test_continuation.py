"""Every key is free or fixed when a run is continued, and is treated as such."""

import dataclasses
from typing import Any

import pytest

from transformer.config import Config
from transformer.config_mapping import flat
from transformer.continuation import FIXED, FREE
from transformer.errors import CheckpointError
from transformer.io.workdir import Workdir

KEYS = sorted(flat(Config()))


def other(value: Any) -> Any:
    """Returns another value of the same type."""
    if isinstance(value, bool):
        return not value
    return (*value, 1) if isinstance(value, tuple) else value + (" " if isinstance(value, str) else 1)


def test_no_key_is_forgotten():
    assert set(KEYS) == FREE | FIXED
    assert not FREE & FIXED


@pytest.mark.parametrize("key", KEYS)
def test_a_changed_key(key, tmp_path):
    workdir = Workdir(tmp_path)
    workdir.save_config(Config())
    section, name = key.split(".")
    old = flat(Config())[key]
    part = dataclasses.replace(getattr(Config(), section), **{name: other(old)})
    changed = dataclasses.replace(Config(), **{section: part})
    assert workdir.check_config(Config()) == []
    if key in FREE:
        assert workdir.check_config(changed) == [f"{key}: {old!r} -> {other(old)!r}"]
    else:
        with pytest.raises(CheckpointError) as caught:
            workdir.check_config(changed)
        assert f"{key} (was {old!r}, now {other(old)!r}); give the old values" in str(caught.value)
        assert "\n" not in str(caught.value)
