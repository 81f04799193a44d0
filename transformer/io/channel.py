"""Short messages between two processes of a run."""

import contextlib
import errno
import json
import socket
import threading
import time
from typing import Any


class Channel:
    """JSON messages over a socket, one a line.

    Attributes:
      index: the process at the other end.
      heard: monotonic time of the last sign of life.
    """

    def __init__(self, sock: socket.socket, index: int) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.index, self.heard = index, time.monotonic()
        self._sock, self._rest, self._lock = sock, b"", threading.Lock()

    def fileno(self) -> int:
        """Returns the socket's descriptor, for `selectors`."""
        return self._sock.fileno()

    def wait_at_most(self, seconds: float) -> None:
        """Sets how long sending and receiving may take."""
        self._sock.settimeout(max(seconds, 0.01))

    def send(self, **message: Any) -> None:
        """Sends a message; to a process that is gone, nothing happens: the watch will see it."""
        with self._lock, contextlib.suppress(OSError):
            self._sock.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]] | None:
        """Returns the whole messages in the data that is there, or None if the other end hung up."""
        try:
            data = self._sock.recv(1 << 16)
        except OSError:
            return None
        if not data:
            return None
        self.heard = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def first(self) -> dict[str, Any]:
        """Waits for the first message, and takes nothing behind it.

        Raises:
          OSError: the other end hung up or took too long.
          ValueError: whoever is there does not speak JSON.
        """
        line = b""
        while not line.endswith(b"\n"):
            there = self._sock.recv(1 << 16, socket.MSG_PEEK)
            if not there:
                raise ConnectionResetError(errno.ECONNRESET, "it hung up")
            line += self._sock.recv(there.find(b"\n") + 1 or len(there))
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("no message")
        return message

    def has_hung_up(self) -> bool:
        """Returns whether the other end closed, without waiting and without taking data."""
        self._sock.setblocking(False)
        try:
            return not self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Hangs up."""
        self._sock.close()
