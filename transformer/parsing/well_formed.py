"""What may come next in a sequence that is to be a tree: for a search, in arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from transformer.parsing.linear import ANY_TAG, PUNCTUATION, kind_of_symbol

_WORD = "\u2581"  # what pieces begin with that begin a word


class TreeSymbols(NamedTuple):
    """Ids of what trees are written with.

    Attributes:
      opens: of opening brackets.
      closes: of the closing bracket of each.
      tags: of what stands for a word.
      end: end mark.
    """

    opens: tuple[int, ...]
    closes: tuple[int, ...]
    tags: tuple[int, ...]
    end: int


def tree_symbols(pieces: Sequence[str], end: int, keep_tags: bool) -> TreeSymbols:
    """Returns the symbols among the pieces of a vocabulary.

    Args:
      pieces: spelling of each id; empty for special ones.
      end: id of the end mark.
      keep_tags: any word without a bracket is a tag; false: XX and those of punctuation.
    """
    ids = {piece[1:]: i for i, piece in enumerate(pieces) if piece.startswith(_WORD)}
    kinds = {symbol: kind_of_symbol(symbol) for symbol in ids}
    opens = [s[1:] for s, kind in kinds.items() if kind == "open" and ")" + s[1:] in ids]
    tags = [s for s, kind in kinds.items() if kind == "tag" and (keep_tags or s in {ANY_TAG, *PUNCTUATION})]
    return TreeSymbols(
        tuple(ids["(" + label] for label in opens),
        tuple(ids[")" + label] for label in opens),
        tuple(ids[tag] for tag in tags),
        end,
    )


def keeps_tree(
    symbols: TreeSymbols, ids_BWT: jax.Array, t: jax.Array, limit_B: jax.Array, leaves_B: jax.Array, V: int
) -> jax.Array:
    """Returns which tokens leave a sequence the beginning of a tree, bool [B, W, V].

    What `restore` never has to repair: as many tags as words; each bracket closed by its own, none around no
    word, none opened that there is no room to close; and the end mark as soon as all is closed, not before.
    Where the limit is too near for any tree, only the end mark is certain to come.

    Args:
      symbols: that trees are written with.
      ids_BWT: what stands before position `t`; what is behind it is ignored.
      t: scalar int32.
      limit_B: longest output, end mark included.
      leaves_B: words of each row.
      V: size of the vocabulary.
    """
    depth_V, tag_V, closing_V = np.zeros((3, V), np.int32)
    depth_V[list(symbols.opens)], depth_V[list(symbols.closes)], tag_V[list(symbols.tags)] = 1, -1, 1
    closing_V[list(symbols.opens)] = symbols.closes
    ids_V = np.arange(V)

    before_T = jnp.arange(ids_BWT.shape[-1]) < t
    step_BWT = jnp.where(before_T, jnp.asarray(depth_V)[ids_BWT], 0)
    depth_BWT = jax.lax.associative_scan(jnp.add, step_BWT, axis=-1)
    tags_BWT = jax.lax.associative_scan(jnp.add, jnp.where(before_T, jnp.asarray(tag_V)[ids_BWT], 0), axis=-1)
    depth_BW, tags_BW = depth_BWT[..., -1], tags_BWT[..., -1]
    # Of the brackets that opened at this depth, the last is the one that is still open.
    here_BWT = (step_BWT == 1) & (depth_BWT == depth_BW[..., None])
    innermost_BW1 = jnp.where(here_BWT, jnp.arange(before_T.size), -1).max(axis=-1, keepdims=True)
    place_BW1 = jnp.maximum(innermost_BW1, 0)
    label_BW1 = jnp.take_along_axis(ids_BWT, place_BW1, axis=-1)
    holds_word_BW = tags_BW > jnp.take_along_axis(tags_BWT, place_BW1, axis=-1)[..., 0]

    left_BW = leaves_B[:, None] - tags_BW
    room_B1 = (limit_B - t)[:, None]
    needed_BW = left_BW + depth_BW + 1
    may_open_BW = (left_BW > 0) & (needed_BW + 2 <= room_B1)
    may_close_BW = (depth_BW > 0) & holds_word_BW
    may_end_BW = (needed_BW == 1) | (room_B1 <= 1)
    return (
        (may_open_BW[..., None] & (depth_V == 1))
        | ((left_BW > 0)[..., None] & (tag_V == 1))
        | (may_close_BW[..., None] & (jnp.asarray(closing_V)[label_BW1] == ids_V))
        | (may_end_BW[..., None] & (ids_V == symbols.end))
    )
