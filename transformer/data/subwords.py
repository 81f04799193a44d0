"""Subword regularisation: now and then a training piece falls into the two pieces that make it up.

The idea is BPE-dropout's (Provilkov et al. 2020), and subword regularisation's before it (Kudo 2018):
a model that sees a sentence segmented in many ways learns it by heart less. Those segment the text
anew; this works on ids, so that text is encoded once, and for both BPE and unigram models.
"""

from collections.abc import Sequence

import numpy as np

from transformer.data.tokenizer import Tokenizer


def split_table(pieces: Sequence[str], scores: Sequence[float]) -> np.ndarray:
    """Returns for each piece the ids of the two pieces it falls into, int32 [V, 2]; -1 where there are none.

    Of all pairs of pieces whose spellings join to the piece's, the one whose worse score is best: in
    a BPE model, whose scores are the order of its merges, the pair that was complete first, which
    is nearly always the merge itself (93 % of 10,000 pieces of Multi30k). Single characters belong to
    every alphabet and count as the best.

    Args:
      pieces: spellings; empty for special pieces, which never fall apart and are no parts.
      scores: SentencePiece's, higher for pieces that are more frequent or were merged earlier.
    """
    ids = {piece: i for i, piece in enumerate(pieces) if piece}
    worth = {p: scores[i] if len(p) > 1 else np.inf for p, i in ids.items()}
    table = np.full((len(pieces), 2), -1, np.int32)
    for piece, i in ids.items():
        splits = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        whole = [(a, b) for a, b in splits if a in ids and b in ids]
        if whole:
            first, second = max(whole, key=lambda pair: min(worth[pair[0]], worth[pair[1]]))
            table[i] = ids[first], ids[second]
    return table


def split_pieces(
    ids: np.ndarray, table: np.ndarray, rate: float, rng: np.random.Generator, longest: int
) -> np.ndarray:
    """Lets each piece fall into its two parts with probability `rate`, and each part again.

    Args:
      ids: int32 [length], at most `longest` of them.
      table: `split_table` of their vocabulary.
      rate: probability, 0 to 1.
      rng: decides.
      longest: a sentence that would outgrow it stays as far apart as it was before it did.
    """
    falls = rng.random(len(ids)) < rate
    while True:
        falls &= table[ids, 0] >= 0
        if not falls.any() or len(ids) + falls.sum() > longest:
            return ids
        grown = np.repeat(ids, 1 + falls)
        left = np.flatnonzero(falls) + np.arange(falls.sum())
        grown[left], grown[left + 1] = table[ids[falls]].T
        falls = np.zeros(len(grown), bool)
        falls[left] = falls[left + 1] = True
        falls &= rng.random(len(grown)) < rate
        ids = grown


class SubwordDropout:
    """`split_pieces` on both sides of every pair, decided by the pair's place in the run."""

    def __init__(self, tokenizer: Tokenizer, rate: float, longest: int, epochs: int = 0):
        """Args: as for `split_pieces`; `epochs` after which pieces stay whole, 0: never."""
        self._tables = {
            "src": split_table(*tokenizer.source_vocabulary()),
            "tgt": split_table(*tokenizer.target_vocabulary()),
        }
        self._rate, self._longest, self._epochs = rate, longest, epochs

    def __call__(
        self, numbered: tuple[dict[str, np.ndarray], int], rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Returns the pair of (pair {"src": ids, "tgt": ids, ...}, epoch) with some pieces fallen apart."""
        pair, epoch = numbered
        if self._epochs and epoch >= self._epochs:
            return pair
        return pair | {
            side: split_pieces(pair[side], table, self._rate, rng, self._longest)
            for side, table in self._tables.items()
        }
