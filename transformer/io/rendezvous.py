"""How the processes of a run find one another: process 0 opens a port, the others knock."""

import contextlib
import os
import socket
import time
from typing import Any

from transformer.errors import ConfigError, PeerLost
from transformer.io.channel import Channel
from transformer.io.peers import Peers


def gather(address: str, index: int, count: int, heartbeat: float, timeout: float) -> Peers:
    """Brings the processes of a run together.

    JAX's own start would abort with a C++ stack where somebody does not come.

    Args:
      address: ``HOST:PORT`` where process 0 listens.
      index: this process.
      count: number of processes; two at least.
      heartbeat: seconds of silence after which a process counts as lost; that of process 0 holds.
      timeout: seconds to wait for the others.

    Raises:
      ConfigError: an address or a port that cannot be used, or processes that do not fit together.
      PeerLost: somebody did not come in time.
    """
    host, _, digits = address.rpartition(":")
    host = host.strip("[]")
    if not host or not digits.isdecimal() or not 0 < int(digits) < 65536:
        raise ConfigError(f"--coordinator {address}: must be HOST:PORT, for example node1:12345")
    hello = {"index": index, "count": count, "host": socket.gethostname()}
    deadline = time.monotonic() + timeout
    if index:
        return _join(host, int(digits), hello, deadline)
    with _listen(host, int(digits)) as listener:
        return _host(listener, hello, heartbeat, deadline)


def _listen(host: str, port: int) -> socket.socket:
    try:
        if host in ("localhost", "127.0.0.1"):
            return socket.create_server(("127.0.0.1", port))
        if socket.has_dualstack_ipv6():
            with contextlib.suppress(OSError):
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigError(
            f"--coordinator {host}:{port}: process 0 cannot listen there: {why}; choose another port "
            "(on a cluster: set JAX_COORDINATOR_PORT, the same for all processes)"
        ) from error


def _host(listener: socket.socket, hello: dict[str, Any], heartbeat: float, deadline: float) -> Peers:
    """Process 0 waits for all others and bids them welcome together."""
    count, hosts = hello["count"], {0: hello["host"]}
    greeted: list[Channel] = []
    channels: dict[int, Channel] = {}
    waited = deadline - time.monotonic()
    try:
        while len(channels) < count - 1:
            listener.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                sock, _ = listener.accept()
            except TimeoutError:
                missing = [str(i) for i in range(1, count) if i not in channels]
                some = ", ".join(missing[:8]) + (" ..." if len(missing) > 8 else "")
                raise PeerLost(
                    f"of {count} processes these did not come within {waited:.0f} s: {some}; "
                    "see what they wrote, and whether they were given the same --coordinator"
                ) from None
            channel = Channel(sock, 0)
            try:
                index, theirs, host = _greet(channel)
            except (OSError, ValueError, KeyError):
                channel.close()  # a stranger at the door
                continue
            greeted.append(channel)
            before = channels.get(index)
            if theirs != count:
                raise ConfigError(
                    f"--num_processes is {theirs} in process {index} on {host}, but {count} in process 0"
                )
            if index == 0 or (before and not before.has_hung_up()):
                raise ConfigError(
                    f"--process_id {index} was given to two processes, on {hosts[index]} and {host}"
                )
            channels[index], hosts[index] = channel, host
    except (ConfigError, PeerLost) as error:
        for channel in greeted:
            channel.send(refused=str(error), code=error.exit_code)
            channel.close()
        raise
    names = [hosts[i] for i in range(count)]
    for channel in channels.values():
        channel.send(hosts=names, heartbeat=heartbeat)
    return Peers(0, names, heartbeat, list(channels.values()))


def _greet(channel: Channel) -> tuple[int, int, str]:
    """Returns index, number of processes and host name that the other end says first."""
    channel.wait_at_most(2)
    hello = channel.first()
    channel.index = int(hello["index"])
    return channel.index, int(hello["count"]), str(hello["host"])


def _join(host: str, port: int, hello: dict[str, Any], deadline: float) -> Peers:
    """Every other process knocks until process 0 opens, then waits for its welcome."""
    waited, why = deadline - time.monotonic(), "nobody listens"
    while (left := deadline - time.monotonic()) > 0:
        try:
            return _knock(host, port, hello, left)
        except OSError as error:
            why = error.strerror or "no answer"
        except (ValueError, KeyError):
            why = "what answers is no process of a run"
        time.sleep(0.1)
    raise PeerLost(
        f"--coordinator {host}:{port}: process 0 cannot be reached there from {hello['host']}, "
        f"tried for {waited:.0f} s ({why}); is it running, and is the address the same for all processes?"
    )


def _knock(host: str, port: int, hello: dict[str, Any], left: float) -> Peers:
    sock = socket.create_connection((host, port), timeout=min(left, 10))
    with contextlib.ExitStack() as undo:
        undo.callback(sock.close)
        channel = Channel(sock, 0)
        channel.send(**hello)
        # Process 0 gives up first and says who is missing.
        channel.wait_at_most(left + 5)
        welcome = channel.first()
        if "refused" in welcome:
            kind = ConfigError if welcome["code"] == ConfigError.exit_code else PeerLost
            raise kind(welcome["refused"])
        peers = Peers(hello["index"], welcome["hosts"], welcome["heartbeat"], [channel])
        undo.pop_all()
        return peers
