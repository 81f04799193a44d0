"""The command `transformer` on a machine that flips a bit of the first parameter before one of its steps.

drifting_process.py STEP ARGUMENTS...
"""

import sys
from typing import Any

import jax
import numpy as np

from transformer.cli import main
from transformer.run import loop

STEP = int(sys.argv[1])


def flipped(x: jax.Array) -> jax.Array:
    """Returns a global array of which this process's part has another bit."""
    values = np.array(x.addressable_shards[0].data)
    values.view(np.uint32).flat[0] ^= 1
    return jax.make_array_from_single_device_arrays(x.shape, x.sharding, [jax.device_put(values)])


def jit_steps(*args: Any) -> Any:
    """Returns the steps, the first of them spoilt."""
    train_step, eval_step = real(*args)

    def step(state: Any, *rest: Any) -> Any:
        if int(state.step) == STEP - 1:
            leaves, tree = jax.tree.flatten(state.params)
            state = state._replace(params=jax.tree.unflatten(tree, [flipped(leaves[0]), *leaves[1:]]))
        return train_step(state, *rest)

    return step, eval_step


real, loop.jit_steps = loop.jit_steps, jit_steps
sys.exit(main(sys.argv[2:]))
