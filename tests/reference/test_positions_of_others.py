"""Signals and buckets of positions against those of the `transformers` package."""

import numpy as np
import pytest

from transformer.model.positions import FIXED, buckets

torch = pytest.importorskip("torch", reason="PyTorch, not a dependency of this project, is not installed")
models = pytest.importorskip("transformers.models", reason="transformers, not a dependency, is not installed")


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("number", "far"), [(32, 128), (8, 6), (12, 30), (48, 1000), (320, 800), (4, 3)])
def test_buckets_are_those_of_t5(number: int, far: int, bidirectional: bool) -> None:
    distance = torch.arange(-far - 5, far + 6)
    of_t5 = models.t5.modeling_t5.T5Attention._relative_position_bucket
    expected = of_t5(distance, bidirectional, number, far).numpy()
    found = buckets(number, far, bidirectional)[np.clip(distance.numpy(), -far, far) + far]
    np.testing.assert_array_equal(found, expected)


def test_split_sinusoids_are_those_of_marian() -> None:
    table = models.marian.modeling_marian.MarianSinusoidalPositionalEmbedding(300, 18)
    found = FIXED["sinusoidal_split"](np.arange(300), 18)
    np.testing.assert_allclose(found, table.create_weight().numpy(), rtol=0, atol=2e-5)


def test_halves_are_those_of_m2m100() -> None:
    """There the row of the padding id is zero, and sentences begin in the row after it."""
    of_m2m100 = models.m2m_100.modeling_m2m_100.M2M100SinusoidalPositionalEmbedding
    expected = of_m2m100.get_embedding(300, 18, 1).numpy()
    np.testing.assert_allclose(FIXED["sinusoidal_halves"](np.arange(300), 18)[2:], expected[2:], atol=2e-5)
