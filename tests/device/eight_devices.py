"""Trains one step on meshes of eight simulated devices and on one device; prints what came out as JSON.

Run by test_mesh.py in a process of its own: the number of devices is fixed when JAX starts.
"""

import json
import re
import sys
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from transformer.config import Config, MeshConfig, ModelConfig, OptimConfig
from transformer.data.batch import Batch, pack_rows, pad_rows
from transformer.io.devices import make_mesh, row_shards, to_devices
from transformer.model.transformer import Transformer
from transformer.steps.state import init_state
from transformer.steps.train_step import eval_step, gradients, jit_steps
from transformer.training.optimizer import make_optimizer

VOCAB, LENGTH, CHUNK = 88, 12, 512
MODEL = ModelConfig(
    d_model=16,
    d_ff=32,
    num_heads=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    dropout_rate=0.3,
    attention_dropout_rate=0.2,
    activation_dropout_rate=0.2,
    max_length=LENGTH,
)


def batch() -> Batch:
    """Returns 6 rows with unequal numbers of real tokens, padded to 16."""
    rng = np.random.default_rng(0)
    lengths = [[(3, 1)], [(2, 3), (4, 4)], [(5, 3)], [(6, 7), (2, 5)], [(12, 12)], [(1, 2)]]
    pairs = [[tuple(rng.integers(1, VOCAB, n) for n in pair) for pair in row] for row in lengths]
    return pad_rows(pack_rows(pairs, rows=6, length=LENGTH), 16)


def flat(tree: Any) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(k): np.asarray(x) for k, x in jax.tree_util.tree_leaves_with_path(tree)}


def distance(found: Any, expected: Any) -> float:
    """Returns the largest difference of a leaf, relative to the leaf's largest value."""
    found, expected = flat(found), flat(expected)
    return max(float(np.abs(found[k] - x).max() / max(np.abs(x).max(), 1e-3)) for k, x in expected.items())


def run(mesh: Mesh | None) -> dict[str, Any]:
    """Returns the initial parameters, and loss and gradients (in one part and in two)."""
    result: dict[str, Any] = {}
    rows = batch() if mesh is None else to_devices(batch(), mesh)
    for parts in (1, 2):
        config = Config(model=MODEL, optim=OptimConfig(accumulation_steps=parts, loss_chunk=CHUNK))
        model, tx = Transformer(MODEL, VOCAB, VOCAB), make_optimizer(MODEL, config.optim, 10)
        if parts == 1:
            state = init_state(model, tx, config, mesh)
            result["state"] = state
            sums = jax.jit(partial(eval_step, model=model, config=config))(state.params, rows)
            result["eval"] = jax.device_get(sums)
        compute = jax.jit(partial(gradients, model=model, config=config))
        metrics, grads = compute(result["state"].params, rows, jax.random.key(7))
        result[f"parts_{parts}"] = jax.device_get({"metrics": metrics, "gradients": grads})
    return result


def compiled_step(mesh: Mesh, state: Any) -> dict[str, Any]:
    """Returns what the compiled training step holds: collectives, and rows of the logits products."""
    config = Config(model=MODEL, optim=OptimConfig(loss_chunk=CHUNK))
    model, tx = Transformer(MODEL, VOCAB, VOCAB), make_optimizer(MODEL, config.optim, 10)
    train, _ = jit_steps(model, tx, config, mesh, state)
    compiled = train.lower(state, to_devices(batch(), mesh), jax.random.key(7)).compile()
    text = compiled.as_text()
    new_state, metrics = compiled(state, to_devices(batch(), mesh), jax.random.key(7))
    return {
        "all_reduces": len(re.findall(r" all-reduce(?:-start)?\(", text)),
        "logits_rows": sorted({int(n) for n in re.findall(rf"f32\[(\d+),{VOCAB}\]\S* dot\(", text)}),
        "loss": float(metrics["loss"]),
        "stays_sharded": all(
            new.sharding.is_equivalent_to(shape.sharding, new.ndim)
            for new, shape in zip(jax.tree.leaves(new_state), jax.tree.leaves(state), strict=True)
        ),
    }


def shard_shapes(state: Any) -> dict[str, list[int]]:
    """Returns the shape that one device holds of each parameter and its first moment."""
    moments = next(
        s for s in jax.tree.leaves(state.opt_state, is_leaf=lambda s: hasattr(s, "mu")) if hasattr(s, "mu")
    )
    shapes = {}
    for name, tree in (("params", state.params), ("mu", moments.mu)):
        for path, x in jax.tree_util.tree_leaves_with_path(tree):
            key = "/".join((name, *(k.key for k in path)))
            shapes[key] = list(x.addressable_shards[0].data.shape)
    return shapes


def main(meshes: list[tuple[int, int, int]]) -> None:
    alone = run(None)
    report: dict[str, Any] = {"devices": jax.device_count()}
    for sizes in meshes:
        mesh = make_mesh(MeshConfig(*sizes))
        with jax.set_mesh(mesh):
            found = run(mesh)
            shapes = shard_shapes(found["state"])
            entry = {
                "row_shards": row_shards(mesh),
                "init": distance(found["state"].params, alone["state"].params),
                "eval": distance(found["eval"], alone["eval"]),
                "shapes": shapes,
            }
            for parts in ("parts_1", "parts_2"):
                entry[parts] = distance(found[parts], alone[parts])
                entry[parts + "_loss"] = float(found[parts]["metrics"]["loss"])
            entry["step"] = compiled_step(mesh, found["state"])
        report["x".join(map(str, sizes))] = entry
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main([tuple(int(n) for n in arg.split("x")) for arg in sys.argv[1:]])
