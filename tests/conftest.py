"""What tests of several rooms share."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module")
def cheap_compilation() -> Iterator[None]:
    """Compiles without optimizing machine code, which takes less time; the program is the same."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
