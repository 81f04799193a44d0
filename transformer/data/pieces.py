"""One side of a tokenizer: a SentencePiece model or byte pairs, and the ids of its pieces."""

import re
from collections.abc import Sequence

import sentencepiece as spm

from transformer.data.byte_pairs import BytePairs, text
from transformer.errors import DataError
from transformer.special_ids import BOS_ID, EOS_ID, PAD_ID, UNK_ID, SpecialIds

# Names the target language before a source, as multilingual Marian and MADLAD-400 have it.
_LANGUAGE = re.compile(r">>[^<>]+<<|<2[^<>]+>")


class Pieces:
    """Text to piece ids and back, without what stands around a sentence."""

    def __init__(self, model: bytes, name: str, special: SpecialIds, spellings: Sequence[str] | None = None):
        """Takes a serialised model and, where ids are not the model's own, the spelling of each id.

        Args:
          model: of SentencePiece, or byte pairs.
          name: of the side, for messages.
          special: what ids mean.
          spellings: a piece for each id; empty where an id has none. None: ids are the model's.

        Raises:
          DataError: if the model cannot be read, or has special ids of its own that are not ours.
        """
        self._special = special
        self._spellings = None if spellings is None else tuple(spellings)
        self._ids = {piece: i for i, piece in enumerate(spellings or ()) if piece}
        self._byte_pairs = BytePairs(model, name) if BytePairs.recognises(model) else None
        if self._byte_pairs is not None:
            if spellings is None:
                raise DataError(f"tokenizer {name}: byte pairs need a piece for each id; import it anew")
            return
        self._processor = p = _processor(model, name)
        ids, ours = (p.pad_id(), p.unk_id(), p.bos_id(), p.eos_id()), (PAD_ID, UNK_ID, BOS_ID, EOS_ID)
        if spellings is None and ids != ours:
            raise DataError(
                f"tokenizer {name}: pad, unk, bos, eos are {ids}, expected {ours}; "
                "use a model that this program trained or imported"
            )

    def __len__(self) -> int:
        return len(self._spellings) if self._spellings is not None else self._processor.get_piece_size()

    @property
    def word_start(self) -> str:
        """What a word begins with that is not the first of a text."""
        return " " if self._byte_pairs is not None else ""  # SentencePiece begins every text with it

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """Returns the ids of each line's pieces."""
        if self._spellings is None:
            return self._processor.encode(list(lines))
        marks = [self.language(line) for line in lines]
        rest = [line[len(mark) :] for line, mark in zip(lines, marks, strict=True)]
        pieces = self._cut(rest)
        return [
            [self._ids.get(piece, self._special.unk) for piece in ([mark, *line] if mark else line)]
            for mark, line in zip(marks, pieces, strict=True)
        ]

    def decode(self, sentences: Sequence[Sequence[int]]) -> list[str]:
        """Returns the text of each list of ids."""
        if self._spellings is None:
            return self._processor.decode([list(ids) for ids in sentences])
        hidden = set(self._special.hidden)
        kept = [[self._spellings[i] for i in ids if i not in hidden] for ids in sentences]
        if self._byte_pairs is not None:
            return [text(pieces).strip() for pieces in kept]
        return [line.strip() for line in self._processor.decode(kept)] if kept else []

    def spelling(self, i: int) -> str:
        """Returns the piece's own spelling."""
        return self._processor.id_to_piece(i) if self._spellings is None else self._spellings[i]

    def vocabulary(self) -> tuple[list[str], list[float]]:
        """Returns spelling (empty for special pieces and bytes) and score of every id."""
        if self._byte_pairs is not None:
            assert self._spellings is not None
            out = {self._special.unk, *self._special.hidden}
            pieces = ["" if i in out else piece for i, piece in enumerate(self._spellings)]
            return pieces, [self._byte_pairs.score(piece) for piece in pieces]
        p = self._processor
        unknown = p.unk_id()
        ids = range(len(self)) if self._spellings is None else [p.piece_to_id(s) for s in self._spellings]
        special = [i == unknown or p.is_control(i) or p.is_byte(i) for i in ids]
        pieces = ["" if out else p.id_to_piece(i) for i, out in zip(ids, special, strict=True)]
        return pieces, [p.get_score(i) for i in ids]

    def _cut(self, lines: Sequence[str]) -> list[list[str]]:
        if self._byte_pairs is not None:
            return [self._byte_pairs.pieces(line) for line in lines]
        return self._processor.encode(list(lines), out_type=str)

    def language(self, line: str) -> str:
        """Returns the mark of a target language that a source begins with; empty if there is none."""
        found = _LANGUAGE.match(line)
        return found[0] if found and found[0] in self._ids else ""


def piece_list(model: bytes) -> list[str]:
    """Returns the pieces of a serialised model in its order.

    Raises:
      DataError: if it cannot be read.
    """
    processor = _processor(model, "")
    return [processor.id_to_piece(i) for i in range(processor.get_piece_size())]


def _processor(model: bytes, name: str) -> spm.SentencePieceProcessor:
    try:
        return spm.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise DataError(f"tokenizer {name}: not a SentencePiece model ({error})") from None
