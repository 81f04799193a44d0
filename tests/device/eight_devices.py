"""Trains one step on meshes of eight simulated devices and on one device; prints what came out as JSON.

Run by test_mesh.py in a process of its own: the number of devices is fixed when JAX starts.
"""

import json
import re
import sys
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from transformer.axes import MESH_AXES
from transformer.config import Config, MeshConfig, ModelConfig, OptimConfig
from transformer.data.batch import Batch, pack_rows, pad_rows
from transformer.io.devices import make_mesh, to_devices
from transformer.model.transformer import Transformer
from transformer.steps.state import TrainState, init_state, state_shardings
from transformer.steps.train_step import jit_steps
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


def moments(state: TrainState) -> Any:
    """Returns Adam's first moments: after one step from zero, the gradients times 1 - beta1."""
    leaves = jax.tree.leaves(state.opt_state, is_leaf=lambda s: hasattr(s, "mu"))
    return next(s.mu for s in leaves if hasattr(s, "mu"))


def run(mesh: Mesh) -> dict[str, Any]:
    """Returns the initial state, dev sums, and what one step gives, computed in one part and in two."""
    model, rows = Transformer(MODEL, VOCAB, VOCAB), to_devices(batch(), mesh)
    result: dict[str, Any] = {}
    for parts in (1, 2):
        config = Config(model=MODEL, optim=OptimConfig(accumulation_steps=parts, loss_chunk=CHUNK))
        tx = make_optimizer(MODEL, config.optim, 10)
        if parts == 1:
            state = init_state(model, tx, config, mesh)
            result["shapes"] = shard_shapes(state)
            host, result["shardings"] = jax.device_get(state), state_shardings(state, mesh)
            result["params"] = host.params
        train, evaluate = jit_steps(model, tx, config, mesh, host)
        if parts == 1:
            result["eval"] = jax.device_get(evaluate(state.params, rows))
        state = jax.device_put(host, result["shardings"])
        step = train.lower(state, rows, jax.random.key(7)).compile()
        after, metrics = step(state, rows, jax.random.key(7), None)
        result[f"parts_{parts}"] = {
            "gradients": jax.device_get(moments(after)),
            "metrics": {name: float(x) for name, x in metrics.items()},
            "program": program(step.as_text()),
            "stays_sharded": jax.tree.all(
                jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), after, result["shardings"])
            ),
        }
    return result


def program(text: str) -> dict[str, Any]:
    """Returns what a compiled step holds: its all-reduces, and the rows of its logits products."""
    return {
        "all_reduces": len(re.findall(r" all-reduce(?:-start)?\(", text)),
        "logits_rows": sorted({int(n) for n in re.findall(rf"f32\[(\d+),{VOCAB}\]\S* dot\(", text)}),
    }


def shard_shapes(state: TrainState) -> dict[str, list[int]]:
    """Returns the shape that one device holds of each parameter and of its first moment."""
    trees = {"params": state.params, "moments": moments(state)}
    leaves = jax.tree_util.tree_leaves_with_path(trees)
    return {"/".join(k.key for k in path): list(x.addressable_shards[0].data.shape) for path, x in leaves}


def main(meshes: list[tuple[int, int, int]]) -> None:
    alone = run(Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), MESH_AXES))
    report: dict[str, Any] = {"devices": jax.device_count()}
    for sizes in meshes:
        mesh = make_mesh(MeshConfig(*sizes))
        with jax.set_mesh(mesh):
            found = run(mesh)
        entry: dict[str, Any] = {"shapes": found["shapes"]}
        for name in ("params", "eval"):
            entry[name] = distance(found[name], alone[name])
        for name in ("parts_1", "parts_2"):
            mine, theirs = found[name], alone[name]
            entry[name] = {
                "gradients": distance(mine["gradients"], theirs["gradients"]),
                "metrics": distance(mine["metrics"], theirs["metrics"]),
                "stays_sharded": mine["stays_sharded"],
                **mine["program"],
            }
        report["x".join(map(str, sizes))] = entry
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main([tuple(int(n) for n in arg.split("x")) for arg in sys.argv[1:]])
