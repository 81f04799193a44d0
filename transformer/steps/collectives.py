"""Which collectives a compiled program runs, how often, and how much they carry; read from its HLO."""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from transformer.config import Config
from transformer.data.batch import Batch
from transformer.data.pipeline import side_lengths
from transformer.model.transformer import Transformer
from transformer.steps.state import state_like
from transformer.steps.train_step import dropout_key, jit_steps
from transformer.training.optimizer import make_optimizer

_KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)
_INSTRUCTION = re.compile(
    r"\s+(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<type>.*?) (?P<op>[a-z][a-z0-9-]*)\((?P<rest>.*)"
)
_ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:body|condition|calls|to_apply|branch_computations|called_computations|true_computation"
    r"|false_computation)=(\{[^}]*\}|%?[\w.-]+)"
)
_TRIPS = re.compile(r"known_trip_count\D*(\d+)")


class Instruction(NamedTuple):
    """One line of HLO.

    Attributes:
      name: without "%".
      type: of the result on one device, as written: "f32[8,64]{1,0}", or a tuple of such.
      op: "dot", "all-reduce", ...
      rest: operands and attributes, as written.
      times: how often a run of the program executes it.
      known: whether `times` is known; else loops of unknown length around it count as one pass.
    """

    name: str
    type: str
    op: str
    rest: str
    times: int
    known: bool


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of a program that are of one kind and group size.

    Attributes:
      kind: "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", ...
      group_size: devices that exchange with each other.
      count: how many are executed; one that carries several arrays counts once.
      bytes: of their results on one device, together: of an all-gather the whole array, of a
        reduce-scatter a device's share.
      known: false if some are in loops whose length the program does not tell, counted as one pass.
    """

    kind: str
    group_size: int
    count: int
    bytes: int
    known: bool

    @property
    def sent(self) -> float:
        """Bytes that one device sends, by the ring algorithms: optimal for large arrays."""
        n = self.group_size
        passes = {"all-reduce": 2 * (n - 1) / n, "reduce-scatter": n - 1}
        return self.bytes * passes.get(self.kind, 1 if "permute" in self.kind else (n - 1) / n)


def collectives(hlo_text: str) -> list[Collective]:
    """Returns the collectives of a compiled program, by kind and group size.

    A collective among one device sends nothing and is left out. Of a conditional all branches count.

    Args:
      hlo_text: `jitted.lower(...).compile().as_text()`.
    """
    header = hlo_text.partition("\n")[0]
    devices = math.prod(int(n) for n in re.findall(r"(?:num_partitions|replica_count)=(\d+)", header))
    found: dict[tuple[str, int], Collective] = {}
    started: dict[str, int] = {}
    for line in instructions(hlo_text):
        kind = line.op.removesuffix("-start").removesuffix("-done")
        if kind not in _KINDS:
            continue
        if line.op.endswith("-done"):  # the start's type holds operands and buffers as well
            size = started[re.findall(r"[\w.-]+", line.rest.partition(")")[0])[-1]]
        else:
            size = _group_size(line.rest, devices)
        if line.op.endswith("-start"):
            started[line.name] = size
        elif size > 1:
            old = found.get((kind, size), Collective(kind, size, 0, 0, True))
            found[kind, size] = Collective(
                kind,
                size,
                old.count + line.times,
                old.bytes + line.times * type_bytes(line.type),
                old.known and line.known,
            )
    return [found[key] for key in sorted(found)]


def instructions(hlo_text: str) -> Iterator[Instruction]:
    """Yields the instructions that a run executes, those of called computations with their caller's times."""
    computations: dict[str, list[re.Match[str]]] = {}
    entry = ""
    for line in hlo_text.splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            words = line.removeprefix("ENTRY ").split()
            name = words[0].lstrip("%")
            computations[name] = lines = []
            entry = name if line.startswith("ENTRY ") else entry
        elif computations and (match := _INSTRUCTION.match(line)):
            lines.append(match)

    def visit(name: str, times: int, known: bool) -> Iterator[Instruction]:
        for match in computations.get(name, ()):
            line = Instruction(**match.groupdict(), times=times, known=known)
            yield line
            if line.op.endswith(("-done", "-update")):  # of an asynchronous call: its start called it
                continue
            trips = _TRIPS.search(line.rest) if line.op == "while" else None
            inside = times * int(trips[1]) if trips else times
            for called in _CALLED.findall(line.rest):
                for callee in re.findall(r"[\w.-]+", called):
                    yield from visit(callee, inside, known and (line.op != "while" or trips is not None))

    yield from visit(entry, 1, True)


def type_bytes(text: str) -> int:
    """Returns the bytes of an HLO type: "f32[8,64]{1,0}", or a tuple of such."""
    total = 0
    for kind, bits, shape in _ARRAY.findall(text):
        size = math.prod(int(n) for n in shape.split(",") if n)
        total += -(-size * (8 if kind == "pred" else int(bits or 0)) // 8)
    return total


def _group_size(attributes: str, devices: int) -> int:
    """Returns the number of devices in a group: HLO writes the groups in four ways."""
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", attributes):
        return len(set(re.findall(r"\d+", pairs[1])))
    if lists := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes):
        return len(lists[1].split(","))
    if tiles := re.search(r"replica_groups=\[([\d,]+)\]<=", attributes):
        return int(tiles[1].split(",")[-1])
    if mesh := re.search(r"replica_groups=mesh\[(.*?)\].*?\{(.*?)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        # An axis may be cut: 'axis_0':(2)4 is 4 of its devices, 2 apart.
        named = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part or sizes[axis]) for axis, part in named)
    return devices


def compile_step(
    model: Transformer, config: Config, mesh: Mesh, rows: int, row_length: int
) -> jax.stages.Compiled:
    """Returns the training step as it is compiled for `mesh`; nothing is allocated on its devices.

    Args:
      model: the model.
      config: the run.
      mesh: its devices.
      rows: rows of the global batch; the mesh divides them.
      row_length: positions of a row, of the target fewer if the data say so, of the source none without it.
    """
    tx = make_optimizer(model.config, config.optim, config.run.num_steps)
    state = state_like(model, tx, config, mesh)
    source, target = (
        jax.ShapeDtypeStruct((rows, length), jnp.int32) for length in side_lengths(config.data, row_length)
    )
    batch = Batch(*(source,) * 3, *(target,) * 3)
    if features := model.config.source_features:
        batch = batch._replace(src_BS=jax.ShapeDtypeStruct((*source.shape, features), jnp.float32))
    key = jax.eval_shape(lambda: dropout_key(config.run))
    with jax.set_mesh(mesh) if mesh.size > 1 else contextlib.nullcontext():
        step: Any = jit_steps(model, tx, config, mesh, state)[0]
        return step.lower(state, batch, key, None).compile()
