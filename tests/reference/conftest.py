"""How the tests of this folder compile."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def compiles_cheaply(cheap_compilation: None) -> None:
    """All tests of this folder."""
