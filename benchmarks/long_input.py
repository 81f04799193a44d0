"""How much memory an encoder takes for long inputs: forward and backward pass of the preset `small`.

    python benchmarks/long_input.py                      1,024 to 65,536 tokens, each in a process of its own
    python benchmarks/long_input.py --length 8192        one row of so many, here
    python benchmarks/long_input.py --length 65536 --plan        what the compiler plans; nothing is run
    python benchmarks/long_input.py --length 1007616 --plan --devices 64 --chunk 4096

The layers alternate between windows and compressed keys, and positions are taken in chunks. What is done
already in FOLDER is not done again. Tables (Markdown) go to standard output, the picture to FOLDER.png.
"""

import argparse
import contextlib
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from curves import Axis, draw, measure, table

from transformer.config import PRESETS, MeshConfig, ModelConfig
from transformer.errors import UserError
from transformer.io.devices import check_lengths, make_mesh, simulated
from transformer.model.size import parameter_shapes
from transformer.model.transformer import Transformer

HERE = Path(__file__).parent
LENGTHS = tuple(2**k for k in range(10, 17))
VOCABULARY = 8000
COLUMNS = ("peak GiB", "planned GiB", "seconds")


def model(length: int, chunk: int) -> Transformer:
    """Returns the model that takes rows of `length`; only its encoder is used."""
    sizes: dict[str, Any] = dict(PRESETS["small"])
    config = ModelConfig(**sizes, max_length=length, attention="alternating", chunk_length=chunk)
    return Transformer(config, VOCABULARY, VOCABULARY)


def loss(params: Any, ids_BS: jax.Array, key: jax.Array, model: Transformer) -> jax.Array:
    """Returns a number that depends on every position of the encoder's output, in training."""
    seg_BS, pos_BS = jnp.ones_like(ids_BS), jnp.broadcast_to(jnp.arange(ids_BS.shape[1]), ids_BS.shape)
    mode: dict[str, Any] = dict(method="encode", rngs={"dropout": key})
    encoded_BSD = model.apply({"params": params}, ids_BS, seg_BS, pos_BS, False, **mode)
    return jnp.mean(jnp.sin(encoded_BSD))


def compiled(length: int, chunk: int, devices: int) -> jax.stages.Compiled:
    """Returns the gradients of `loss` for one row, compiled; nothing is allocated."""
    own = model(length, chunk)
    shapes = parameter_shapes(own), jax.ShapeDtypeStruct((1, length), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    mesh = make_mesh(MeshConfig(data=1, sequence=devices))
    check_lengths(mesh.shape, own.config, [length])
    with jax.set_mesh(mesh) if devices > 1 else contextlib.nullcontext():
        return jax.jit(jax.value_and_grad(loss), static_argnums=3).lower(*shapes, key, own).compile()


def point(length: int, chunk: int, devices: int, plan: bool) -> dict[str, float]:
    """Returns the figures of one length, see COLUMNS; of a plan the second alone."""
    step = compiled(length, chunk, devices)
    plans = step.memory_analysis()
    planned = plans.temp_size_in_bytes + plans.argument_size_in_bytes + plans.output_size_in_bytes
    found = {"planned GiB": planned / 2**30}
    if plan:
        return found
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, 0.05, x.shape), x.dtype), parameter_shapes(model(length, chunk))
    )
    ids_BS = jnp.asarray(rng.integers(1, VOCABULARY, (1, length)), jnp.int32)
    start = time.perf_counter()
    jax.block_until_ready(step(params, ids_BS, jax.random.key(0)))
    found["seconds"] = time.perf_counter() - start
    found["peak GiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def main() -> None:
    """Measures one length, or all that are not yet measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, metavar="N", help="source tokens; default: 1,024 to 65,536")
    parser.add_argument("--longest", type=int, default=LENGTHS[-1], metavar="N", help="without --length")
    parser.add_argument("--plan", action="store_true", help="run nothing; with --length")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="simulated; with --plan")
    parser.add_argument("--chunk", type=int, default=256, metavar="N", help="model.chunk_length")
    parser.add_argument("--json", type=Path, metavar="FILE", help="with --length: figures go there")
    parser.add_argument("--folder", type=Path, default=HERE / "scratch" / "long_input")
    args = parser.parse_args()
    if args.length:
        os.environ |= simulated(args.devices, os.environ)  # before JAX looks for devices
        try:
            found = point(args.length, args.chunk, args.devices, args.plan)
        except UserError as error:
            raise SystemExit(f"long_input.py: error: {error}") from None
        print("  ".join(f"{name} {value:.3f}" for name, value in found.items()))
        if args.json:
            args.json.write_text(json.dumps(found))
        return
    points = {n: [HERE / "long_input.py", "--length", str(n)] for n in LENGTHS if n <= args.longest}
    axis = Axis("source tokens", points, COLUMNS)
    measure(axis, args.folder)
    files = {n: args.folder / f"{n}.json" for n in points}
    rows = {n: json.loads(file.read_text()) for n, file in files.items() if file.exists()}
    print("\n".join(table(axis, rows)), flush=True)
    draw(axis, rows, args.folder.with_suffix(".png"))


if __name__ == "__main__":
    main()
