"""Who may attend to whom: the one home of mask rules.

Segment 0 is padding. Positions attend to each other where their segment numbers are equal, across
source and target too; a target position never attends to a later one (paper, section 3.2.3).
"""

import jax
import jax.numpy as jnp


def segment_mask(query_seg_BT: jax.Array, key_seg_BS: jax.Array) -> jax.Array:
    """Returns mask_B1TS: true where query and key belong to the same sentence.

    A query of padding (segment 0) sees the padding keys: its output is meaningless but finite, and
    no real position ever sees it.
    """
    return query_seg_BT[:, None, :, None] == key_seg_BS[:, None, None, :]


def causal_mask(length: int) -> jax.Array:
    """Returns mask_11TS with T = S = `length`: true on and below the diagonal."""
    return jnp.tril(jnp.ones((1, 1, length, length), dtype=bool))


def decoder_mask(seg_BT: jax.Array, prefix: int = 0) -> jax.Array:
    """Returns mask_B1TS of masked self-attention: same sentence and not later.

    The first `prefix` places of a row are seen from everywhere in their sentence.
    """
    T = seg_BT.shape[1]
    return segment_mask(seg_BT, seg_BT) & (causal_mask(T) | (jnp.arange(T) < prefix))


def positions_after(src_seg_BS: jax.Array, seg_BT: jax.Array, pos_BT: jax.Array) -> jax.Array:
    """Returns the positions of targets that follow the sources of their segments as one sequence."""
    own_BTS = (seg_BT[:, :, None] == src_seg_BS[:, None, :]) & (seg_BT > 0)[:, :, None]
    return pos_BT + own_BTS.sum(axis=-1, dtype=pos_BT.dtype)


def shift_right(tgt_BT: jax.Array, pos_BT: jax.Array, bos_id: int) -> jax.Array:
    """Returns the decoder input: the target one place later, inside each packed sentence.

    Args:
      tgt_BT: int32 target ids.
      pos_BT: int32 positions within each sentence; 0 begins a sentence.
      bos_id: id that begins each sentence.
    """
    shifted_BT = jnp.pad(tgt_BT, ((0, 0), (1, 0)))[:, :-1]
    return jnp.where(pos_BT == 0, bos_id, shifted_BT)
