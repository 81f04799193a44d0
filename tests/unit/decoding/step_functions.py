"""Toy models with memory: the next token depends on all before it, through the cache alone."""

from typing import Any

import jax.numpy as jnp
import numpy as np

BOS, EOS = 0, 1


class Recurrent:
    """h' = tanh(h A + E[token]) with logits h' U; as a step function, and one sequence at a time in NumPy."""

    def __init__(self, seed: int, batch: int, vocab: int, *, sharpness: float):
        size = 6
        draw = np.random.default_rng(seed)
        self.A = draw.normal(size=(size, size))
        self.E = draw.normal(size=(vocab, size))
        self.U = sharpness * draw.normal(size=(size, vocab))
        self.first_BK = draw.normal(size=(batch, size))  # what makes the rows differ

    def step(self, token_BW: Any, t: Any, cache: Any, ancestor_BWT: Any, first_BK: Any) -> tuple[Any, Any]:
        B, W = token_BW.shape
        h_BTWK = cache.reshape(B, -1, W, cache.shape[-1])
        parent_BW = ancestor_BWT[:, :, t - 1]
        h_BWK = jnp.take_along_axis(h_BTWK[:, t - 1], parent_BW[..., None], axis=1)
        h_BWK = jnp.where(t == 0, first_BK[:, None], h_BWK)
        h_BWK = jnp.tanh(h_BWK @ jnp.float32(self.A) + jnp.float32(self.E)[token_BW])
        return h_BWK @ jnp.float32(self.U), h_BTWK.at[:, t].set(h_BWK).reshape(cache.shape)

    def start(self, width: int, length: int, rows: slice = slice(None)) -> tuple[Any, Any]:
        """Cache and context."""
        first_BK = jnp.float32(self.first_BK[rows])
        B, K = first_BK.shape
        return jnp.zeros((B, 1, length * width, K)), first_BK

    def log_probs(self, row: int, prefix: tuple[int, ...]) -> np.ndarray:
        """Log-probabilities of what follows `prefix` in a row."""
        h = self.first_BK[row]
        for token in (BOS, *prefix):
            h = np.tanh(h @ self.A + self.E[token])
        logits = h @ self.U
        return logits - np.log(np.exp(logits).sum())

    def log_prob(self, row: int, ids: tuple[int, ...]) -> float:
        return sum(self.log_probs(row, ids[:t])[token] for t, token in enumerate(ids))


def longer(cache: Any, width: int, length: int) -> Any:
    """A cache of `Recurrent` with room for `length` positions."""
    return jnp.pad(cache, [(0, 0), (0, 0), (0, length * width - cache.shape[2]), (0, 0)])


def output(ids: np.ndarray) -> tuple[int, ...]:
    """The ids up to their end mark; behind it there must be padding only."""
    end = list(ids).index(EOS) + 1
    assert not ids[end:].any()
    return tuple(int(i) for i in ids[:end])
