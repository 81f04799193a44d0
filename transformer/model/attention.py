"""Scaled dot-product and multi-head attention (paper, section 3.2)."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from transformer.config import ModelConfig
from transformer.model.dropout import Dropout
from transformer.model.sharded import products


def attention_weights(
    q_BHTK: jax.Array,
    k_BHSK: jax.Array,
    mask_B1TS: jax.Array,
    bias_1HTS: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """Returns weights_BHTS = softmax(q k^T / sqrt(K)) over the keys that the mask allows (equation 1).

    The softmax is computed in float32 and returned in the dtype of the queries. A query that may
    see no key gets equal weights, not NaN. Arguments as in `exponentials`.
    """
    exp_BHTS, sum_BHT1 = exponentials(q_BHTK, k_BHSK, mask_B1TS, bias_1HTS, scale)
    return (exp_BHTS / sum_BHT1).astype(q_BHTK.dtype)


def exponentials(
    q_BHTK: jax.Array,
    k_BHSK: jax.Array,
    mask_B1TS: jax.Array,
    bias_1HTS: jax.Array | None = None,
    scale: float | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Returns the softmax of `attention_weights` in two parts: exp_BHTS, at most 1, and their sum_BHT1.

    Both are float32. Divided by the sum after the product with the values, the weights themselves need
    never be kept for the backward pass.

    Args:
      q_BHTK, k_BHSK: queries and keys.
      mask_B1TS: true where a query may look.
      bias_1HTS: float32, added to the scaled products.
      scale: of the products; None: 1 / sqrt(K).
    """
    q_BHTK = q_BHTK * (q_BHTK.shape[-1] ** -0.5 if scale is None else scale)
    scores_BHTS = _products(q_BHTK, k_BHSK).astype(jnp.float32)
    if bias_1HTS is not None:
        scores_BHTS += bias_1HTS
    scores_BHTS = jnp.where(mask_B1TS, scores_BHTS, jnp.finfo(jnp.float32).min)
    top_BHT1 = jax.lax.stop_gradient(scores_BHTS.max(axis=-1, keepdims=True))
    exp_BHTS = jnp.exp(scores_BHTS - top_BHT1)
    return exp_BHTS, exp_BHTS.sum(axis=-1, keepdims=True)


def fused_attention(
    q_BHTK: jax.Array,
    k_BHSK: jax.Array,
    v_BHSK: jax.Array,
    mask_B1TS: jax.Array,
    scale: float | None = None,
) -> jax.Array:
    """Returns y_BHTK = attention_weights(q, k, mask) v by cuDNN's kernel, which never holds the weights.

    It is for NVIDIA GPUs, bfloat16, and even numbers of positions, and has a gradient of its own.
    `scale` is as in `attention_weights`.
    """
    q_BTHK, k_BSHK, v_BSHK = (x.swapaxes(1, 2) for x in (q_BHTK, k_BHSK, v_BHSK))
    y_BTHK = jax.nn.dot_product_attention(
        q_BTHK, k_BSHK, v_BSHK, mask=mask_B1TS, scale=scale, implementation="cudnn"
    )
    return y_BTHK.swapaxes(1, 2)


def _products(q_BHTK: jax.Array, k_BHSK: jax.Array) -> jax.Array:
    """Returns q k^T, [B, H, T, S]."""
    if 2 * q_BHTK.shape[2] > k_BHSK.shape[2]:
        return jnp.einsum("BHTK,BHSK->BHTS", q_BHTK, k_BHSK)
    # A step of decoding: the CPU's product first copies its right side, so that had better be the
    # small one. Without the barrier XLA would turn the sides round again.
    scores_BHST = jnp.einsum("BHSK,BHTK->BHST", k_BHSK, q_BHTK)
    return jax.lax.optimization_barrier(scores_BHST).swapaxes(2, 3)


class Projection(nn.Module):
    """Linear map between named axes: `letters` as in "D->HK"."""

    letters: str
    use_bias: bool
    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        sizes = {"D": c.d_model, "F": c.d_ff, "H": c.num_heads, "K": c.key_size}
        inputs, outputs = (tuple(sizes[letter] for letter in side) for side in self.letters.split("->"))
        init = nn.initializers.variance_scaling(
            1.0,
            "fan_avg",
            "uniform",
            in_axis=tuple(range(len(inputs))),
            out_axis=tuple(range(len(inputs), len(inputs + outputs))),
        )
        self.kernel = self.param("kernel", init, inputs + outputs, jnp.dtype(c.param_dtype))
        if self.use_bias:
            self.bias = self.param("bias", nn.initializers.zeros, outputs, jnp.dtype(c.param_dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        return project(x, self)[0]


def project(x: jax.Array, *projections: Projection) -> tuple[jax.Array, ...]:
    """Returns what each of the projections, all with the same letters, makes of `x`."""
    dtype = jnp.dtype(projections[0].config.dtype)
    kernels = [p.kernel.astype(dtype) for p in projections]
    ys = products(x.astype(dtype), kernels, projections[0].letters)
    return tuple(y + p.bias.astype(dtype) if p.use_bias else y for y, p in zip(ys, projections, strict=True))


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O (paper, section 3.2.2)."""

    config: ModelConfig

    def setup(self) -> None:
        c = self.config
        self.query = Projection("D->HK", c.attention_bias, c)
        self.key = Projection("D->HK", c.attention_bias, c)
        self.value = Projection("D->HK", c.attention_bias, c)
        self.out = Projection("HK->D", c.attention_bias, c)
        self.dropout = Dropout(c.attention_dropout_rate)

    def keys_values(self, memory_BSD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns (k_BHSK, v_BHSK) of what is attended to."""
        k_BSHK, v_BSHK = project(memory_BSD, self.key, self.value)
        return k_BSHK.swapaxes(1, 2), v_BSHK.swapaxes(1, 2)

    def attend(
        self,
        x_BTD: jax.Array,
        k_BHSK: jax.Array,
        v_BHSK: jax.Array,
        mask_B1TS: jax.Array,
        bias_1HTS: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Returns y_BTD: each position of `x_BTD` reads from given keys and values."""
        q_BHTK = self.query(x_BTD).swapaxes(1, 2)
        return self._read(q_BHTK, k_BHSK, v_BHSK, mask_B1TS, bias_1HTS, deterministic)

    def __call__(
        self,
        x_BTD: jax.Array,
        memory_BSD: jax.Array,
        mask_B1TS: jax.Array,
        bias_1HTS: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Returns y_BTD; self-attention when `memory_BSD` is `x_BTD`."""
        if memory_BSD is not x_BTD:
            return self.attend(x_BTD, *self.keys_values(memory_BSD), mask_B1TS, bias_1HTS, deterministic)
        kvq = (x_BTHK.swapaxes(1, 2) for x_BTHK in project(x_BTD, self.key, self.value, self.query))
        k_BHTK, v_BHTK, q_BHTK = kvq
        return self._read(q_BHTK, k_BHTK, v_BHTK, mask_B1TS, bias_1HTS, deterministic)

    def _read(
        self,
        q_BHTK: jax.Array,
        k_BHSK: jax.Array,
        v_BHSK: jax.Array,
        mask_B1TS: jax.Array,
        bias_1HTS: jax.Array | None,
        deterministic: bool,
    ) -> jax.Array:
        """Returns y_BTD.

        Unless attention is fused the weights are sown as intermediate "weights" (BHTS), so that they
        can be captured without a flag: `apply(..., mutable="intermediates")`.
        """
        scale = None if self.config.scale_queries else 1.0
        if self.config.attention_implementation == "cudnn" and not self.is_initializing():
            return self.out(fused_attention(q_BHTK, k_BHSK, v_BHSK, mask_B1TS, scale).swapaxes(1, 2))
        exp_BHTS, sum_BHT1 = exponentials(q_BHTK, k_BHSK, mask_B1TS, bias_1HTS, scale)
        self.sow("intermediates", "weights", (exp_BHTS / sum_BHT1).astype(v_BHSK.dtype))
        exp_BHTS = self.dropout(exp_BHTS.astype(v_BHSK.dtype), deterministic)
        y_BHTK = jnp.einsum("BHTS,BHSK->BHTK", exp_BHTS, v_BHSK) / sum_BHT1
        return self.out(y_BHTK.astype(v_BHSK.dtype).swapaxes(1, 2))
