"""The devices of a run as a mesh, and the way of a batch onto them."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from transformer.axes import AXES, MESH_AXES, SEQUENCE, spec
from transformer.config import MeshConfig, ModelConfig
from transformer.errors import ConfigError

Rows = TypeVar("Rows")


def one_step_at_a_time() -> None:
    """Makes a CPU finish a step before the next one is handed over; call it before JAX has devices.

    Begun ahead of time, a step takes cores from the one that runs, and as much memory again. An accelerator
    does not care: what waits there takes neither.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def make_mesh(config: MeshConfig) -> Mesh:
    """Returns the mesh of all devices, axes `data`, `fsdp`, `tensor`, and `sequence` if it is above 1.

    Raises:
      ConfigError: if the sizes do not make up the number of devices.
    """
    sizes = dict(zip(MESH_AXES, (config.data, config.fsdp, config.tensor), strict=True))
    if config.sequence != 1:
        sizes[SEQUENCE] = config.sequence
    available = jax.device_count()
    given = {axis: size for axis, size in sizes.items() if size != -1}
    product = math.prod(given.values())
    if len(given) < len(sizes) and available % product == 0:
        sizes = {axis: given.get(axis, available // product) for axis in sizes}
    elif product != available or len(given) < len(sizes):
        fact = "do not divide" if len(given) < len(sizes) else "do not make up"
        raise ConfigError(
            f"config.mesh: {' x '.join(given)} = {' x '.join(map(str, given.values()))} = {product} {fact} "
            f"the {available} devices; choose sizes that multiply to {available}, one may be -1"
        )
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes))


def parse_mesh(text: str | None) -> tuple[int, int, int] | None:
    """Returns the sizes in ``DATAxFSDPxTENSOR``, as --mesh takes them; None for None.

    Raises:
      ConfigError: if it is something else.
    """
    if text is None:
        return None
    if not (found := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)):
        raise ConfigError(f"--mesh {text}: must be DATAxFSDPxTENSOR, for example 2x1x1")
    data, fsdp, tensor = map(int, found.groups())
    return data, fsdp, tensor


def mesh_overrides(sizes: tuple[int, int, int]) -> list[str]:
    """Returns the words of a command line that ask for such a mesh, without an axis `sequence`."""
    given = {**dict(zip(MESH_AXES, sizes, strict=True)), SEQUENCE: 1}
    return [f"--config.mesh.{axis}={size}" for axis, size in given.items()]


def simulated(count: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns an environment in which a new process on CPU has `count` simulated devices."""
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", environment.get("XLA_FLAGS", ""))
    flags = f"{flags} --xla_force_host_platform_device_count={count}".strip()
    return {**environment, "XLA_FLAGS": flags}


def check_sizes(mesh_shape: Mapping[str, int], model: ModelConfig, vocabularies: Mapping[str, int]) -> None:
    """Checks that the mesh divides the axes of the parameters by the table of `axes.py`.

    Args:
      mesh_shape: size of each mesh axis, `Mesh.shape`.
      model: sizes of the model.
      vocabularies: number of pieces of each side, {"source": 8000, "target": 8000}, or of "labels".

    Raises:
      ConfigError: with every size that does not divide, one a line.
    """
    sizes = [
        ("D", "config.model.d_model", model.d_model),
        ("H", "config.model.num_heads", model.num_heads),
        ("F", "config.model.d_ff", model.d_ff),
    ]
    if model.num_kv_heads:
        sizes.append(("G", "config.model.num_kv_heads", model.num_kv_heads))
    for pieces in sorted(set(vocabularies.values())):
        sides = " and ".join(side for side, n in vocabularies.items() if n == pieces)
        key = f"config.tokenizer.vocab_size: {sides} vocabulary" if sides != "labels" else "number of labels"
        sizes.append(("V", key, pieces))
    faults = []
    for letter, key, size in sizes:
        axes = [axis for axis in AXES[letter] if mesh_shape[axis] > 1]
        parts = math.prod(mesh_shape[axis] for axis in axes)
        if size % parts:
            mesh = " x ".join(f"config.mesh.{axis}={mesh_shape[axis]}" for axis in axes)
            possible = (n for n in range(parts, size + parts, parts) if _may_be(model, letter, n))
            nearest = min(possible, key=lambda n: abs(n - size), default=0)
            cure = f"the nearest size that is: {nearest}" if nearest else "no size is; lower that of the mesh"
            faults.append(f"{key}: {size} is not divided by {mesh}; {cure}")
    if faults:
        raise ConfigError("\n".join(faults))


def _may_be(model: ModelConfig, letter: str, size: int) -> bool:
    """Returns whether an axis of a model may have a size, as far as it depends on other sizes."""
    if letter == "H" and not model.head_size:
        return model.d_model % size == 0
    return letter != "G" or model.num_heads % size == 0


def check_lengths(mesh_shape: Mapping[str, int], model: ModelConfig, lengths: Iterable[int]) -> None:
    """Checks that each device gets whole blocks, and whole groups of compressed positions, of each row.

    Args:
      mesh_shape: size of each mesh axis, `Mesh.shape`.
      model: its attention.
      lengths: source positions of the rows that will be trained on.

    Raises:
      ConfigError: with the lengths that do not divide.
    """
    size = mesh_shape.get(SEQUENCE, 1)
    near, squeezed = model.attention_radius, model.compression
    whole = {"window": near, "block": near, "compressed": squeezed, "alternating": math.lcm(near, squeezed)}
    unit = size * whole.get(model.attention, 1)
    if size > 1 and (odd := [n for n in lengths if n % unit]):
        raise ConfigError(
            f"config.mesh.sequence: {size} devices cannot share rows of {', '.join(map(str, odd))} positions "
            f"(data.row_length, data.buckets, model.max_length); choose multiples of {unit}, for example "
            + ", ".join(f"{n + -n % unit}" for n in odd)
        )


def check_attention(mesh: Mesh, model: ModelConfig) -> None:
    """Checks that the devices have the attention that was asked for.

    Raises:
      ConfigError: if not.
    """
    platform = mesh.devices.flat[0].platform
    if model.attention_implementation == "cudnn" and platform != "gpu":
        raise ConfigError(
            f"config.model.attention_implementation: 'cudnn' needs NVIDIA GPUs, the devices are {platform}; "
            "choose 'xla'"
        )


def row_shards(mesh: Mesh) -> int:
    """Returns the number of parts that the rows of a batch are divided into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def to_devices(rows: Rows, mesh: Mesh) -> Rows:
    """Returns a pytree of arrays [B, ...] as global arrays, rows divided over the mesh.

    Every process gives all rows, and keeps those of its own devices.
    """
    sharding = NamedSharding(mesh, spec("B"))
    if jax.process_count() == 1:
        return jax.device_put(rows, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, sharding, x.__getitem__), rows)


def make_votes(yes: bool, mesh: Mesh) -> jax.Array | None:
    """Returns one int32 a device, 1 on this process's devices if `yes`; None with a single process.

    Their sum, computed inside a step, is known to all processes after the very same step.
    """
    if jax.process_count() == 1:
        return None
    sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    return jax.make_array_from_callback((mesh.size,), sharding, lambda _: np.full(1, yes, np.int32))
