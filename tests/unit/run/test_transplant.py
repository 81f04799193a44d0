"""Rows for another tokenizer's pieces, against regular expressions and NumPy."""

import random
import re

import numpy as np
import pytest

from transformer.config import ModelConfig, TokenizerConfig
from transformer.data.tokenizer import Tokenizer, train_tokenizer
from transformer.run.transplant import transplanted


def tokenizer(size: int, letters: str, joint: bool, seed: int) -> Tokenizer:
    draw = random.Random(seed)
    words = ["".join(draw.choices(letters, k=draw.randint(2, 6))) for _ in range(60)]
    lines = [[" ".join(draw.choices(words, k=5)) for _ in range(80)] for _ in range(2)]
    return train_tokenizer(*lines, TokenizerConfig(model_type="bpe", vocab_size=size, joint=joint))


def pieces(tokenizer: Tokenizer, side: str) -> list[str]:
    count = getattr(tokenizer, f"{side}_vocab")
    return getattr(tokenizer, f"{side}_pieces")(range(count))


# Tables by tied_embeddings, and the side whose pieces their rows are.
SIDES = {
    "all": {"shared": "target"},
    "target": {"source": "source", "target": "target"},
    "none": {"source": "source", "target": "target", "output": "target"},
}


@pytest.mark.parametrize("tied", SIDES)
def test_equal_pieces_keep_rows_and_others_are_means(tied):
    old = tokenizer(50, "abcdefg", tied == "all", seed=1)
    new = tokenizer(70, "abcdefgh", tied == "all", seed=2)  # h is unknown to the old one
    draw = np.random.default_rng(0)
    params = {f"{name}/embedding": draw.normal(size=(50, 4)).astype(np.float32) for name in SIDES[tied]}
    params |= {"logits_bias": draw.normal(size=50).astype(np.float32), "encoder/x/kernel": np.ones((4, 4))}
    found, coverage = transplanted(params, ModelConfig(tied_embeddings=tied), old, new)
    assert found.keys() == params.keys() and found["encoder/x/kernel"] is params["encoder/x/kernel"]
    for path, side in [
        *((f"{name}/embedding", side) for name, side in SIDES[tied].items()),
        ("logits_bias", "target"),
    ]:
        before, after = pieces(old, side), pieces(new, side)
        assert found[path].shape == (70, *params[path].shape[1:]) and found[path].dtype == np.float32
        np.testing.assert_array_equal(found[path][:4], params[path][:4])  # pad, unknown, start, end
        longest_first = "|".join(sorted(map(re.escape, before[4:]), key=len, reverse=True)) + "|."
        counts = {"equal": 4, "composed": 0, "unknown": 0}
        for i, piece in enumerate(after[4:], 4):
            parts = re.findall(longest_first, piece)
            assert "".join(parts) == piece
            rows = [before.index(part) if part in before else 1 for part in parts]
            np.testing.assert_allclose(found[path][i], params[path][rows].mean(axis=0), rtol=1e-5, atol=1e-6)
            kind = "unknown" if 1 in rows else "equal" if piece in before else "composed"
            counts[kind] += 1
            if kind == "equal":
                np.testing.assert_array_equal(found[path][i], params[path][before.index(piece)])
        assert coverage[side]._asdict() == counts and min(counts.values()) > 0


def test_moments_follow():
    old, new = tokenizer(50, "abcdefg", True, seed=1), tokenizer(70, "abcdefgh", True, seed=2)
    draw = np.random.default_rng(0)
    params = {"shared/embedding": draw.normal(size=(50, 4)), "encoder/x/kernel": np.ones((50, 4))}
    moments = {
        f"1/0/{kind}/{path}": draw.random(x.shape) for kind in ("mu", "nu") for path, x in params.items()
    }
    moments |= {
        "1/0/count": np.int32(7),
        "1/0/v_row/shared/embedding": np.ones(50),
    }  # Adafactor's has one axis
    found, _ = transplanted({**params, **moments}, ModelConfig(), old, new)
    for kind in ("mu", "nu"):
        path = f"1/0/{kind}/shared/embedding"
        alone, _ = transplanted({"shared/embedding": moments[path]}, ModelConfig(), old, new)
        np.testing.assert_array_equal(found.pop(path), alone["shared/embedding"])
    for path in (*moments, "encoder/x/kernel"):
        assert path not in found or found[path] is {**params, **moments}[path]


def test_the_same_tokenizer_changes_nothing():
    old = tokenizer(50, "abcdefg", True, seed=1)
    table = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    found, coverage = transplanted({"shared/embedding": table}, ModelConfig(), old, old)
    np.testing.assert_array_equal(found["shared/embedding"], table)
    assert coverage["source"] == (50, 0, 0)
