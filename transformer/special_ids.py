"""Ids that are no text: those of tokenizers trained here, and what others' models have in their places."""

from typing import NamedTuple

PAD_ID, UNK_ID, BOS_ID, EOS_ID = 0, 1, 2, 3


class SpecialIds(NamedTuple):
    """What ids mean and what stands around a sentence; the defaults are those of tokenizers trained here.

    Attributes:
      pad: fills rows up; never inside a sentence.
      unk: a piece that the vocabulary has not.
      start: begins the decoder's input.
      end: ends every target.
      forbidden: never part of an output.
      source_prefix: before the pieces of every source.
      source_suffix: after them.
      target_prefix: every target begins with them.
      hidden: no text, left out when ids become text.
      forced: whether the search is given the target's prefix, or has to find it.
    """

    pad: int = PAD_ID
    unk: int = UNK_ID
    start: int = BOS_ID
    end: int = EOS_ID
    forbidden: tuple[int, ...] = (PAD_ID, BOS_ID)
    source_prefix: tuple[int, ...] = ()
    source_suffix: tuple[int, ...] = (EOS_ID,)
    target_prefix: tuple[int, ...] = ()
    hidden: tuple[int, ...] = (PAD_ID, BOS_ID, EOS_ID)
    forced: bool = True

    @property
    def given(self) -> tuple[int, ...]:
        """What every output begins with and is not asked for, so that it has no probability."""
        return self.target_prefix if self.forced else ()
