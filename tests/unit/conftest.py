"""The small models of `small_model.py`, made once."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from unit.small_model import make_model

from transformer.inference.model_directory import LoadedModel


@pytest.fixture(scope="session")
def loaded() -> LoadedModel:
    return make_model()


@pytest.fixture(scope="session")
def learned() -> LoadedModel:
    """The same with learned positions, which end at `max_length`."""
    return make_model(positions="learned")


@pytest.fixture(scope="session")
def scanned(loaded) -> LoadedModel:
    """The same parameters as `loaded`, stacked, in a model that scans its layers."""
    params = dict(loaded.params)
    for stack in ("encoder", "decoder"):
        layers = [params[stack][name] for name in sorted(params[stack])]
        params[stack] = {"layers": jax.tree.map(lambda *x: jnp.stack(x), *layers)}
    config = dataclasses.replace(loaded.config.model, scan_layers=True)
    model = dataclasses.replace(loaded.model, config=config)
    return dataclasses.replace(loaded, model=model, params=params)


@pytest.fixture(autouse=True, scope="module")
def compiles_cheaply(cheap_compilation: None) -> None:
    """All tests of this folder."""
