"""docs/attention.md: its examples run and give what NumPy gives; its names and choices exist."""

import importlib
import re
import typing
from pathlib import Path

import numpy as np
import pytest

from transformer import config

DOCUMENT = (Path(__file__).parents[3] / "docs" / "attention.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
AXES = {"channel": 4, "gate": 4, "spatial": 4, "temporal": 5, "branch": 4}  # of what each example gives


@pytest.fixture(scope="module")
def examples():
    """Functions of all blocks by name, each block run on its own."""
    found = {}
    for block in BLOCKS:
        names: dict[str, object] = {}
        exec(block, names)
        found |= {name: x for name, x in names.items() if name in AXES or name == "params"}
    return found


def drawn(*shapes):
    draw = np.random.default_rng(0)
    return [draw.normal(size=shape).astype(np.float32) for shape in shapes]


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_every_example_is_short_and_prints_a_shape(examples, capsys):
    assert set(examples) == {*AXES, "params"}
    for block, axes in zip(BLOCKS, AXES.values(), strict=True):
        assert len(block.splitlines()) <= 20
        exec(block, {})
        assert re.fullmatch(rf"\((\d+, ){{{axes - 1}}}\d+\)\n", capsys.readouterr().out)


def test_channels_read_channels(examples):
    (x_BYXC,) = drawn((2, 3, 4, 5))
    expected_BYXC = np.zeros_like(x_BYXC)
    for b, x_YXC in enumerate(x_BYXC):
        for c in range(5):
            weights_C = softmax(np.array([(x_YXC[..., c] * x_YXC[..., d]).sum() for d in range(5)]))
            expected_BYXC[b, ..., c] = sum(weights_C[d] * x_YXC[..., d] for d in range(5))
    np.testing.assert_allclose(examples["channel"](x_BYXC), expected_BYXC, atol=1e-5)


def test_a_gate_is_a_sigmoid_of_each_channel(examples):
    x_BYXC, in_CK, out_KC = drawn((2, 3, 4, 5), (5, 2), (2, 5))
    score_BC = np.maximum(x_BYXC.mean(axis=(1, 2)) @ in_CK, 0) @ out_KC
    expected_BYXC = x_BYXC / (1 + np.exp(-score_BC))[:, None, None]
    np.testing.assert_allclose(examples["gate"](x_BYXC, in_CK, out_KC), expected_BYXC, atol=1e-6)


def test_places_read_places(examples):
    (x_BYXC,) = drawn((2, 3, 4, 6))
    kernels = {name: np.asarray(part["kernel"]) for name, part in examples["params"].items()}
    x_BSC = np.array([[x_YXC[y, x] for y in range(3) for x in range(4)] for x_YXC in x_BYXC])
    expected_BSC = np.zeros_like(x_BSC)
    for h in range(2):
        q_BSK, k_BSK, v_BSK = (x_BSC @ kernels[name][:, h] for name in ("query", "key", "value"))
        weights_BSS = softmax(q_BSK @ k_BSK.swapaxes(1, 2) / 3**0.5)
        expected_BSC += weights_BSS @ v_BSK @ kernels["out"][h]
    found_BYXC = examples["spatial"](examples["params"], x_BYXC)
    np.testing.assert_allclose(found_BYXC, expected_BSC.reshape(x_BYXC.shape), atol=1e-5)


def test_a_place_reads_itself_in_the_frames_until_now(examples):
    (x_BNYXC,) = drawn((2, 3, 2, 2, 4))
    expected_BNYXC = np.zeros_like(x_BNYXC)
    for b, n, y, x in np.ndindex(x_BNYXC.shape[:4]):
        until_now_NC = x_BNYXC[b, : n + 1, y, x]
        weights_N = softmax(until_now_NC @ until_now_NC[-1] / 4**0.5)
        expected_BNYXC[b, n, y, x] = weights_N @ until_now_NC
    np.testing.assert_allclose(examples["temporal"](x_BNYXC), expected_BNYXC, atol=1e-5)


def test_each_channel_chooses_among_branches(examples):
    x_BMYXC, summary_CK, key_CMK = drawn((2, 3, 2, 4, 5), (5, 2), (5, 3, 2))
    expected_BYXC = np.zeros_like(x_BMYXC[:, 0])
    for b, x_MYXC in enumerate(x_BMYXC):
        query_K = np.maximum(x_MYXC.sum(axis=0).mean(axis=(0, 1)) @ summary_CK, 0)
        for c in range(5):
            weights_M = softmax(key_CMK[c] @ query_K)
            expected_BYXC[b, ..., c] = sum(weights_M[m] * x_MYXC[m, ..., c] for m in range(3))
    np.testing.assert_allclose(examples["branch"](x_BMYXC, summary_CK, key_CMK), expected_BYXC, atol=1e-5)


def test_every_name_exists_and_every_choice_is_named():
    names = re.findall(r"`(\w+)\.([A-Za-z_]+)`", DOCUMENT)
    names = [(module, name) for module, name in names if module != "config"]
    assert len(names) > 15
    for module, name in names:
        assert hasattr(importlib.import_module(f"transformer.model.{module}"), name), f"{module}.{name}"
    for kind in (config.Positions, config.AttentionScore, config.Attention):
        for choice in typing.get_args(kind):
            assert f"`{choice}`" in DOCUMENT
