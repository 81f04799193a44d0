"""The fastest matrix product: measured on this device, and as its maker states it."""

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Dense bf16 FLOP/s of one device, by the beginning of `jax.Device.device_kind`; the first that fits.
# NVIDIA: the products' datasheets, where they state twice as much "with sparsity" half of that.
# Google: the "peak compute per chip (bf16)" of Cloud TPU's pages on system architecture.
DATASHEET = (
    ("NVIDIA H200 NVL", None),
    ("NVIDIA H200", 989.4e12),
    ("NVIDIA H100 NVL", 835.5e12),
    ("NVIDIA H100 PCIe", 756.5e12),
    ("NVIDIA H100 80GB HBM3", 989.4e12),
    ("NVIDIA A100", 312e12),
    ("TPU v4 lite", None),
    ("TPU v4", 275e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5p", 459e12),
    ("TPU v5", 459e12),
)

# Rows, depth and columns of the products that are tried; each more than fills the device.
_SHAPES = {"cpu": ((512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048), (4096, 1024, 1024))}
_LARGE = ((4096, 4096, 4096), (8192, 4096, 4096), (8192, 8192, 8192), (16384, 8192, 4096))
_SLICE = 0.1  # seconds that one size is given at a time: small ones slip through where others use the cores
_CALLS = 10  # that an accelerator is given at a time, so that giving them takes no time


class GemmPeak(NamedTuple):
    """The fastest product found.

    Attributes:
      flops: FLOP/s of one device.
      shape: rows, depth and columns of it.
    """

    flops: float
    shape: tuple[int, int, int]


def datasheet_peak(kind: str) -> float | None:
    """Returns the dense bf16 FLOP/s that a device's maker states, None if it is not in the table."""
    # "NVIDIA A100X" is another device than "NVIDIA A100".
    return next(
        (f for name, f in DATASHEET if kind == name or kind.startswith((f"{name} ", f"{name}-"))), None
    )


def measure_gemm_peak(dtype: str, seconds: float = 2.0, device: jax.Device | None = None) -> GemmPeak:
    """Returns the fastest of several matrix products on a device that does nothing else.

    The sizes are taken in turn until the time is over, and each counts with its fastest product. The
    result is written over the one before, so that no fresh memory has to be found for it.

    Args:
      dtype: of factors and product.
      seconds: of measuring; compilation comes on top.
      device: None: the first.
    """
    device = device or jax.devices()[0]
    calls = 1 if device.platform == "cpu" else _CALLS
    multiply = jax.jit(lambda a, b, old: a @ b, donate_argnums=2, keep_unused=True)
    products = {}
    for shape in _SHAPES.get(device.platform, _LARGE):
        products[shape] = [jax.device_put(x, device) for x in _factors(shape, dtype)]
        _run(multiply, products[shape], calls)
    best = dict.fromkeys(products, float("inf"))
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        for shape, arrays in products.items():
            turn = time.perf_counter() + _SLICE
            while time.perf_counter() < turn:
                best[shape] = min(best[shape], _run(multiply, arrays, calls) / calls)
    flops = {shape: 2 * shape[0] * shape[1] * shape[2] / best[shape] for shape in products}
    fastest = max(flops, key=partial(flops.__getitem__))
    return GemmPeak(flops[fastest], fastest)


def _factors(shape: tuple[int, int, int], dtype: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    rows, depth, columns = shape
    left, right = jax.random.split(jax.random.key(0))
    # Not zeros: on them a GPU draws less power and runs at a higher clock.
    a, b = jax.random.normal(left, (rows, depth), dtype), jax.random.normal(right, (depth, columns), dtype)
    return a, b, jnp.zeros((rows, columns), dtype)


def _run(multiply: Any, arrays: list[jax.Array], calls: int) -> float:
    """Returns the seconds of some calls, one after the other; puts the result in the place of the last."""
    a, b, product = arrays
    start = time.perf_counter()
    for _ in range(calls):
        product = multiply(a, b, product)
    product.block_until_ready()
    arrays[2] = product
    return time.perf_counter() - start
