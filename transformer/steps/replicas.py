"""Do the devices that hold the same parameters still hold the same bits?

Parameters that lie on several devices are computed there several times, and nothing else compares
them: a device that computes wrongly, or a process whose code differs, would train another model.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from transformer.axes import param_specs
from transformer.paths import by_path


class Drift(NamedTuple):
    """A parameter of which one device holds other bits than its replicas.

    `path`: the parameter; `process` and `device`: who differs from most; `rival`: process and device of
    one that differs from it where there is no majority, so that either may be wrong; else None.
    """

    path: str
    process: int
    device: int
    rival: tuple[int, int] | None


def find_drift(params: Any, mesh: Mesh) -> Drift | None:
    """Compares the replicas of every parameter; every process gets the same answer.

    Of two devices that differ nobody knows which is right: the later one is named, and the other as its
    rival. Of more, the one that differs from most.

    Returns:
      The first parameter whose replicas differ, with one device that differs; None if all agree.
    """
    specs = param_specs(params)
    digests = np.asarray(jax.device_get(_digests(params, specs, mesh)))
    for i, (path, spec) in enumerate(by_path(specs).items()):
        if (found := _odd_one_out(digests[..., i], _copied(spec, mesh))) is not None:
            odd, rival = mesh.devices[found[0]], found[1] and mesh.devices[found[1]]
            names = (rival.process_index, rival.id) if rival else None
            return Drift(path, odd.process_index, odd.id, names)
    return None


def _digests(params: Any, specs: Any, mesh: Mesh) -> jax.Array:
    """Returns uint32 [data, fsdp, tensor, ..., parameters], as the mesh has axes: sums of bits."""

    def local(params: Any) -> jax.Array:
        sums_N = jnp.stack([_sum_of_bits(x) for x in jax.tree.leaves(params)])
        return sums_N.reshape((1,) * len(mesh.axis_names) + sums_N.shape)

    out_specs = PartitionSpec(*mesh.axis_names)
    own = jax.shard_map(local, mesh=mesh, in_specs=(specs,), out_specs=out_specs, check_vma=False)
    everywhere = jax.NamedSharding(mesh, PartitionSpec())
    return jax.jit(own, out_shardings=everywhere)(params)


def _sum_of_bits(x: jax.Array) -> jax.Array:
    unsigned = {2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    return jnp.sum(jax.lax.bitcast_convert_type(x, unsigned), dtype=jnp.uint32)


def _copied(spec: PartitionSpec, mesh: Mesh) -> tuple[int, ...]:
    """Returns the numbers of the mesh axes over which an array of this sharding is copied."""
    divided: set[str] = set()
    for names in spec:
        divided |= set(names if isinstance(names, tuple) else (names,)) if names else set()
    return tuple(i for i, name in enumerate(mesh.axis_names) if name not in divided)


def _odd_one_out(
    digests: np.ndarray, copied: Iterable[int]
) -> tuple[tuple[int, ...], tuple[int, ...] | None] | None:
    """Returns the place of a digest that differs from the commonest along the axes `copied`.

    With it comes the place of a commonest one if there are as many of both, and it is no majority.
    """
    copied = tuple(copied)
    rest = tuple(i for i in range(digests.ndim) if i not in copied)
    # Rows: groups of replicas. Places keep their order, so ties name the later device.
    places = np.moveaxis(np.indices(digests.shape), 0, -1).transpose(*rest, *copied, digests.ndim)
    groups = digests.transpose(*rest, *copied).reshape(int(np.prod([digests.shape[i] for i in rest])), -1)
    for group, where in zip(groups, places.reshape(*groups.shape, digests.ndim), strict=True):
        values, first, counts = np.unique(group, return_index=True, return_counts=True)
        if len(values) > 1:
            common = min(range(len(values)), key=lambda i: (-counts[i], first[i]))
            odd = np.flatnonzero(group != values[common])[0]
            tied = np.sum(group == group[odd]) == counts[common]
            return _place(where[odd]), _place(where[first[common]]) if tied else None
    return None


def _place(indices: np.ndarray) -> tuple[int, ...]:
    return tuple(indices.tolist())
