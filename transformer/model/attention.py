"""Scaled dot-product and multi-head attention (paper, section 3.2)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from transformer.config import ModelConfig
from transformer.model.dropout import Dropout


def attention_weights(q_BTHK: jax.Array, k_BSHK: jax.Array, mask_B1TS: jax.Array) -> jax.Array:
    """Returns weights_BHTS = softmax(q k^T / sqrt(K)) over the keys that the mask allows (equation 1).

    The softmax is computed in float32 and returned in the dtype of the queries. A query that may
    see no key gets equal weights, not NaN.
    """
    q_BTHK = q_BTHK * q_BTHK.shape[-1] ** -0.5
    scores_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BSHK).astype(jnp.float32)
    scores_BHTS = jnp.where(mask_B1TS, scores_BHTS, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores_BHTS, axis=-1).astype(q_BTHK.dtype)


class Projection(nn.Module):
    """Linear map between named axes: `letters` as in "D->HK", `sizes` of the axes after the arrow."""

    letters: str
    sizes: tuple[int, ...]
    use_bias: bool
    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs, outputs = self.letters.split("->")
        shape = (*x.shape[-len(inputs) :], *self.sizes)
        init = nn.initializers.variance_scaling(
            1.0,
            "fan_avg",
            "uniform",
            in_axis=tuple(range(len(inputs))),
            out_axis=tuple(range(len(inputs), len(shape))),
        )
        kernel = self.param("kernel", init, shape, jnp.dtype(self.config.param_dtype))
        dtype = jnp.dtype(self.config.dtype)
        y = jnp.einsum(f"...{inputs},{inputs}{outputs}->...{outputs}", x.astype(dtype), kernel.astype(dtype))
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, self.sizes, jnp.dtype(self.config.param_dtype))
            y = y + bias.astype(dtype)
        return y


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O (paper, section 3.2.2)."""

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        heads = (c.num_heads, c.d_model // c.num_heads)
        self.query = Projection("D->HK", heads, c.attention_bias, c)
        self.key = Projection("D->HK", heads, c.attention_bias, c)
        self.value = Projection("D->HK", heads, c.attention_bias, c)
        self.out = Projection("HK->D", (c.d_model,), c.attention_bias, c)
        self.dropout = Dropout(c.attention_dropout_rate)

    def keys_values(self, memory_BSD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns (k_BSHK, v_BSHK) of what is attended to."""
        return self.key(memory_BSD), self.value(memory_BSD)

    def attend(
        self,
        x_BTD: jax.Array,
        k_BSHK: jax.Array,
        v_BSHK: jax.Array,
        mask_B1TS: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        """Returns y_BTD: each position of `x_BTD` reads from given keys and values.

        The weights are sown as intermediate "weights" (BHTS), so that they can be captured
        without a flag: `apply(..., mutable="intermediates")`.
        """
        weights_BHTS = attention_weights(self.query(x_BTD), k_BSHK, mask_B1TS)
        self.sow("intermediates", "weights", weights_BHTS)
        weights_BHTS = self.dropout(weights_BHTS, deterministic)
        return self.out(jnp.einsum("BHTS,BSHK->BTHK", weights_BHTS, v_BSHK))

    def __call__(
        self, x_BTD: jax.Array, memory_BSD: jax.Array, mask_B1TS: jax.Array, **mode: Any
    ) -> jax.Array:
        """Returns y_BTD; self-attention when `memory_BSD` is `x_BTD`."""
        return self.attend(x_BTD, *self.keys_values(memory_BSD), mask_B1TS, **mode)
