"""Scaled dot-product and multi-head attention (paper, section 3.2)."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from transformer.axes import sequence_shards, shard
from transformer.config import ModelConfig
from transformer.model import compressed, local, positions, scoring
from transformer.model.chunks import in_chunks
from transformer.model.dropout import Dropout
from transformer.model.projection import Projection, project

Spread = Callable[[jax.Array], jax.Array]  # x_BHTX, of each distance, -> x_BHTS, of each key


class KeysValues(NamedTuple):
    """What positions that are decoded later attend to: keys [B, G, K, S] and values [B, G, S, K].

    So they are multiplied as they lie: the CPU copies a side of a product that lies otherwise, in each
    step. In a decoder's cache S is T * W: the hypotheses side by side for each position.
    """

    key: jax.Array
    value: jax.Array


def attention_weights(
    q_BHTK: jax.Array,
    k_BGSK: jax.Array,
    mask_B1TS: jax.Array | bool = True,
    bias_1HTS: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """Returns weights_BHTS = softmax(q k^T / sqrt(K)) over the keys that the mask allows (equation 1).

    The softmax is computed in float32 and returned in the dtype of the queries. A query that may
    see no key gets equal weights, not NaN.

    Args:
      q_BHTK, k_BGSK: queries and keys, see `scoring`.
      mask_B1TS, bias_1HTS: as in `exponentials`.
      scale: of the products; None: 1 / sqrt(K).
    """
    scores_BHTS = scoring.dot_products(_scaled(q_BHTK, scale), k_BGSK)
    exp_BHTS, sum_BHT1 = exponentials(scores_BHTS, mask_B1TS, bias_1HTS)
    return (exp_BHTS / sum_BHT1).astype(q_BHTK.dtype)


def _scaled(q_BHTK: jax.Array, scale: float | None) -> jax.Array:
    return q_BHTK * (q_BHTK.shape[-1] ** -0.5 if scale is None else scale)


def exponentials(
    scores_BHTS: jax.Array, mask_B1TS: jax.Array | bool, bias_1HTS: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Returns the softmax of `attention_weights` in two parts: exp_BHTS, at most 1, and their sum_BHT1.

    Both are float32. Divided by the sum after the product with the values, the weights themselves need
    never be kept for the backward pass.

    Args:
      scores_BHTS: scaled products of queries and keys.
      mask_B1TS: true where a query may look; or everywhere.
      bias_1HTS: float32, added to the scores.
    """
    scores_BHTS = scores_BHTS.astype(jnp.float32)
    if bias_1HTS is not None:
        scores_BHTS += bias_1HTS
    scores_BHTS = jnp.where(mask_B1TS, scores_BHTS, jnp.finfo(jnp.float32).min)
    top_BHT1 = jax.lax.stop_gradient(scores_BHTS.max(axis=-1, keepdims=True))
    exp_BHTS = jnp.exp(scores_BHTS - top_BHT1)
    return exp_BHTS, exp_BHTS.sum(axis=-1, keepdims=True)


def fused_attention(
    q_BHTK: jax.Array,
    k_BGSK: jax.Array,
    v_BGSK: jax.Array,
    mask_B1TS: jax.Array,
    scale: float | None = None,
) -> jax.Array:
    """Returns y_BHTK = attention_weights(q, k, mask) v by cuDNN's kernel, which never holds the weights.

    It is for NVIDIA GPUs, bfloat16, and even numbers of positions, and has a gradient of its own.
    `scale` is as in `attention_weights`.
    """
    q_BTHK, k_BSGK, v_BSGK = (x.swapaxes(1, 2) for x in (q_BHTK, k_BGSK, v_BGSK))
    y_BTHK = jax.nn.dot_product_attention(
        q_BTHK, k_BSGK, v_BSGK, mask=mask_B1TS, scale=scale, implementation="cudnn"
    )
    return y_BTHK.swapaxes(1, 2)


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W^O (paper, section 3.2.2).

    Attributes:
      config: sizes and choices.
      causal: of self-attention, whether later positions are hidden; None: another sequence is read.
    """

    config: ModelConfig
    causal: bool | None = None

    def setup(self) -> None:
        c = self.config
        self.reach = None if self.causal is None else local.reach(c, self.causal)
        own, others = "BS" if self.causal is False else "BT", "BT" if self.causal else "BS"
        self.query = Projection("D->HK", c.attention_bias, c, own)
        self.key = Projection("D->GK", c.attention_bias, c, others)
        self.value = Projection("D->GK", c.attention_bias, c, others)
        self.out = Projection("HK->D", c.attention_bias, c, own)
        self.compresses = c.attention == "compressed" and self.causal is False
        if self.compresses:
            init = nn.initializers.variance_scaling(
                1.0, "fan_avg", "uniform", in_axis=(0, 2), out_axis=3, batch_axis=1
            )
            kernel = init, (c.compression, c.kv_heads, c.key_size, c.key_size), jnp.dtype(c.param_dtype)
            self.compress_key = self.param("compress_key", *kernel)
            self.compress_value = self.param("compress_value", *kernel)
        if c.attention_score != "dot_product":
            last = c.key_size if c.attention_score == "general" else 1
            init = nn.initializers.variance_scaling(
                1.0, "fan_avg", "uniform", in_axis=1, out_axis=2, batch_axis=0
            )
            self.score = self.param("score", init, (c.num_heads, c.key_size, last), jnp.dtype(c.param_dtype))
        self.between = c.positions == "shaw" and self.causal is not None
        if self.between:
            shape = 2 * c.relative_max_distance + 1, c.num_heads, c.key_size
            vectors = nn.initializers.normal(c.key_size**-0.5), shape, jnp.dtype(c.param_dtype)
            self.distance_key = self.param("distance_key", *vectors)
            self.distance_value = self.param("distance_value", *vectors)
        self.dropout = Dropout(c.attention_dropout_rate)

    def __call__(
        self,
        x_BTD: jax.Array,
        memory_BSD: jax.Array,
        mask: Any,
        bias: Any = None,
        deterministic: bool = True,
        pos_BT: jax.Array | None = None,
    ) -> jax.Array:
        """Returns y_BTD; self-attention when `memory_BSD` is `x_BTD`.

        The weights are sown as intermediate "weights" (BHTS), so that they can be captured without a
        flag: `apply(..., mutable="intermediates")`.

        Args:
          x_BTD, memory_BSD: what asks and what is read.
          mask, bias: see `exponentials`; of local attention they are in `local.Parts`, and of compressed
            attention the mask is seg_BT.
          deterministic: without dropout.
          pos_BT: of self-attention, the positions.
        """
        if memory_BSD is x_BTD:
            k_BSGK, v_BSGK, q_BTHK = project(x_BTD, self.key, self.value, self.query)
            q_BTHK, k_BSGK = self._placed(pos_BT, q_BTHK, k_BSGK)
        else:
            (k_BSGK, v_BSGK), q_BTHK = project(memory_BSD, self.key, self.value), self.query(x_BTD)
        if self.compresses:
            return self.out(self._read_compressed(q_BTHK, k_BSGK, v_BSGK, mask, deterministic))
        q_BHTK, k_BGSK, v_BGSK = (x.swapaxes(1, 2) for x in (q_BTHK, k_BSGK, v_BSGK))
        if self.config.attention_implementation == "cudnn" and not self.is_initializing():
            y_BHTK = fused_attention(self._asked(q_BHTK), k_BGSK, v_BGSK, mask, self._scale)
            return self.out(y_BHTK.swapaxes(1, 2))

        def read(q: Any, k: Any, v: Any, mask: Any, bias: Any) -> tuple[jax.Array, jax.Array]:
            # The first of a block's keys is in the block before.
            first = 0 if k.shape[2] == q.shape[2] else -q.shape[2]
            spread = partial(positions.spread, S=k.shape[2], first=first) if self.between else None
            return self._read(self._scores(q, k, "BGSK", spread), (v,), mask, bias, spread, deterministic)

        attend = read if self.reach is None else partial(self.reach.read, read)
        weights: Any
        y_BHTK, weights = attend(q_BHTK, k_BGSK, v_BGSK, mask, bias)
        if self.is_mutable_collection("intermediates"):
            whole = weights if self.reach is None else self.reach.weights(weights, y_BHTK.shape[2])
            self.sow("intermediates", "weights", whole)
        return self.out(y_BHTK.swapaxes(1, 2))

    def _read_compressed(
        self,
        q_BTHK: jax.Array,
        k_BSGK: jax.Array,
        v_BSGK: jax.Array,
        seg_BS: jax.Array,
        deterministic: bool,
    ) -> jax.Array:
        """Returns y_BTHK of queries that see the compressed keys of their own sentence, a few at a time."""
        size, B = self.config.compression, len(seg_BS)
        whole = self.is_mutable_collection("intermediates")  # weights are wanted, of all queries
        P = 1 if whole else sequence_shards("BS", seg_BS.shape)
        rows = "P" if P > 1 else "B"
        kernels = (self.compress_key, k_BSGK), (self.compress_value, v_BSGK)
        squeezed = (compressed.squeeze(x, kernel.astype(x.dtype), seg_BS) for kernel, x in kernels)
        # Where a mesh divides the positions its parts are rows, each with a copy of the keys: gradients of a
        # copy are added up over all chunks before they are summed over the mesh.
        k_PGSK, v_PGSK = (shard(jnp.repeat(x, P, axis=0), rows + "_GK").swapaxes(1, 2) for x in squeezed)
        seg_PS = jnp.repeat(seg_BS, P, axis=0)

        def read(self: "MultiHeadAttention", q_BTHK: jax.Array, seg_BT: jax.Array) -> jax.Array:
            q_PTHK, seg_PT = q_BTHK.reshape(B * P, -1, *q_BTHK.shape[2:]), seg_BT.reshape(B * P, -1)
            mask_P1TS = compressed.mask(seg_PT, seg_PS, size)
            scores_PHTS = self._scores(q_PTHK.swapaxes(1, 2), k_PGSK, "BGSK", None)
            y_PHTK, weights_PHTS = self._read(scores_PHTS, (v_PGSK,), mask_P1TS, None, None, deterministic)
            if whole:
                self.sow("intermediates", "weights", compressed.spread(weights_PHTS, seg_BS, size))
            # A sentence inside of what is another's key has none.
            y_PHTK = jnp.where(mask_P1TS.any(axis=-1, keepdims=True), y_PHTK, 0)
            return y_PHTK.swapaxes(1, 2).reshape(q_BTHK.shape)

        chunk = 0 if whole else self.config.chunk_length
        return in_chunks(self, read, {"BSHK": q_BTHK, "BS": seg_BS}, chunk)

    def remember(self, memory_BSD: jax.Array, pos_BS: jax.Array | None = None) -> KeysValues:
        """Returns the keys and values that `recall` attends to, or `step`, which reads those at positions."""
        k_BSGK, v_BSGK = project(memory_BSD, self.key, self.value)
        (k_BSGK,) = self._placed(pos_BS, k_BSGK)
        return KeysValues(*_lying(k_BSGK, v_BSGK))

    def recall(self, x_BTD: jax.Array, memory: KeysValues, mask_B1TS: jax.Array) -> jax.Array:
        """Returns y_BTD, each position of `x_BTD` having read what was remembered."""
        return self._recall(self.query(x_BTD), (memory,), mask_B1TS)

    def step(
        self,
        x_BWD: jax.Array,
        t: jax.Array,
        pos_BW: jax.Array,
        cache: KeysValues,
        seen_B1WS: jax.Array,
        bias_NHWS: jax.Array | None = None,
        before: tuple[KeysValues, ...] = (),
    ) -> tuple[jax.Array, KeysValues]:
        """Returns (y_BWD, cache with position `t` written), see `DecoderLayer.step`.

        What was remembered `before` is read together with the cache: S is of both, one after the other.
        """
        k_BWGK, v_BWGK, q_BWHK = project(x_BWD, self.key, self.value, self.query, together=True)
        q_BWHK, k_BWGK = self._placed(pos_BW, q_BWHK, k_BWGK)
        key_BGKW, value_BGWK = _lying(k_BWGK, v_BWGK)
        W = x_BWD.shape[1]
        T = cache.value.shape[2] // W
        place_T = jnp.arange(T) if self.reach is None else self.reach.remembered(t, T)[0]
        spread = partial(positions.at_distances, distance_S=(place_T - t).repeat(W)) if self.between else None
        first = t % T * W  # a ring where only the newest positions are seen
        cache = KeysValues(
            jax.lax.dynamic_update_slice_in_dim(cache.key, key_BGKW, first, axis=3),
            jax.lax.dynamic_update_slice_in_dim(cache.value, value_BGWK, first, axis=2),
        )
        return self._recall(q_BWHK, (*before, cache), seen_B1WS, bias_NHWS, spread), cache

    def _recall(
        self,
        q_BTHK: jax.Array,
        memories: Sequence[KeysValues],
        mask_B1TS: jax.Array,
        bias_NHTS: jax.Array | None = None,
        spread: Spread | None = None,
    ) -> jax.Array:
        q_BHTK = q_BTHK.swapaxes(1, 2)
        # Scores are put side by side, and not keys: those would be copied in each step.
        scores = [self._scores(q_BHTK, memory.key, "BGKS", spread) for memory in memories]
        scores_BHTS = jnp.concatenate(scores, axis=-1)
        values = [memory.value for memory in memories]
        y_BHTK, _ = self._read(scores_BHTS, values, mask_B1TS, bias_NHTS, spread, deterministic=True)
        return self.out(y_BHTK.swapaxes(1, 2))

    def _placed(self, pos_BT: jax.Array | None, *xs: jax.Array) -> tuple[jax.Array, ...]:
        """Returns queries and keys [B, T, H or G, K] at their positions; without any they have none."""
        if self.config.positions != "rotary" or pos_BT is None:
            return xs
        return tuple(positions.rotary(x, pos_BT) for x in xs)

    def _scores(self, q_BHTK: jax.Array, k_BGSK: jax.Array, keys: str, spread: Spread | None) -> jax.Array:
        """Returns scores_BHTS; `keys` says how the axes of `k_BGSK` lie.

        With `spread` a key is k + a, a the vector of its distance (Shaw et al. 2018, equation 4).
        """
        if self.config.attention_score == "additive":
            k_BGSK = k_BGSK if keys == "BGSK" else k_BGSK.swapaxes(2, 3)
            return scoring.additive(q_BHTK, k_BGSK, self.score[..., 0].astype(q_BHTK.dtype))
        q_BHTK = _scaled(self._asked(q_BHTK), self._scale)
        scores_BHTS = scoring.dot_products(q_BHTK, k_BGSK, keys)
        if spread is None:
            return scores_BHTS
        return scores_BHTS + spread(
            jnp.einsum("BHTK,XHK->BHTX", q_BHTK, self.distance_key.astype(q_BHTK.dtype))
        )

    def _asked(self, q_BHTK: jax.Array) -> jax.Array:
        """Returns what is multiplied with keys for the queries."""
        if self.config.attention_score == "general":
            return scoring.general(q_BHTK, self.score.astype(q_BHTK.dtype))
        return q_BHTK

    @property
    def _scale(self) -> float | None:
        return None if self.config.scale_queries else 1.0

    def _read(
        self,
        scores_BHTS: jax.Array,
        values: Sequence[jax.Array],
        mask_B1TS: jax.Array,
        bias_NHTS: jax.Array | None,
        spread: Spread | None,
        deterministic: bool,
    ) -> tuple[jax.Array, jax.Array]:
        """Returns (y_BHTK, weights_BHTS); values are [B, G, S, K] each, S of all together that of the scores.

        With `spread` a value is v + a, a the vector of its distance (equation 3 there): weights are summed by
        distance first.
        """
        dtype, ends = values[0].dtype, list(itertools.accumulate(v.shape[2] for v in values))[:-1]
        exp_BHTS, sum_BHT1 = exponentials(scores_BHTS, mask_B1TS, bias_NHTS)
        weights_BHTS = (exp_BHTS / sum_BHT1).astype(dtype)
        exp_BHTS = self.dropout(exp_BHTS.astype(dtype), deterministic)
        # Not split in vain: the part would be kept for the backward pass beside the whole.
        parts = jnp.split(exp_BHTS, ends, axis=-1) if ends else [exp_BHTS]
        y_BHTK = reduce(jnp.add, map(scoring.weighted, parts, values))
        if spread is not None:
            vector_XHK = self.distance_value.astype(dtype)
            of_distance = jax.ShapeDtypeStruct((*exp_BHTS.shape[:3], len(vector_XHK)), exp_BHTS.dtype)
            (exp_BHTX,) = jax.linear_transpose(spread, of_distance)(exp_BHTS)
            y_BHTK += jnp.einsum("BHTX,XHK->BHTK", exp_BHTX, vector_XHK)
        return (y_BHTK / sum_BHT1).astype(dtype), weights_BHTS


def _lying(k_BSGK: jax.Array, v_BSGK: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (k_BGKS, v_BGSK), as `KeysValues` has them."""
    return k_BSGK.transpose(0, 2, 3, 1), v_BSGK.swapaxes(1, 2)
