"""Sources of vectors: one-hot ones are look-ups; rows, neighbours and padding change nothing."""

import dataclasses

import jax
import numpy as np
import pytest
from reference import reference_cases as cases

from transformer.axes import param_specs
from transformer.config import ModelConfig
from transformer.data.batch import Batch, pack_rows, pad_rows
from transformer.model.size import count_parameters, flops_per_token, parameter_shapes
from transformer.model.transformer import Transformer
from transformer.paths import by_path

V, C, D = 13, 5, 12


def apply(model: Transformer, params, batch: Batch) -> np.ndarray:
    return np.asarray(jax.jit(lambda params, batch: model.apply({"params": params}, *batch))(params, batch))


def test_one_hot_frames_are_tokens():
    """With the scaled table as kernel and no bias, a frame with a single 1 is the token of that number."""
    text = cases.build(cases.model_config(tied_embeddings="target", num_encoder_layers=1))
    text = dataclasses.replace(text, source_vocab=V)
    inputs, _ = cases.batch(text)
    params = cases.random_params(text)
    frames = dataclasses.replace(text, config=dataclasses.replace(text.config, source_features=V))
    kernel = params["source"]["embedding"] * text.config.d_model**0.5
    mapped = {**params, "source": {"kernel": kernel, "bias": np.zeros(text.config.d_model, np.float32)}}
    one_hot = np.eye(V, dtype=np.float32)[inputs[0]]
    found = apply(frames, mapped, (one_hot, *inputs[1:]))
    np.testing.assert_allclose(found, apply(text, params, inputs), rtol=0, atol=2e-5)


def test_packing_and_padding_change_nothing():
    model = cases.build(cases.model_config(source_features=C, num_encoder_layers=1))
    params = cases.random_params(model)
    draw = np.random.default_rng(5)
    pairs = [
        (draw.normal(size=(n, C)).astype(np.float32), draw.integers(1, V, m))
        for n, m in ((3, 2), (2, 4), (3, 1))
    ]
    found = []
    for rows in ([pairs], [[pair] for pair in pairs]):
        batch = pad_rows(pack_rows(rows, len(rows), 8), 4)
        dirty = np.where(batch.src_seg_BS[..., None] > 0, batch.src_BS, 1e3).astype(np.float32)
        for src_BS in (batch.src_BS, dirty):
            found.append(apply(model, params, batch._replace(src_BS=src_BS))[batch.tgt_seg_BT > 0])
    assert len(found[0]) == 7
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("tied", "tables"),
    [
        ("all", {"shared"}),
        ("target", {"target"}),
        ("inputs", {"shared", "output"}),
        ("none", {"target", "output"}),
    ],
)
def test_parameters(tied, tables):
    """A map in place of the table of sources; the table of targets is as ever."""
    c = ModelConfig(d_model=D, d_ff=10, num_heads=3, tied_embeddings=tied, source_features=C)
    model = Transformer(c, V, V)
    shapes = parameter_shapes(model)
    found = {
        path.removesuffix("/embedding"): x.shape for path, x in by_path(shapes).items() if "embedding" in path
    }
    assert found == dict.fromkeys(tables, (V, D))
    assert {path: x.shape for path, x in by_path(shapes["source"]).items()} == {
        "kernel": (C, D),
        "bias": (D,),
    }
    param_specs(shapes)  # each has one rule
    assert count_parameters(model)["embeddings"] == V * D + (C + 1) * D
    text = Transformer(dataclasses.replace(c, source_features=0), V, V)
    more = flops_per_token(model, 10.0, 4.0) - flops_per_token(text, 10.0, 4.0)
    assert more == pytest.approx(3 * 2 * 10 * C * D / 4)
