"""The model and its step as one would write them down: no packing of work, no chunks, no masks of bytes.

Post-norm, sinusoidal positions, relu, all embeddings tied, no biases in attention: the defaults. It is
what our own step is compared with, for its loss and for its speed.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from transformer.config import ModelConfig
from transformer.data.batch import Batch

BOS, EPSILON = 2, 1e-6


class Plain:
    """The plain model for given sizes; `key` of each method is for dropout, None: without."""

    def __init__(self, config: ModelConfig, label_smoothing: float):
        self.config, self.label_smoothing = config, label_smoothing
        self.keys: Any = None

    def dropout(self, x: jax.Array) -> jax.Array:
        if self.keys is None:
            return x
        keep = 1 - self.config.dropout_rate
        kept = jax.random.bernoulli(next(self.keys), keep, x.shape)
        return jnp.where(kept, x / keep, 0)

    def embed(self, table: jax.Array, ids: jax.Array, position: jax.Array) -> jax.Array:
        D = self.config.d_model
        angle = position[..., None] / 10000 ** (jnp.arange(0, D, 2) / D)
        signal = jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(*ids.shape, D)
        return self.dropout(table[ids] * D**0.5 + signal)

    def attention(self, p: Any, x: jax.Array, memory: jax.Array, seen: jax.Array) -> jax.Array:
        q, k, v = (
            jnp.einsum("btd,dhk->bthk", y, p[name]["kernel"])
            for name, y in (("query", x), ("key", memory), ("value", memory))
        )
        scores = jnp.einsum("bthk,bshk->bhts", q, k) / q.shape[-1] ** 0.5
        weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -1e9))
        return jnp.einsum("bthk,hkd->btd", jnp.einsum("bhts,bshk->bthk", weights, v), p["out"]["kernel"])

    def feed_forward(self, p: Any, x: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(x @ p["wi"]["kernel"] + p["wi"]["bias"])
        return hidden @ p["wo"]["kernel"] + p["wo"]["bias"]

    def add(self, p: Any, name: str, x: jax.Array, y: jax.Array) -> jax.Array:
        """LayerNorm(x + Dropout(y))."""
        x = x + self.dropout(y)
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        norm = p[f"{name}_norm"]
        return (x - mean) / jnp.sqrt(variance + EPSILON) * norm["scale"] + norm["bias"]

    def loss(self, params: Any, batch: Batch, key: jax.Array | None) -> jax.Array:
        """Mean over the real target tokens."""
        self.keys = None if key is None else iter(jax.random.split(key, 100))
        table = params["shared"]["embedding"]
        same = batch.src_seg_BS[:, :, None] == batch.src_seg_BS[:, None]
        x = self.embed(table, batch.src_BS, batch.src_pos_BS)
        for i in range(self.config.num_encoder_layers):
            p = params["encoder"][f"layer_{i}"]
            x = self.add(p, "self_attention", x, self.attention(p["self_attention"], x, x, same))
            x = self.add(p, "feed_forward", x, self.feed_forward(p["feed_forward"], x))
        T = batch.tgt_BT.shape[1]
        earlier = jnp.arange(T)[:, None] >= jnp.arange(T)
        own = (batch.tgt_seg_BT[:, :, None] == batch.tgt_seg_BT[:, None]) & earlier
        theirs = batch.tgt_seg_BT[:, :, None] == batch.src_seg_BS[:, None]
        shifted = jnp.roll(batch.tgt_BT, 1, axis=1)
        y = self.embed(table, jnp.where(batch.tgt_pos_BT == 0, BOS, shifted), batch.tgt_pos_BT)
        for i in range(self.config.num_decoder_layers):
            p = params["decoder"][f"layer_{i}"]
            y = self.add(p, "self_attention", y, self.attention(p["self_attention"], y, y, own))
            y = self.add(p, "cross_attention", y, self.attention(p["cross_attention"], y, x, theirs))
            y = self.add(p, "feed_forward", y, self.feed_forward(p["feed_forward"], y))
        wanted = optax.smooth_labels(jax.nn.one_hot(batch.tgt_BT, len(table)), self.label_smoothing)
        lost = optax.softmax_cross_entropy(y @ table.T, wanted)
        real = batch.tgt_seg_BT > 0
        return (lost * real).sum() / real.sum()

    def step(self, tx: optax.GradientTransformation, state: Any, batch: Batch, key: jax.Array) -> Any:
        """Returns the next (params, optimizer state)."""
        params, moments = state
        updates, moments = tx.update(jax.grad(self.loss)(params, batch, key), moments, params)
        return optax.apply_updates(params, updates), moments
