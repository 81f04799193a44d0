"""Divides the source's positions over eight simulated devices; prints what comes out as JSON.

sequence_sharding.py MESH... ["plan"]

Run by test_sequence.py in a process of its own: the number of devices is fixed when JAX starts.
"""

import contextlib
import dataclasses
import functools
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from transformer.config import Config, MeshConfig, ModelConfig, OptimConfig
from transformer.data.batch import Batch
from transformer.io.devices import make_mesh, to_devices
from transformer.model.transformer import Transformer
from transformer.steps.collectives import collectives
from transformer.steps.state import init_state, state_shardings
from transformer.steps.train_step import gradients
from transformer.training.optimizer import make_optimizer

VOCAB, S, T = 40, 96, 6
FORM = ModelConfig(
    d_model=16,
    d_ff=32,
    num_heads=2,
    num_encoder_layers=2,
    num_decoder_layers=1,
    dropout_rate=0.3,
    max_length=S,
    attention="alternating",
    attention_radius=4,
    chunk_length=40,  # 5 on each of eight devices; divides neither a device's positions nor all
    positions="learned",
)
LONG = dataclasses.replace(FORM, d_model=32, d_ff=128, positions="sinusoidal", chunk_length=64)
LONG_LENGTH = 24 * 1024


def batch() -> Batch:
    """Returns two rows, one of them padded in the source's second half."""
    rng = np.random.default_rng(0)
    src_seg_BS = (np.arange(S) < np.array([[S], [41]])).astype(np.int32)
    tgt_seg_BT = (np.arange(T) < np.array([[T], [4]])).astype(np.int32)
    sides = []
    for seg in (src_seg_BS, tgt_seg_BT):
        ids = rng.integers(1, VOCAB, seg.shape).astype(np.int32) * seg
        sides += [ids, seg, (np.arange(seg.shape[1]) * seg).astype(np.int32)]
    return Batch(*sides)


@functools.cache
def step(model: Transformer, mesh: Mesh | None, parts: int) -> Any:
    """Returns (loss, gradients) of the batch in so many parts, with dropout."""
    config = Config(model=model.config, optim=OptimConfig(loss_chunk=8, accumulation_steps=parts))
    tx = make_optimizer(model.config, config.optim, 10)
    with jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
        state = init_state(model, tx, config)
        rows = batch()
        if mesh:
            state = jax.device_put(state, state_shardings(state, mesh))
            rows = to_devices(rows, mesh)
        found = jax.jit(lambda p, b: gradients(p, b, jax.random.key(3), model, config))(state.params, rows)
    return jax.device_get(found)


def planned(mesh: Mesh | None) -> dict[str, Any]:
    """Returns the bytes on one device for the gradients of one long row, and the kinds of collectives."""
    model = Transformer(LONG, VOCAB, VOCAB)
    ids = jax.ShapeDtypeStruct((1, LONG_LENGTH), jnp.int32)
    params = jax.eval_shape(
        lambda: model.init(jax.random.key(0), *(jnp.ones((1, 1), jnp.int32),) * 6)["params"]
    )

    def loss(params: Any, ids_BS: jax.Array) -> jax.Array:
        seg_BS, pos_BS = jnp.ones_like(ids_BS), jnp.arange(LONG_LENGTH)[None]
        return model.apply({"params": params}, ids_BS, seg_BS, pos_BS, method="encode").mean()

    with jax.set_mesh(mesh) if mesh else contextlib.nullcontext():
        compiled = jax.jit(jax.grad(loss)).lower(params, ids).compile()
    found = {c.kind: c.bytes for c in collectives(compiled.as_text())}
    return {"bytes": compiled.memory_analysis().temp_size_in_bytes, "collectives": found}


def distance(found: Any, expected: Any) -> float:
    """Returns the largest difference of a leaf, relative to the leaf's largest value."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return max(float(np.abs(x - y).max() / max(np.abs(y).max(), 1e-3)) for x, y in pairs)


def main() -> None:
    report: dict[str, Any] = {"devices": jax.device_count()}
    if "plan" in sys.argv:
        report["alone"], report["eight"] = planned(None), planned(make_mesh(MeshConfig(1, 1, 1, 8)))
    if meshes := [name for name in sys.argv[1:] if name != "plan"]:
        model = Transformer(FORM, VOCAB, VOCAB)
        for name in meshes:
            sizes = MeshConfig(*map(int, name.split("x")))
            parts = 2 // (sizes.data * sizes.fsdp)  # a row a device in each
            found, alone = step(model, make_mesh(sizes), parts), step(model, None, parts)
            report[name] = {"loss": distance(found[0], alone[0]), "gradients": distance(found[1], alone[1])}
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
