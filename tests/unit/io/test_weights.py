"""One safetensors file: as the package of that name reads it, each array where its numbers may begin."""

import json
import tracemalloc

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from transformer.io.weights import save_arrays


def test_views_and_dtypes(tmp_path):
    draw = np.random.default_rng(0)
    arrays = {
        "odd": draw.normal(size=(3, 5)).astype(np.float16),
        "turned": draw.normal(size=(4, 7)).astype(np.float32).T,
        "number": np.float32(3.5).reshape(()),
        "nothing": np.zeros((0, 3), np.float32),
        "other": draw.normal(size=3).astype(jnp.bfloat16),
        "b": draw.integers(-9, 9, (2, 3)).astype(np.float32),
    }
    save_arrays(tmp_path / "x.safetensors", arrays, {"step": "7"}, {"b": "F16"})
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == arrays.keys()
    for name, x in arrays.items():
        assert found[name].dtype == (np.float16 if name == "b" else x.dtype)
        np.testing.assert_array_equal(found[name].astype(x.dtype), x)
    content = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__") == {"step": "7"}
    sizes = {"F32": 4, "F16": 2, "BF16": 2}
    assert all((8 + length + x["data_offsets"][0]) % sizes[x["dtype"]] == 0 for x in header.values())


def test_memory_holds_one_array_more(tmp_path):
    arrays = {f"x{i}": np.ones((250, 1000), np.float32).T for i in range(8)}
    tracemalloc.start()
    try:
        save_arrays(tmp_path / "x.safetensors", arrays, {})
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1.2e6  # bytes; an array has a million, all of them 8
