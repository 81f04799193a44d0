"""Saves a random state on each of some meshes of 8 simulated devices, and restores it on every other.

    restoring.py FOLDER MESH MESH ...

Prints the number of arrays, then a JSON line for each that came back with other bits, dtype or sharding.
"""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from transformer.axes import MESH_AXES
from transformer.config import Config, ModelConfig, OptimConfig, RunConfig
from transformer.io.checkpoint import Checkpoints
from transformer.model.transformer import Transformer
from transformer.steps.state import init_state, state_shardings
from transformer.training.optimizer import make_optimizer

MODEL = ModelConfig(d_model=16, d_ff=32, num_heads=8, num_encoder_layers=1, num_decoder_layers=1)
CONFIG = Config(model=MODEL, optim=OptimConfig(ema_decay=0.9))


def random_items() -> dict[str, Any]:
    """Returns the items of a checkpoint, each number of them drawn."""
    model, tx = Transformer(MODEL, 24, 24), make_optimizer(MODEL, CONFIG.optim, 1)
    state = init_state(model, tx, CONFIG)
    keys = iter(jax.random.split(jax.random.key(1), 1000))

    def draw(x: jax.Array) -> jax.Array:
        return (jax.random.normal(next(keys), x.shape) * 100).astype(x.dtype)

    return state._replace(**jax.tree.map(draw, state._replace(step=None)._asdict()))


def mesh_of(text: str) -> Mesh:
    """Returns a mesh of the first devices: "2x2x2", "2"."""
    sizes = [*map(int, text.split("x")), 1, 1][:3]
    devices = np.array(jax.devices()[: math.prod(sizes)]).reshape(sizes)
    return Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def main(folder: Path, meshes: list[str]) -> None:
    """Saves on each mesh and compares what each restores."""
    state = random_items()._replace(step=jnp.int32(0))
    wanted = [np.asarray(x) for x in jax.tree.leaves(state.items())]
    print(len(wanted))
    for place in meshes:
        checkpoints = Checkpoints(folder / place, RunConfig())
        there = jax.device_put(state.items(), state_shardings(state, mesh_of(place)).items())
        checkpoints.save(1, there, {})
        for other in meshes:
            shardings = state_shardings(state, mesh_of(other)).items()
            like = jax.tree.map(
                lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state.items(), shardings
            )
            found, _ = checkpoints.restore_newest(like) or ({}, {})
            for x, y, s in zip(jax.tree.leaves(found), wanted, jax.tree.leaves(shardings), strict=True):
                if np.asarray(x).tobytes() != y.tobytes() or x.dtype != y.dtype or x.sharding != s:
                    print(json.dumps([place, other, list(y.shape)]))
        checkpoints.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
