"""Local attention: a query sees the keys near it (paper, section 4, "restricted self-attention").

A row is cut into blocks, and these become rows of their own: a block of queries, and the keys of the same
and of the neighbouring blocks, if there are any. Scores and all that is done with them then take memory
that is linear in the length, and attention treats blocks as it treats rows.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from transformer.config import ModelConfig
from transformer.model.masks import segment_mask
from transformer.model.sharded import neighbour

_NOBODY = -1  # a segment that no query belongs to


class Parts(NamedTuple):
    """What belongs to the queries in blocks, and to the first ones, which see all keys, if there are any."""

    near: Any
    first: Any = None


Reading = Callable[..., tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Reach:
    """Which keys of its own row a query sees, of those that it may see at all.

    Places are counted from the beginning of the row.

    Attributes:
      by_distance: whether those at most `radius` places away, or those of its own and the neighbouring
        block, places 0 to `radius` - 1 being the first one.
      radius: half of the paper's neighbourhood r (section 4), or the size of a block.
      causal: whether later keys are hidden.
      first: so many tokens of the row see all and are seen by all.
    """

    by_distance: bool
    radius: int
    causal: bool
    first: int = 0

    def cut(self, x_BXTY: jax.Array) -> jax.Array:
        """Returns the blocks of queries as rows: [B * N, X, T / N, Y], the last one filled up."""
        B, X, T, Y = x_BXTY.shape
        c, N, _, _ = self._blocks(T)
        x_BXTY = jnp.pad(x_BXTY, ((0, 0), (0, 0), (0, N * c - T), (0, 0)))
        return x_BXTY.reshape(B, X, N, c, Y).swapaxes(1, 2).reshape(B * N, X, c, Y)

    def joined(self, x_NXTY: jax.Array, T: int) -> jax.Array:
        """Returns [B, X, T, Y] of what `cut` gives."""
        (rows, X, c, Y), N = x_NXTY.shape, self._blocks(T)[1]
        x_BXNTY = x_NXTY.reshape(rows // N, N, X, c, Y).swapaxes(1, 2)
        return x_BXNTY.reshape(rows // N, X, N * c, Y)[:, :, :T]

    def around(self, x_BXSY: jax.Array) -> jax.Array:
        """Returns the keys of each block of queries: [B * N, X, S, Y], the row's first tokens in front."""
        return self._after_first(x_BXSY, self._near(x_BXSY))

    def mask(self, seg_BT: jax.Array) -> Parts:
        """Returns masks_B1TS: of the same sentence, and within reach.

        Nobody sees what blocks are filled up with, or one of the first tokens twice.
        """
        T = seg_BT.shape[1]
        n, distance_TS = min(self.first, T), self._near_distance(T)
        seen_TS = jnp.ones_like(distance_TS, bool)
        if self.by_distance:
            seen_TS &= jnp.abs(distance_TS) <= self.radius
        if self.causal:
            seen_TS &= distance_TS <= 0
        seen_TS = jnp.pad(seen_TS, ((0, 0), (n, 0)), constant_values=True)
        seg_B1T1 = seg_BT[:, None, :, None]
        others_B1T1 = jnp.where(jnp.arange(T)[:, None] < n, _NOBODY, seg_B1T1)
        key_N1S1 = self._after_first(seg_B1T1, self._near(others_B1T1, fill=_NOBODY))
        near_N1TS = (self.cut(seg_B1T1) == key_N1S1.swapaxes(2, 3)) & seen_TS
        return Parts(near_N1TS, segment_mask(seg_BT[:, :n], seg_BT) if n else None)

    def distance(self, T: int) -> Parts:
        """Returns distances_NTS, int32, of keys from queries; N is 1 where all blocks have the same."""
        near_TS, n = self._near_distance(T), min(self.first, T)
        if not n:
            return Parts(near_TS[None])
        (c, N, _, _), place_T = self._blocks(T), jnp.arange(T)
        first_NTS = place_T[:n] - jnp.arange(N * c).reshape(N, c, 1)
        near_NTS = jnp.broadcast_to(near_TS, (N, *near_TS.shape))
        return Parts(jnp.concatenate([first_NTS, near_NTS], axis=-1), (place_T - place_T[:n, None])[None])

    def read(
        self,
        read: Reading,
        q_BHTK: jax.Array,
        k_BGTK: jax.Array,
        v_BGTK: jax.Array,
        mask: Parts,
        bias: Parts | None,
    ) -> tuple[jax.Array, Parts]:
        """Returns (y_BHTK, weights) of queries that see what is within reach.

        Args:
          read: what attends: queries, keys, values, mask, bias -> (y_BHTK, weights_BHTS).
          q_BHTK, k_BGTK, v_BGTK: of whole rows.
          mask: from `mask`.
          bias: of the distances in `distance`, or None.
        """
        (B, _, T, _), n = q_BHTK.shape, min(self.first, q_BHTK.shape[2])
        bias = bias or Parts(None)
        if bias.near is not None and bias.near.shape[0] > 1:
            bias = bias._replace(near=jnp.tile(bias.near, (B, 1, 1, 1)))
        around = self.around(k_BGTK), self.around(v_BGTK)
        y_NHTK, near_NHTS = read(self.cut(q_BHTK), *around, mask.near, bias.near)
        y_BHTK = self.joined(y_NHTK, T)
        if not n:
            return y_BHTK, Parts(near_NHTS)
        first_BHTK, first_BHTS = read(q_BHTK[:, :, :n], k_BGTK, v_BGTK, mask.first, bias.first)
        return jnp.concatenate([first_BHTK, y_BHTK[:, :, n:]], axis=2), Parts(near_NHTS, first_BHTS)

    def weights(self, parts: Parts, T: int) -> jax.Array:
        """Returns weights_BHTT, as full attention has them, of those in parts."""
        (c, _, before, _), n = self._blocks(T), min(self.first, T)
        near_BHTS = self.joined(parts.near, T)
        t_T1, s_S = jnp.arange(T)[:, None], jnp.arange(T)
        column_TS = s_S - (t_T1 // c - before) * c  # among those that are near
        inside_TS = (s_S < n) | ((column_TS >= 0) & (column_TS < near_BHTS.shape[-1] - n))
        column_TS = jnp.where(s_S < n, s_S, jnp.clip(column_TS + n, 0, near_BHTS.shape[-1] - 1))
        weights_BHTT = jnp.where(inside_TS, jnp.take_along_axis(near_BHTS, column_TS[None, None], -1), 0)
        return weights_BHTT if parts.first is None else weights_BHTT.at[:, :, :n].set(parts.first)

    def scored(self, length: float) -> float:
        """Returns the pairs of a query and a key whose scores are computed for a row, seen or not."""
        (c, N, before, after), first = self._blocks(length), min(self.first, length)
        return N * c * ((before + 1 + after) * c + first) + first * length

    @property
    def ring(self) -> int:
        """How many positions, the newest included, a decoder must remember."""
        return self.radius + 1 if self.by_distance else 2 * self.radius

    def remembered(self, t: jax.Array, T: int) -> tuple[jax.Array, jax.Array]:
        """Returns which position each of T places of a ring holds when `t` is the newest one.

        Position p lies at place p modulo T.

        Returns:
          (place_T, int32, below 0 where nothing was written yet; seen_T, whether `t` sees it).
        """
        place_T = t - (t - jnp.arange(T)) % T
        nearest = t - self.radius if self.by_distance else (t // self.radius - 1) * self.radius
        return place_T, place_T >= jnp.maximum(nearest, 0)

    def _blocks(self, length: float) -> tuple[int, int, int, int]:
        """Returns the size of blocks, their number, and how many before and after its own each meets."""
        c = int(max(1, min(self.radius, length)))
        N = int(-(-length // c))
        return c, N, int(N > 1), int(N > 1 and not self.causal)

    def _after_first(self, x_BXSY: jax.Array, near_NXSY: jax.Array) -> jax.Array:
        if not self.first:
            return near_NXSY
        N = near_NXSY.shape[0] // x_BXSY.shape[0]
        first_NXSY = jnp.repeat(x_BXSY[:, :, : self.first], N, axis=0)
        return jnp.concatenate([first_NXSY, near_NXSY], axis=2)

    def _near(self, x_BXSY: jax.Array, fill: int = 0) -> jax.Array:
        B, X, S, Y = x_BXSY.shape
        c, N, before, after = self._blocks(S)
        x_BXSY = jnp.pad(x_BXSY, ((0, 0), (0, 0), (0, N * c - S), (0, 0)), constant_values=fill)
        x_BXNSY = x_BXSY.reshape(B, X, N, c, Y)
        near = [neighbour(x_BXNSY, -1, fill)] * before + [x_BXNSY] + [neighbour(x_BXNSY, 1, fill)] * after
        near_BXNSY = jnp.concatenate(near, axis=3)
        return near_BXNSY.swapaxes(1, 2).reshape(B * N, X, len(near) * c, Y)

    def _near_distance(self, T: int) -> jax.Array:
        c, _, before, after = self._blocks(T)
        return jnp.arange(-before * c, (1 + after) * c) - jnp.arange(c)[:, None]


def reach(config: ModelConfig, causal: bool) -> Reach | None:
    """Returns the reach of self-attention; None: all of the row."""
    if config.attention not in ("window", "block"):
        return None
    first = 0 if causal else config.global_tokens
    return Reach(config.attention == "window", config.attention_radius, causal, first)
