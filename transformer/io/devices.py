"""The devices of a run as a mesh, and the way of a batch onto them."""

import math
from typing import TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding

from transformer.axes import MESH_AXES, spec
from transformer.config import MeshConfig
from transformer.errors import ConfigError

Rows = TypeVar("Rows")


def make_mesh(config: MeshConfig) -> Mesh:
    """Returns the mesh of all devices, axes `data`, `fsdp`, `tensor`.

    Raises:
      ConfigError: if the sizes do not make up the number of devices.
    """
    sizes = [config.data, config.fsdp, config.tensor]
    available = jax.device_count()
    if -1 in sizes:
        rest = math.prod(s for s in sizes if s != -1)
        sizes[sizes.index(-1)] = max(available // rest, 1)
    if math.prod(sizes) != available:
        raise ConfigError(
            f"config.mesh: data x fsdp x tensor = {' x '.join(map(str, sizes))} = {math.prod(sizes)}, "
            f"but there are {available} devices; choose sizes that multiply to {available}, one may be -1"
        )
    return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def row_shards(mesh: Mesh) -> int:
    """Returns the number of parts that the rows of a batch are divided into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def to_devices(rows: Rows, mesh: Mesh) -> Rows:
    """Returns a pytree of arrays [B, ...] as global arrays, rows divided over the mesh."""
    return jax.device_put(rows, NamedSharding(mesh, spec("B")))
