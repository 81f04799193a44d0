"""Arrays read without Orbax are those that Orbax wrote, and the other way round."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from transformer.config import RunConfig
from transformer.errors import CheckpointError
from transformer.io import arrays
from transformer.io.arrays import read_item, write_params
from transformer.io.checkpoint import Checkpoints

RNG = np.random.default_rng(0)
PARAMS = {
    "shared": {"embedding": jnp.asarray(RNG.normal(size=(300, 41)), jnp.float32)},
    "encoder": {"layer_0": {"wi": {"kernel": jnp.asarray(RNG.normal(size=(7, 3)), jnp.bfloat16)}}},
    "zeros": jnp.zeros((5, 2)),
    "scalar": jnp.float32(np.pi),
}
LIKE = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=SingleDeviceSharding(jax.devices()[0])), PARAMS
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoints = Checkpoints(folder, RunConfig(keep_latest=2))
    for step in (3, 4):
        checkpoints.save(step, {"params": PARAMS}, {"step": step})
    checkpoints.close()
    return folder


def test_every_bit_is_there(folder):
    found = read_item(folder, 4, "params", LIKE)
    assert jax.tree.structure(found) == jax.tree.structure(PARAMS)
    for x, expected in zip(jax.tree.leaves(found), jax.tree.leaves(PARAMS), strict=True):
        assert isinstance(x, jax.Array) and x.dtype == expected.dtype
        assert np.asarray(x).tobytes() == np.asarray(expected).tobytes()


def test_what_is_not_as_it_should_be_is_refused(folder):
    with pytest.raises(CheckpointError, match=r"/4: has no item 'ema'$"):
        read_item(folder, 4, "ema", LIKE)
    with pytest.raises(CheckpointError, match=r"/4: params: zeros is float32\[5, 2\], expected f.*\[5\]$"):
        read_item(folder, 4, "params", LIKE | {"zeros": jax.ShapeDtypeStruct((5,), jnp.float32)})
    metadata = folder / "3" / "params" / "_METADATA"
    metadata.write_bytes(metadata.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"/3: cannot be restored \(params/_METADATA is dama.*from 4$"):
        read_item(folder, 3, "params", LIKE)


def test_orbax_reads_what_was_written_without_it(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "_PART", 4000)  # the table in thirteen parts, the last one smaller
    paths = {tuple(k.key for k in path): x for path, x in jax.tree_util.tree_leaves_with_path(PARAMS)}
    large = {path: np.asarray(x) for path, x in paths.items() if x.ndim}
    like = {name: tree for name, tree in LIKE.items() if name != "scalar"}
    write_params(tmp_path / "checkpoints", 7, iter(large.items()), {"from": "afar"})
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.steps() == [7]
    items, position = checkpoints.restore(7, {"params": like})
    checkpoints.close()
    assert position == {"from": "afar"}
    for found in (items["params"], read_item(tmp_path / "checkpoints", 7, "params", like)):
        for path, x in jax.tree_util.tree_leaves_with_path(found):
            assert np.asarray(x).tobytes() == large[tuple(k.key for k in path)].tobytes()


def test_what_is_begun_and_not_ended_is_no_checkpoint(tmp_path):
    def stops():
        yield ("a",), np.ones((3, 2), np.float32)
        raise CheckpointError("the second one is damaged")

    with pytest.raises(CheckpointError, match="the second one"):
        write_params(tmp_path, 0, stops(), {})
    assert Checkpoints(tmp_path).steps() == []
    write_params(tmp_path, 0, [(("a",), np.ones((3, 2), np.float32))], {})
    assert Checkpoints(tmp_path).steps() == [0]


def test_translating_imports_no_orbax():
    heavy = "{'grain', 'matplotlib', 'optax', 'orbax', 'tensorflow'}"
    code = f"import sys, transformer.run.translate; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
