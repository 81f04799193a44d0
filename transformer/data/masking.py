"""Masked language models: pieces hidden from the encoder, which is asked for them (Devlin et al. 2019).

Of the chosen pieces most are masked; some are another piece and some stay, so that the encoder has to know
each piece, not the masked ones alone. What stands for a masked piece is the tokenizer's piece that begins
decoders' inputs (`SpecialIds.start`): no text ever becomes it, and an encoder has no other use for it.
"""

import numpy as np

from transformer.data.batch import NOT_ASKED
from transformer.data.tokenizer import Tokenizer

MASKED, OTHER = 0.8, 0.1  # shares of the chosen pieces; the rest stays


def mask_pieces(
    ids: np.ndarray, text_V: np.ndarray, mask: int, rate: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the encoder reads and what it is asked for, int32 [length] both.

    Args:
      ids: int32 [length] of a sentence.
      text_V: bool, which ids are text; only those are chosen, or put in others' places.
      mask: the id in place of masked ones.
      rate: share of the text that is chosen: rounded up or down, so that it is the share in the mean.
      rng: decides.
    """
    places = np.flatnonzero(text_V[ids])
    chosen = rng.permutation(places)[: int(rate * len(places) + rng.random())]
    asked = np.full(len(ids), NOT_ASKED, np.int32)
    asked[chosen] = ids[chosen]
    fate, read = rng.random(len(chosen)), np.array(ids, np.int32)
    read[chosen[fate < MASKED]] = mask
    others = chosen[fate >= 1 - OTHER]
    read[others] = rng.choice(np.flatnonzero(text_V), len(others))
    return read, asked


class Masking:
    """`mask_pieces` of the source of every pair, decided by the pair's place in the run."""

    def __init__(self, tokenizer: Tokenizer, rate: float):
        """Takes the tokenizer, for its vocabulary and special ids, and the share of pieces to choose."""
        special = tokenizer.special
        others = {*special.hidden, *special.forbidden, *special.source_prefix, *special.source_suffix}
        others |= {special.pad, special.unk, special.start, special.end}
        self._text_V = np.ones(tokenizer.source_vocab, bool)
        self._text_V[[i for i in others if i < tokenizer.source_vocab]] = False
        self._mask, self._rate = special.start, rate

    def __call__(
        self, numbered: tuple[dict[str, np.ndarray], int], rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Returns the pair of (pair {"src": ids, ...}, epoch) with pieces masked, and asked for in "tgt"."""
        pair, _ = numbered
        read, asked = mask_pieces(pair["src"], self._text_V, self._mask, self._rate, rng)
        return pair | {"src": read, "tgt": asked}
