"""An encoder alone: its parameters and arithmetic; rows and neighbours change nothing of its answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import reference_cases as cases

from transformer.config import ModelConfig
from transformer.data.batch import NOT_ASKED, pack_rows
from transformer.model.size import count_parameters, flops_per_token, memory_estimate, parameter_shapes
from transformer.model.transformer import Transformer
from transformer.paths import by_path

D, F, LAYERS, V, LABELS = 8, 12, 2, 30, 5
CONFIG = ModelConfig(
    kind="encoder_only", d_model=D, d_ff=F, num_heads=2, num_encoder_layers=LAYERS, num_decoder_layers=3
)
LAYER = 4 * D * D + 2 * D * F + F + D + 4 * D


@pytest.mark.parametrize(
    ("labels", "tied", "tables", "output"),
    [
        (V, "all", {"shared": V}, 0),
        (V, "none", {"source": V, "output": V}, V * D),
        (LABELS, "all", {"shared": V, "output": LABELS}, LABELS * D),
        (LABELS, "target", {"source": V, "output": LABELS}, LABELS * D),
    ],
)
def test_parameters(labels, tied, tables, output):
    model = Transformer(ModelConfig(**{**vars(CONFIG), "tied_embeddings": tied}), V, labels)
    shapes = by_path(parameter_shapes(model))
    found = {path.removesuffix("/embedding"): x.shape for path, x in shapes.items() if "embedding" in path}
    assert found == {name: (rows, D) for name, rows in tables.items()}
    expected = {"embeddings": V * D, "encoder": LAYERS * LAYER, "decoder": 0, "output": output}
    assert count_parameters(model) == {**expected, "total": sum(expected.values())}


def test_arithmetic_and_memory():
    """Layers run at all positions, the output where something is asked; there is no decoder."""
    S, asked = 10.0, 2.0
    layer = 8 * S * D * D + 4 * S * S * D + 4 * S * D * F
    model = Transformer(CONFIG, V, LABELS)
    assert flops_per_token(model, S, asked) == 3 * (LAYERS * layer + 2 * asked * D * LABELS) / asked
    pairs = Transformer(ModelConfig(**{**vars(CONFIG), "kind": "encoder_decoder"}), V, V)
    ours, theirs = (memory_estimate(m, "adam", 2, 16, 16, ema=False) for m in (model, pairs))
    assert 0 < ours["activations"] < 0.5 * theirs["activations"]
    assert ours["optimizer"] == 2 * ours["parameters"] == 8 * count_parameters(model)["total"]


def test_packing_and_padding_change_no_answer():
    model = cases.build(cases.model_config(kind="encoder_only", num_encoder_layers=1), LABELS)
    params = jax.tree.map(jnp.asarray, cases.random_params(model))
    draw = np.random.default_rng(5)
    sentences = [draw.integers(1, 13, n) for n in (3, 2, 3)]
    pairs = [(ids, np.where(np.arange(len(ids)) == 0, 2, NOT_ASKED)) for ids in sentences]
    layouts = [pack_rows(rows, 3, 8) for rows in ([pairs, [], []], [[pair] for pair in pairs])]
    apply = jax.jit(lambda batch: model.apply({"params": params}, *batch))
    found = []
    for batch in layouts:
        y_BTD, asked = np.asarray(apply(batch)), batch.tgt_seg_BT > 0
        assert (batch.tgt_pos_BT[asked] == 0).all() and (batch.tgt_BT[asked] == 2).all()
        found.append(y_BTD[asked])
    assert len(found[0]) == 3
    np.testing.assert_allclose(found[0], found[1], rtol=0, atol=2e-6)
