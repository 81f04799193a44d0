"""The processes of a run keep watch over one another: short messages over TCP, all by way of process 0.

JAX alone does not do: its coordination service aborts the process with a C++ stack when process 0 dies
or somebody does not come, and notices a stopped process only after minutes, while the others hang in a
collective. So a thread here listens, and ends its process with one line and an exit code (6, or the
code of the process that stopped with a user's error). Nothing in this module knows JAX.
"""

import contextlib
import os
import selectors
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from transformer.errors import PeerLost
from transformer.io.channel import Channel

# A process that hears of another's user error (a bad checkpoint, say) mostly finds the same error
# itself a moment later, and then says it better.
_GRACE = 2.0
_LONGEST_PAUSE = 1.0  # seconds between two beats, at most

Heard = TypeVar("Heard")


class Peers:
    """This process among the processes of a run; the watch runs from the start until `close`.

    Attributes:
      index: this process.
      hosts: host name of every process.
      heartbeat: seconds of silence after which a process counts as lost.
    """

    def __init__(self, index: int, hosts: Sequence[str], heartbeat: float, channels: list[Channel]) -> None:
        """Starts the watch.

        Args:
          index: this process.
          hosts: host name of every process.
          heartbeat: seconds of silence after which a process counts as lost.
          channels: to all the others (process 0), or to process 0.
        """
        self.index, self.hosts = index, list(hosts)
        self.heartbeat = heartbeat
        self._channels = {channel.index: channel for channel in channels}
        self._news = threading.Condition()
        self._texts: dict[str, dict[int, str]] = {}
        self._replies: dict[str, str] = {}
        self._meetings = 0
        self._ending = False
        for channel in channels:
            channel.wait_at_most(heartbeat)
            channel.heard = time.monotonic()
        threading.Thread(target=self._watch, name="peers", daemon=True).start()

    def name(self, index: int) -> str:
        """Returns ``process 1 of 4 on HOST``."""
        return f"process {index} of {len(self.hosts)} on {self.hosts[index]}"

    def meet(self, name: str, text: str = "", judge: Callable[[list[str]], str] = lambda texts: "") -> str:
        """Waits until every process is here, and returns what process 0 replies to all of them.

        All processes must come to the same meetings in the same order. Who is lost meanwhile ends the
        process, as always.

        Args:
          name: of the meeting.
          text: what this process says.
          judge: called on process 0 alone, with every process's text in order; returns the reply.
        """
        self._meetings += 1
        key = f"{self._meetings} {name}"
        if self.index:
            self._tell(kind="text", name=key, text=text)
            return self._wait_for(lambda: self._replies.pop(key, None))
        others = range(1, len(self.hosts))
        with self._news:
            texts = self._texts.setdefault(key, {})
        self._wait_for(lambda: True if len(texts) == len(others) else None)
        reply = judge([text, *(texts[i] for i in others)])
        del self._texts[key]
        self._tell(kind="reply", name=key, text=reply)
        return reply

    def leave(self, message: str, code: int) -> None:
        """Tells the others that this process stops, and why; they will end too.

        Args:
          message: one line.
          code: exit code that the others take.
        """
        self._ending = True
        self._tell(kind="end", message=f"{self.name(self.index)} stopped: {message}", code=code, grace=_GRACE)

    def close(self) -> None:
        """Ends the watch after a common end."""
        self._ending = True
        self._tell(kind="bye")

    def _tell(self, besides: int | None = None, **message: Any) -> None:
        for channel in list(self._channels.values()):
            if channel.index != besides:
                channel.send(**message)

    def _wait_for(self, found: Callable[[], Heard | None]) -> Heard:
        with self._news:
            while (value := found()) is None:
                self._news.wait()
        return value

    def _watch(self) -> None:
        pause = min(self.heartbeat / 4, _LONGEST_PAUSE)
        with selectors.DefaultSelector() as selector:
            for channel in self._channels.values():
                selector.register(channel, selectors.EVENT_READ, channel)
            before = beat_at = time.monotonic()
            while self._channels:
                for key, _ in selector.select(pause):
                    if not self._hear(key.data):
                        selector.unregister(key.data)
                        key.data.close()
                        del self._channels[key.data.index]
                now = time.monotonic()
                late, before = now - before - pause, now
                if now >= beat_at:
                    self._tell(kind="beat")
                    beat_at = now + pause
                self._check_silence(now, late)

    def _check_silence(self, now: float, late: float) -> None:
        for channel in list(self._channels.values()):
            if late > self.heartbeat / 2:  # it was this process that stood still
                channel.heard = now
            if now - channel.heard > self.heartbeat and not self._ending:
                self._lost(channel.index, f"has been silent for {self.heartbeat:g} s")

    def _hear(self, channel: Channel) -> bool:
        """Acts on what came; returns whether more may come."""
        messages = channel.receive()
        if messages is None:
            if not self._ending:
                self._lost(channel.index, "is gone: its connection closed")
            return False
        for message in messages:
            match message["kind"]:
                case "text":
                    with self._news:
                        self._texts.setdefault(message["name"], {})[channel.index] = message["text"]
                        self._news.notify_all()
                case "reply":
                    with self._news:
                        self._replies[message["name"]] = message["text"]
                        self._news.notify_all()
                case "end":
                    self._end(channel.index, **message)
                case "bye":
                    return False
        return True

    def _lost(self, index: int, how: str) -> None:
        message = f"{self.name(index)} {how}; run the same command again to continue from the last checkpoint"
        self._end(index, message=message, code=PeerLost.exit_code, grace=0.0)

    def _end(self, index: int, message: str, code: int, grace: float, kind: str = "end") -> None:
        if self._ending:
            return
        self._ending = True
        if not self.index:
            self._tell(besides=index, kind=kind, message=message, code=code, grace=grace)
        if not grace:
            _exit(message, code)
        timer = threading.Timer(grace, _exit, (message, code))
        timer.daemon = True
        timer.start()


def _exit(message: str, code: int) -> NoReturn:
    """Ends the process whatever its other threads do; the main one may hang in a collective for ever."""
    start = "\n" if os.isatty(2) else ""  # below the progress line
    with contextlib.suppress(OSError):
        os.write(2, f"{start}transformer: error: {message}\n".encode())
    os._exit(code)
