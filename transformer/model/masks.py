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


def decoder_mask(seg_BT: jax.Array) -> jax.Array:
    """Returns mask_B1TS of masked self-attention: same sentence and not later."""
    return segment_mask(seg_BT, seg_BT) & causal_mask(seg_BT.shape[1])


def shift_right(tgt_BT: jax.Array, pos_BT: jax.Array, bos_id: int) -> jax.Array:
    """Returns the decoder input: the target one place later, inside each packed sentence.

    Args:
      tgt_BT: int32 target ids.
      pos_BT: int32 positions within each sentence; 0 begins a sentence.
      bos_id: id that begins each sentence.
    """
    shifted_BT = jnp.pad(tgt_BT, ((0, 0), (1, 0)))[:, :-1]
    return jnp.where(pos_BT == 0, bos_id, shifted_BT)
