"""The one form in which data reaches the model."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

NOT_ASKED = -1  # in place of a target id of an encoder alone, where no answer is asked for


class Batch(NamedTuple):
    """Six int32 arrays (NumPy on the host, JAX on devices).

    Segment 0 is padding; equal numbers mark one sentence pair, across source and target. Positions
    count from 0 within each sentence. The target of an encoder alone is, position by position, what its
    answer should be, and padding where nothing is asked. Sources that are no text are float32 [B, S, C], C
    numbers a frame, and zeros in padding.
    """

    src_BS: Any
    src_seg_BS: Any
    src_pos_BS: Any
    tgt_BT: Any
    tgt_seg_BT: Any
    tgt_pos_BT: Any


def only_asked(batch: Batch) -> Batch:
    """Returns `batch` with padding in place of `NOT_ASKED`."""
    asked_BT = batch.tgt_BT != NOT_ASKED
    target = (x * asked_BT for x in (batch.tgt_BT, batch.tgt_seg_BT, batch.tgt_pos_BT))
    return Batch(*batch[:3], *target)


def pad_rows(batch: Batch, multiple: int) -> Batch:
    """Returns `batch` with rows of padding added until their number is a multiple of `multiple`.

    So the same sentences make a step on any number of devices.
    """
    extra = -len(batch.src_BS) % multiple
    return Batch(*(np.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1)) for x in batch)) if extra else batch


def pack_rows(
    packed: Sequence[Sequence[tuple[Any, Any]]], rows: int, length: int, target_length: int | None = None
) -> Batch:
    """Returns a batch whose row i holds the pairs `packed[i]`, one after the other.

    It has `rows` rows of `length` positions, which may be none where there are no sources, and of the target
    `target_length` if that is given.
    """
    arrays = []
    for side, size in enumerate((length, length if target_length is None else target_length)):
        frame = next((np.shape(pair[side])[1:] for pairs in packed for pair in pairs), ())
        ids = np.zeros((rows, size, *frame), np.float32 if frame else np.int32)
        seg, pos = (np.zeros((rows, size), np.int32) for _ in range(2))
        for i, pairs in enumerate(packed):
            start = 0
            for number, pair in enumerate(pairs, 1):
                n = len(pair[side])
                place = slice(start, start + n)
                ids[i, place], seg[i, place], pos[i, place] = pair[side], number, np.arange(n)
                start += n
        arrays += [ids, seg, pos]
    return only_asked(Batch(*arrays))
