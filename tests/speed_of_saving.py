"""How long saving keeps a step waiting, and what saving and restoring take: 63 million parameters with Adam.

Not a test: run it on a quiet machine, `python tests/speed_of_saving.py FOLDER`, on the disk in question.
Weights are random, as constants would compress and travel faster.
"""

import functools
import shutil
import statistics
import sys
import time
from pathlib import Path

import jax

from transformer.config import Config, RunConfig
from transformer.io import digests
from transformer.io.checkpoint import Checkpoints
from transformer.model.size import parameter_shapes
from transformer.model.transformer import Transformer
from transformer.training.optimizer import make_optimizer

VOCABULARY = 37_000  # with the `base` preset: the paper's English-German model
SAVES = 5
STEPS_BETWEEN = 6


def random_state() -> dict:
    """Returns parameters and moments, all random."""
    config = Config()
    params = parameter_shapes(Transformer(config.model, VOCABULARY, VOCABULARY))
    optimizer = jax.eval_shape(make_optimizer(config.model, config.optim, 1).init, params)
    keys = iter(jax.random.split(jax.random.key(0), 10_000))

    def draw(x):
        if jax.numpy.issubdtype(x.dtype, jax.numpy.floating):
            return jax.random.normal(next(keys), x.shape, x.dtype) * 0.05
        return jax.numpy.zeros(x.shape, x.dtype)

    return jax.tree.map(draw, {"params": params, "optimizer": optimizer})


@functools.partial(jax.jit, donate_argnums=0)
def step(state):
    """Reads and writes all of the state in place, as an optimizer does."""
    return jax.tree.map(lambda x: x - x // 1000, state)


def seconds(function, *args) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def main(folder: Path) -> None:
    """Measures and prints."""
    state = random_state()
    count = sum(x.size for x in jax.tree.leaves(state["params"]))
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    print(f"{count / 1e6:.1f} million parameters, {size / 1e6:.0f} MB with Adam")

    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    checkpoints = Checkpoints(folder, RunConfig(keep_latest=2))
    assert checkpoints.restore_newest(like) is None  # every run begins so

    def timed_step() -> float:
        nonlocal state
        start = time.perf_counter()
        state = jax.block_until_ready(step(state))
        return time.perf_counter() - start

    alone = statistics.median([timed_step() for _ in range(10)][1:])
    print(f"a step that only passes over the state: {alone:.3f} s")
    digest, wholes = digests._digest, {True: [], False: []}
    for number in range(1, 2 * SAVES + 1):
        digested = number % 4 in (2, 3)  # neither always follows the other
        digests._digest = digest if digested else lambda path, manifest: ""
        start = time.perf_counter()
        checkpoints.save(number, state, {})
        blocked = time.perf_counter() - start
        meanwhile = [timed_step() for _ in range(STEPS_BETWEEN)]
        checkpoints.wait()
        whole = time.perf_counter() - start
        steps = ", ".join(f"{x:.2f}" for x in meanwhile)
        wholes[digested].append(whole)
        kind = "" if digested else " without digests"
        print(f"save {number}{kind}: blocks {blocked:.3f} s; then steps of {steps} s; whole {whole:.1f} s")
    checkpoints.close()
    with_digests, without = (statistics.median(wholes[digested]) for digested in (True, False))
    print(f"median save: {with_digests:.2f} s with digests, {without:.2f} s without")
    newest = folder / str(2 * SAVES)
    print(f"digests: compared in {seconds(digests.find_damage, newest):.2f} s")
    reader = Checkpoints(folder)
    for _ in range(3):
        print(f"restored in {seconds(reader.restore_newest, like):.2f} s")
    reader.close()
    shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
