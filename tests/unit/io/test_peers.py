"""How processes find one another, talk, and notice that one is gone; without JAX."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from transformer.errors import ConfigError, DataError, PeerLost, UserError
from transformer.io.peers import Peers
from transformer.io.processes import Processes, start
from transformer.io.relay import relay
from transformer.io.rendezvous import gather

Result = TypeVar("Result")
HEARTBEAT = 2.0


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"localhost:{probe.getsockname()[1]}"


def in_threads(*works: Callable[[], Result]) -> list[Result | UserError]:
    """Returns what each returns or raises, all at work at the same time."""
    results: list[Result | UserError] = [UserError("never came back")] * len(works)

    def run(i: int) -> None:
        try:
            results[i] = works[i]()
        except UserError as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_meetings_carry_every_text_to_process_0_and_its_reply_to_all():
    address = free_address()

    def work(index: int) -> list[str]:
        peers = gather(address, index, 3, HEARTBEAT, 10)
        replies = [
            peers.meet("one", f"from {index}", " + ".join),
            peers.meet("two", "x" * 200_000 * index, lambda texts: str([len(t) for t in texts])),
        ]
        if index == 1:
            time.sleep(0.3)  # nobody is lost who only takes longer
        peers.meet("end")
        peers.close()
        return replies

    expected = ["from 0 + from 1 + from 2", "[0, 200000, 400000]"]
    assert in_threads(*(lambda i=i: work(i) for i in range(3))) == [expected] * 3


def test_process_0_may_come_last_and_strangers_do_not_disturb():
    address = free_address()
    port = int(address.partition(":")[2])

    def late() -> Peers:
        time.sleep(0.3)
        return gather(address, 0, 2, HEARTBEAT, 10)

    def stranger() -> None:
        time.sleep(0.4)
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"{}\n", b""):
            try:
                with socket.create_connection(("127.0.0.1", port)) as sock:
                    sock.sendall(said)
            except OSError:
                return  # the door is shut: everybody is there

    both = in_threads(late, lambda: gather(address, 1, 2, HEARTBEAT, 10), stranger)[:2]
    for peers in both:
        assert isinstance(peers, Peers)
        assert peers.name(1) == f"process 1 of 2 on {socket.gethostname()}"
        peers.close()


def test_who_does_not_come_is_named_to_all():
    address = free_address()
    results = in_threads(*(lambda i=i: gather(address, i, 4, HEARTBEAT, 0.7) for i in (0, 2)))
    assert [type(r) for r in results] == [PeerLost] * 2
    assert all("of 4 processes these did not come within 1 s: 1, 3" in str(r) for r in results)


def test_unreachable_process_0_is_one_line_in_time():
    start = time.monotonic()
    with pytest.raises(PeerLost, match=r"process 0 cannot be reached there .*refused"):
        gather(free_address(), 1, 2, HEARTBEAT, 0.5)
    assert time.monotonic() - start < 3


def test_something_else_at_the_address_is_no_process_0():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = server.accept()
                    with sock:
                        sock.sendall(b"SSH-2.0-OpenSSH\r\n")

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(PeerLost, match="what answers is no process of a run"):
            gather(f"localhost:{server.getsockname()[1]}", 1, 2, HEARTBEAT, 0.3)


@pytest.mark.parametrize(
    ("others", "says"),
    [
        ([(1, 2)], "--num_processes is 2 in process 1"),
        ([(1, 3), (1, 3)], "--process_id 1 was given to two processes"),
    ],
)
def test_processes_that_do_not_fit_together_are_refused(others: list[tuple[int, int]], says: str):
    address = free_address()
    results = in_threads(
        lambda: gather(address, 0, 3, HEARTBEAT, 5),
        *(lambda i=i, n=n: gather(address, i, n, HEARTBEAT, 5) for i, n in others),
    )
    assert [type(r) for r in results] == [ConfigError] * len(results)
    assert all(says in str(r) for r in results)


def test_a_port_that_is_taken_is_refused():
    says = "cannot listen there: Address already in use; choose another"
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(ConfigError, match=says):
        gather(f"localhost:{server.getsockname()[1]}", 0, 2, HEARTBEAT, 1)


@pytest.mark.parametrize("address", ["node1", "node1:", ":80", "node1:99999", "node1:http"])
def test_address_that_is_none_is_refused(address: str):
    with pytest.raises(ConfigError, match="must be HOST:PORT"):
        gather(address, 0, 2, HEARTBEAT, 1)


PROGRAM = """
import sys, time
from transformer.io.rendezvous import gather
address, index, what = sys.argv[1], int(sys.argv[2]), sys.argv[3]
peers = gather(address, index, 3, 2.0, 30)
print("there", flush=True)
if what == "leaves" and index == 1:
    peers.leave("no corpus", 3)
    raise SystemExit(3)
if what == "meets":
    peers.meet("never")
time.sleep(30)
"""


def three(what: str) -> list[subprocess.Popen[str]]:
    address = free_address()
    command = [sys.executable, "-c", PROGRAM, address]
    processes = [
        subprocess.Popen([*command, str(i), what], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for i in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
    return processes


@pytest.mark.parametrize(
    ("what", "victim", "number", "how"),
    [
        ("sleeps", 1, signal.SIGKILL, "is gone: its connection closed"),
        ("meets", 0, signal.SIGKILL, "is gone: its connection closed"),
        ("meets", 1, signal.SIGSTOP, "has been silent for 2 s"),
        ("sleeps", 0, signal.SIGSTOP, "has been silent for 2 s"),
    ],
)
def test_others_leave_when_one_is_lost(what: str, victim: int, number: int, how: str):
    processes = three(what)
    processes[victim].send_signal(number)
    start = time.monotonic()
    try:
        for i, process in enumerate(processes):
            if i != victim:
                _, err = process.communicate(timeout=20)
                assert process.returncode == 6
                assert err.startswith(
                    f"transformer: error: process {victim} of 3 on {socket.gethostname()} {how}"
                )
                assert err.count("\n") == 1
        assert time.monotonic() - start < HEARTBEAT + 5
    finally:
        processes[victim].kill()
        processes[victim].communicate()


def test_others_take_the_code_of_one_that_stops_with_a_users_error():
    processes = three("leaves")
    errors = [process.communicate(timeout=20)[1] for process in processes]
    assert [process.returncode for process in processes] == [3, 3, 3]
    line = f"transformer: error: process 1 of 3 on {socket.gethostname()} stopped: no corpus\n"
    assert errors == [line, "", line]


def test_facts_that_differ_are_refused_on_all_with_process_key_and_both_values():
    address = free_address()

    def work(index: int) -> str:
        processes = Processes(index, 3, gather(address, index, 3, HEARTBEAT, 10))
        processes.agree({"same": "1"})
        try:
            processes.agree({"same": "1"} | ({"only here": "2"} if index == 2 else {}))
        except ConfigError as error:
            return str(error)
        finally:
            processes.barrier("end")
            assert processes.peers is not None
            processes.peers.close()
        return "went on"

    host = socket.gethostname()
    message = (
        f"process 2 of 3 on {host} differs in only here: '2', but 'absent' in process 0 on {host}; "
        "start all processes with the same command, code and data"
    )
    assert in_threads(*(lambda i=i: work(i) for i in range(3))) == [message] * 3


def test_one_process_alone_starts_nothing_and_agrees_with_itself():
    before = threading.active_count()
    with start(None, None, None) as processes:
        processes.agree({"a": "b"})
        processes.barrier("c")
        assert processes.first
    assert threading.active_count() == before


def test_error_of_one_process_alone_passes():
    with pytest.raises(DataError), start("localhost:1", 1, 0):
        raise DataError("x")


def test_relay_passes_bytes_on_and_hides_that_the_far_end_is_gone():
    server = socket.create_server(("127.0.0.1", 0))
    port = relay("127.0.0.1", server.getsockname()[1], timeout=5)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as near:
        far, _ = server.accept()
        near.sendall(b"there")
        assert far.recv(9) == b"there"
        far.sendall(b"back")
        assert near.recv(9) == b"back"
        far.close()
        server.close()
        near.settimeout(0.3)
        near.sendall(b"into nothing")
        near.sendall(b"and again")
        with pytest.raises(TimeoutError):
            near.recv(9)
