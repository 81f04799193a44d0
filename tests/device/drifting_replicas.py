"""Flips one bit on one of 8 simulated devices and prints, as JSON lines, what `find_drift` says of it."""

import json
import os
import sys
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import numpy as np

from transformer.config import Config, MeshConfig, ModelConfig
from transformer.io.devices import make_mesh
from transformer.model.transformer import Transformer
from transformer.steps.replicas import find_drift
from transformer.steps.state import init_state
from transformer.training.optimizer import make_optimizer

MODEL = ModelConfig(d_model=16, d_ff=32, num_heads=8, num_encoder_layers=1, num_decoder_layers=1)


def flip(params: Any, path: str, device: int) -> Any:
    """Returns `params` with one bit of the parameter at `path` flipped on one device."""

    def one(place: tuple, x: jax.Array) -> jax.Array:
        if "/".join(k.key for k in place) != path:
            return x
        pieces = []
        for shard in x.addressable_shards:
            values = np.array(shard.data)
            if shard.device.id == device:
                values.view(np.uint32).flat[-1] ^= 1
            pieces.append(jax.device_put(values, shard.device))
        return jax.make_array_from_single_device_arrays(x.shape, x.sharding, pieces)

    return jax.tree_util.tree_map_with_path(one, params)


def main(sizes: list[int], devices: list[int]) -> None:
    config = Config(model=MODEL)
    mesh = make_mesh(MeshConfig(*sizes))
    tx = make_optimizer(MODEL, config.optim, 1)
    params = init_state(Transformer(MODEL, 24, 24), tx, config, mesh).params
    print(json.dumps(find_drift(params, mesh)))
    for path in ("encoder/layer_0/feed_forward_norm/scale", "decoder/layer_0/feed_forward/wi/kernel"):
        for device in devices:
            print(json.dumps(find_drift(flip(params, path, device), mesh)))


if __name__ == "__main__":
    main([int(n) for n in sys.argv[1].split("x")], [int(n) for n in sys.argv[2].split(",")])
