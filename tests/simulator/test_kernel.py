"""What the kernel tells about the bytes of a link."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest

from simulator import kernel

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs sock_diag")


@pytest.fixture(params=["127.0.0.1", "::1"])
def link(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    listening = socket.create_server((request.param, 0), family=family)
    with listening, socket.create_connection(listening.getsockname()[:2]) as client, listening.accept()[0] as server:
        yield server, client


@linux
def test_it_counts_what_the_peer_has_not_read(link: tuple[socket.socket, socket.socket]) -> None:
    server, client = link
    assert kernel.unread_by_peer(server) == 0
    server.sendall(b"12345")
    assert kernel.unacknowledged(server) == 0
    assert kernel.unread_by_peer(server) == 5
    client.recv(2)
    assert kernel.unread_by_peer(server) == 3


@linux
def test_it_counts_what_has_not_arrived(link: tuple[socket.socket, socket.socket]) -> None:
    server, _ = link
    server.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            server.send(bytes(2**16))
    assert (kernel.unacknowledged(server) or 0) > 0


def test_where_the_kernel_does_not_tell_nothing_is_known(
    link: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, _ = link
    monkeypatch.setattr(kernel, "SOCK_DIAG", 99)
    assert kernel.unacknowledged(server) is None
    assert kernel.unread_by_peer(server) is None


@linux
def test_a_socket_that_is_not_on_this_machine_is_unknown(link: tuple[socket.socket, socket.socket]) -> None:
    server, client = link
    host, _, *more = client.getsockname()
    elsewhere = host, 1, *more
    assert kernel._queues(server, elsewhere, server.getsockname()) is None
    assert kernel._queues(server, server.getsockname(), elsewhere) is None
