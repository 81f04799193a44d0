"""A connection that is never seen to break.

JAX's client of the coordination service aborts its process with a C++ stack the moment the connection to
process 0 closes; neither a callback nor an option prevents that (jax 0.10 to 0.12). So the client connects
to a port of its own process, from where bytes are passed on; if the far end is gone, nothing more comes,
and who ends the process, and how, is for `peers` to say.
"""

import contextlib
import socket
import threading
import time

_CHUNK = 1 << 16


def relay(host: str, port: int, timeout: float) -> int:
    """Passes connections to a port of this process on to another host.

    Args:
      host: the far end.
      port: its port; somebody may begin to listen there only later.
      timeout: seconds to wait for that.

    Returns:
      The local port, open on the loopback interface alone.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(listener, host, port, timeout), name="relay", daemon=True).start()
    return listener.getsockname()[1]


def _serve(listener: socket.socket, host: str, port: int, timeout: float) -> None:
    while True:
        near, _ = listener.accept()
        try:
            far = _connect(host, port, timeout)
        except OSError:
            near.close()
            continue
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for pump in (_outward, _inward):
            threading.Thread(target=pump, args=(near, far), name="relay", daemon=True).start()


def _connect(host: str, port: int, timeout: float) -> socket.socket:
    deadline = time.monotonic() + timeout
    while True:
        try:
            far = socket.create_connection((host, port), timeout=timeout)
            far.settimeout(None)
            return far
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _outward(near: socket.socket, far: socket.socket) -> None:
    """Ends only when the near end closes; what a lost far end cannot take is dropped."""
    with near, far, contextlib.suppress(OSError):
        while data := near.recv(_CHUNK):
            with contextlib.suppress(OSError):
                far.sendall(data)


def _inward(near: socket.socket, far: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := far.recv(_CHUNK):
            near.sendall(data)
