"""Attention alone, written out and by cuDNN, at lengths 64 to 1024 on an NVIDIA GPU: milliseconds each.

    python benchmarks/attention.py

Forward and backward of one layer in bfloat16, 16 heads of 64, 65,536 positions in rows of each length, packed
with sentences of 32 tokens on the mean (the mask lets each see itself alone); median of 20, in turns.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer.model.attention import attention_weights, fused_attention
from transformer.model.masks import decoder_mask

HEADS, HEAD_SIZE, POSITIONS, SENTENCE, ROUNDS = 16, 64, 65_536, 32, 20
Attention = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def written_out(q_BHTK: jax.Array, k_BHSK: jax.Array, v_BHSK: jax.Array, mask_B1TS: jax.Array) -> jax.Array:
    """Returns y_BHTK as `MultiHeadAttention` computes it unless attention is fused."""
    return jnp.einsum("BHTS,BHSK->BHTK", attention_weights(q_BHTK, k_BHSK, mask_B1TS), v_BHSK)


def compiled(attention: Attention) -> Callable[..., Any]:
    """Returns a function from q, k, v and segments to the three gradients of a sum."""

    def total(q: jax.Array, k: jax.Array, v: jax.Array, seg_BT: jax.Array) -> jax.Array:
        return attention(q, k, v, decoder_mask(seg_BT)).astype(jnp.float32).sum()

    return jax.jit(jax.grad(total, (0, 1, 2)))


def inputs(length: int) -> list[jax.Array]:
    """Returns random q, k, v [B, H, T, K] and segments [B, T]."""
    rng = np.random.default_rng(0)
    rows = POSITIONS // length
    shape = (rows, HEADS, length, HEAD_SIZE)
    starts_BT = rng.random((rows, length)) < 1 / SENTENCE
    seg_BT = 1 + np.cumsum(starts_BT, axis=1, dtype=np.int32)
    return [*(jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for _ in range(3)), jnp.asarray(seg_BT)]


def main() -> None:
    """Measures each length and prints a table."""
    if jax.default_backend() != "gpu":
        sys.exit("attention.py: error: cuDNN's attention needs an NVIDIA GPU")
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}, bfloat16, forward and backward")
    print(f"{'length':>6} {'xla ms':>8} {'cudnn ms':>8} {'xla / cudnn':>11}")
    for length in (64, 128, 256, 512, 1024):
        given, seconds = inputs(length), {}
        steps = {name: compiled(f) for name, f in (("xla", written_out), ("cudnn", fused_attention))}
        for step in steps.values():
            jax.block_until_ready(step(*given))
        for _ in range(ROUNDS):
            for name, step in steps.items():
                start = time.perf_counter()
                jax.block_until_ready(step(*given))
                seconds.setdefault(name, []).append(time.perf_counter() - start)
        xla, cudnn = (1e3 * statistics.median(seconds[name]) for name in ("xla", "cudnn"))
        print(f"{length:>6} {xla:>8.2f} {cudnn:>8.2f} {xla / cudnn:>11.2f}", flush=True)


if __name__ == "__main__":
    main()
