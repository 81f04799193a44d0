"""What is handed over for saving stays as it was, whatever the next steps do to the arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from transformer.config import RunConfig
from transformer.io.checkpoint import Checkpoints
from transformer.io.host_copies import HostCopies

add_one = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)


def state():
    return {"w": jnp.arange(12.0).reshape(3, 4), "n": jnp.int32(0), "h": jnp.zeros(5, jnp.bfloat16)}


def test_copies_outlive_donated_arrays_and_use_the_same_memory_again():
    copies, arrays = HostCopies(), state()
    first = copies.take(arrays)
    arrays = add_one(add_one(arrays))
    assert first["n"] == 0 and first["h"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(first["w"], np.arange(12.0).reshape(3, 4))
    second = copies.take(arrays)
    assert second["n"] == 2 and second["w"][0, 0] == 2
    assert jax.tree.structure(second) == jax.tree.structure(arrays)
    assert all(second[name].ctypes.data == first[name].ctypes.data for name in first)


def test_steps_are_done_in_place_although_they_are_saved(tmp_path):
    """No view is left behind: XLA would copy the whole state before it overwrites it."""
    checkpoints, arrays = Checkpoints(tmp_path, RunConfig()), add_one(state())
    for step in (1, 2):
        place = arrays["w"].unsafe_buffer_pointer()
        checkpoints.save(step, {"params": arrays}, {})
        arrays = add_one(arrays)
        assert arrays["w"].unsafe_buffer_pointer() == place
    checkpoints.close()
    reader = Checkpoints(tmp_path)
    for step in (1, 2):
        assert reader.restore(step, {"params": state()})[0]["params"]["n"] == step
    reader.close()


def test_memory_that_is_reserved_is_used():
    copies = HostCopies()
    copies.reserve(jax.eval_shape(state))
    first = copies.take(state())
    assert first["n"] == 0 and first["w"][2, 3] == 11
    assert copies.take(add_one(state()))["w"].ctypes.data == first["w"].ctypes.data
    assert first["n"] == 1


def test_other_arrays_get_other_memory():
    copies = HostCopies()
    first = copies.take({"w": jnp.ones(3)})
    second = copies.take({"w": np.full(4, 2.0)})
    assert first["w"].tolist() == [1, 1, 1] and second["w"].tolist() == [2, 2, 2, 2]
