"""Trains one step on meshes of eight simulated devices and on one device; prints what came out as JSON.

eight_devices.py FORM MESH...

Run by test_mesh.py in a process of its own: the number of devices is fixed when JAX starts.
"""

import dataclasses
import functools
import json
import math
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from transformer.axes import MESH_AXES
from transformer.config import Config, MeshConfig, ModelConfig, OptimConfig
from transformer.data.batch import Batch, pack_rows, pad_rows
from transformer.io.devices import make_mesh, to_devices
from transformer.model.traffic import traffic
from transformer.model.transformer import Transformer
from transformer.steps.collectives import collectives, compile_step, instructions
from transformer.steps.state import TrainState, init_state, state_shardings
from transformer.steps.train_step import jit_steps
from transformer.training.loss import token_log_probs
from transformer.training.optimizer import make_optimizer

VOCAB, LENGTH, CHUNK = 88, 12, 512
PAPER = ModelConfig(
    d_model=16,
    d_ff=32,
    num_heads=8,
    num_encoder_layers=1,
    num_decoder_layers=1,
    dropout_rate=0.3,
    attention_dropout_rate=0.2,
    activation_dropout_rate=0.2,
    max_length=LENGTH,
)
# With every parameter that models of others and other mechanisms have and the paper's has not.
OTHERS = dataclasses.replace(
    PAPER,
    norm="pre",
    norm_type="rms",
    embedding_norm=True,
    head_size=4,
    num_kv_heads=4,
    attention_score="general",
    gated_feed_forward=True,
    positions="relative",
    relative_buckets=8,
    relative_max_distance=6,
    tied_embeddings="inputs",
    logits_bias=True,
    attention_bias=True,
)
# Cut into blocks.
LOCAL = dataclasses.replace(PAPER, attention="window", attention_radius=2, global_tokens=1, positions="alibi")
SHAW = dataclasses.replace(PAPER, positions="shaw", relative_max_distance=3)
FORMS = {
    "paper": PAPER,
    "others": OTHERS,
    "local": LOCAL,
    "shaw": SHAW,
    "frames": dataclasses.replace(PAPER, source_features=5),
    "additive": dataclasses.replace(PAPER, attention_score="additive", positions="none", num_kv_heads=2),
    "block": dataclasses.replace(
        PAPER, attention="block", attention_radius=3, positions="rotary", head_size=4
    ),
    "compressed": dataclasses.replace(PAPER, attention="compressed", compression=2, positions="learned"),
    "adaptive": dataclasses.replace(PAPER, recurrence="adaptive", num_encoder_layers=3, num_decoder_layers=3),
    "alone": dataclasses.replace(
        PAPER, kind="decoder_only", prefix="bidirectional", num_encoder_layers=0, positions="learned"
    ),
    "multi-query": dataclasses.replace(PAPER, num_kv_heads=1, positions="sinusoidal_halves"),
}


def batch(features: int = 0) -> Batch:
    """Returns 6 rows with unequal numbers of real tokens, or frames of so many numbers, padded to 16."""
    rng = np.random.default_rng(0)
    lengths = [[(3, 1)], [(2, 3), (4, 4)], [(5, 3)], [(6, 7), (2, 5)], [(12, 12)], [(1, 2)]]
    pairs = [[tuple(rng.integers(1, VOCAB, n) for n in pair) for pair in row] for row in lengths]
    if features:
        pairs = [[(rng.normal(size=(len(s), features)), t) for s, t in row] for row in pairs]
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


def run(form: ModelConfig, mesh: Mesh, both: bool) -> dict[str, Any]:
    """Returns the initial state, dev sums, and what one step gives: in one part, and if `both` in two."""
    model, rows = Transformer(form, VOCAB, VOCAB), to_devices(batch(form.source_features), mesh)
    result: dict[str, Any] = {"ties": ties()}
    for parts in (1, 2) if both else (1,):
        config = Config(model=form, optim=OptimConfig(accumulation_steps=parts, loss_chunk=CHUNK))
        tx = make_optimizer(form, config.optim, config.run.num_steps)
        if parts == 1:
            born = jax.jit(functools.partial(init_state, model, tx, config, mesh)).lower().compile()
            state = born()
            result["largest_born"] = largest(born.as_text())
            result["shapes"] = shard_shapes(state)
            host, result["shardings"] = jax.device_get(state), state_shardings(state, mesh)
            result["params"] = host.params
        if parts == 1:
            _, evaluate = jit_steps(model, tx, config, mesh, host)
            result["eval"] = jax.device_get(evaluate(state.params, rows))
        state = jax.device_put(host, result["shardings"])
        step = compile_step(model, config, mesh, *rows.tgt_BT.shape)
        after, metrics = step(state, rows, jax.random.key(7), None)
        text = step.as_text()
        result[f"parts_{parts}"] = {
            "gradients": jax.device_get(moments(after)),
            "metrics": {name: float(x) for name, x in metrics.items()},
            "program": {"products": products(text), "sent": sum(c.sent for c in collectives(text))},
            "stays_sharded": jax.tree.all(
                jax.tree.map(lambda x, s: x.sharding.is_equivalent_to(s, x.ndim), after, result["shardings"])
            ),
        }
    result["formula"] = sum(traffic(model, mesh.shape, len(batch().src_BS), LENGTH).values())
    return result


def ties() -> list[bool]:
    """Returns which labels count as the likeliest; piece i + VOCAB / 2 is as likely as i, the likeliest."""
    half = np.random.default_rng(1).normal(size=(VOCAB // 2, 16)).astype(np.float32)
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    table, labels = np.concatenate([half, half]), np.arange(VOCAB, dtype=np.int32).reshape(8, -1)
    y = np.concatenate([half, half]).reshape(8, -1, 16) * 100
    correct = jax.jit(lambda: token_log_probs(y, jnp.asarray(table), labels, CHUNK)[1])()
    return np.asarray(correct).ravel().tolist()


def products(text: str) -> int:
    """Returns the multiplications of all matrix products that one device computes in a compiled program."""
    types, total = {}, 0
    for line in instructions(text):
        types[line.name] = shape(line.type)
        if line.op == "dot":
            left = types[re.findall(r"[\w.-]+", line.rest.partition(",")[0])[-1]]
            contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", line.rest)[1]
            total += (
                line.times
                * math.prod(shape(line.type))
                * math.prod(left[int(i)] for i in contracted.split(","))
            )
    return total


def shape(text: str) -> list[int]:
    """Returns the sizes of an HLO array type, the first of a tuple."""
    sizes = re.search(r"\[([\d,]*)\]", text)[1]
    return [int(n) for n in sizes.split(",") if n]


def largest(text: str) -> int:
    """Returns the numbers in the largest array that a compiled program ever holds on one device."""
    return max(
        math.prod(int(n) for n in sizes.split(",")) for sizes in re.findall(r"[a-z]\d+\[([\d,]+)\]", text)
    )


def shard_shapes(state: TrainState) -> dict[str, list[int]]:
    """Returns the shape that one device holds of each parameter and of its first moment."""
    trees = {"params": state.params, "moments": moments(state)}
    leaves = jax.tree_util.tree_leaves_with_path(trees)
    return {"/".join(k.key for k in path): list(x.addressable_shards[0].data.shape) for path, x in leaves}


def main(form: ModelConfig, meshes: list[tuple[int, int, int]]) -> None:
    alone = run(form, Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), MESH_AXES), both=(2, 2, 2) in meshes)
    report: dict[str, Any] = {"devices": jax.device_count()}
    for sizes in meshes:
        mesh = make_mesh(MeshConfig(*sizes))
        with jax.set_mesh(mesh):
            found = run(form, mesh, both=sizes == (2, 2, 2))
        entry = {name: found[name] for name in ("shapes", "ties", "largest_born", "formula")}
        for name in ("params", "eval"):
            entry[name] = distance(found[name], alone[name])
        for name in ("parts_1", "parts_2"):
            if name in found:
                mine, theirs = found[name], alone[name]
                entry[name] = {
                    "gradients": distance(mine["gradients"], theirs["gradients"]),
                    "metrics": distance(mine["metrics"], theirs["metrics"]),
                    "stays_sharded": mine["stays_sharded"],
                    "sent": mine["program"]["sent"],
                    "products": mine["program"]["products"],
                    "products_alone": theirs["program"]["products"],
                }
        report["x".join(map(str, sizes))] = entry
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    sizes = [tuple(int(n) for n in arg.split("x")) for arg in sys.argv[2:]]
    main(FORMS[sys.argv[1]], sizes)
