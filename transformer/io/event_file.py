"""Numbers for TensorBoard.

Written here and now, by the format's own messages. The usual writers hand them to a thread that dies when
the disk is full, and then wait for it for ever.
"""

import socket
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformer.io.patient_file import PatientFile

_PREFIX = "events.out.tfevents."


class EventFile(PatientFile):
    """The events of one process's life, in a file of their own as TensorBoard wants it."""

    def __init__(self, folder: Path, step: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begins a file that comes after all that are there; what they say of `step` and later is void.

        Args:
          folder: made when something is written.
          step: the first that will be written.
          clock: returns seconds that only grow.
        """
        # TensorBoard reads in the order of names; a clock that was set back must not turn that round.
        taken = [path.name.removeprefix(_PREFIX).partition(".")[0] for path in folder.glob(_PREFIX + "*")]
        stamp = max([int(time.time()), *(int(text) + 1 for text in taken if text.isdecimal())])
        name = f"{_PREFIX}{stamp:010d}.{socket.gethostname()}"
        super().__init__(folder / name, clock, head=_record(file_version="brain.Event:2"))
        self.begin_at(step)

    def begin_at(self, step: int) -> None:
        """Makes what was written about `step` and later void."""
        from tensorboardX.proto.event_pb2 import SessionLog

        self.append(_record(step=step, session_log=SessionLog(status=SessionLog.START)))

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Writes numbers by their tags; NaN and the infinities too."""
        from tensorboardX.proto.summary_pb2 import Summary

        pairs = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self.append(_record(step=step, summary=Summary(value=pairs)))

    def _write(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        super()._write(data)


def _record(**event: Any) -> bytes:
    """Returns an Event in the frame of a TFRecord: length, its checksum, message, its checksum."""
    from tensorboardX.proto.event_pb2 import Event  # half a second; commands that only read do without
    from tensorboardX.record_writer import masked_crc32c

    message = Event(wall_time=time.time(), **event).SerializeToString()
    length = struct.pack("<Q", len(message))
    sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, message))
    return length + next(sums) + message + next(sums)
