"""How a link ended when several threads notice it: the operating system tells only one of them what broke it."""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sockio.common import ConnectionLostError
from tests.clauses import clause
from tests.flavours import Flavour, Py2, Sio, Sock, eventually
from tests.peers import Peer, failing


class Socket(socket.socket):
    """A link's socket, whose system calls a test can replace."""

    def __init__(self, link: Any) -> None:
        super().__init__(fileno=link.sock.detach())
        self.setblocking(False)
        link.sock, link.send, link.recv = self, self.send, self.recv

    def has_told(self, code: int = 0) -> None:
        """The operating system has told what broke the connection, and tells ``code`` from now on."""
        self.getsockopt = lambda *_: code  # type: ignore[method-assign,assignment]
        self.getpeername = failing(errno.ENOTCONN)  # type: ignore[method-assign]


@pytest.fixture(params=[pytest.param(Sio, marks=clause("E3")), Py2], ids=lambda each: each.variant)
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    """The flavours in which any thread may notice the end."""
    with request.param() as flavour:
        yield flavour


@pytest.fixture
def sock(flavour: Flavour, peer: Peer) -> Sock:
    """An open object."""
    sock = flavour.tcp(peer.host, peer.port, auto_reconnect=False)
    sock.open()
    return sock


@pytest.fixture
def link(sock: Sock) -> Any:
    """Its link."""
    return sock.raw._link


def test_a_reader_that_finds_nothing_more_waits_for_the_thread_that_was_told_why(link: Any, peer: Peer) -> None:
    system = Socket(link)
    asked = system.getsockopt
    reader = threading.Thread(target=link.receive)

    def getsockopt(*args: int) -> int:
        code: int = asked(*args)
        if code:
            reader.start()
            reader.join(0.1)  # it must not come to an end of its own meanwhile
        return code and errno.ETIMEDOUT

    system.getsockopt = getsockopt  # type: ignore[method-assign,assignment]
    other_end = peer.accept()
    other_end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other_end.close()
    eventually(link.notice)
    reader.join()
    assert link.cause.errno == errno.ETIMEDOUT


def test_what_a_call_was_told_is_not_guessed_by_another_thread(link: Any) -> None:
    system = Socket(link)
    system.has_told()
    link.peer_gone = lambda: True
    link.recv = system.recv = failing(errno.ETIMEDOUT, before=lambda: link.notice())  # type: ignore[method-assign]
    link.receive()
    assert link.cause.errno == errno.ETIMEDOUT


def test_the_end_that_nobody_can_be_asked_about_is_a_reset(link: Any) -> None:
    Socket(link).has_told()
    link.tell_why()
    assert isinstance(link.cause, ConnectionResetError)


def test_what_is_reset_after_its_end_has_ended_cleanly(link: Any) -> None:
    Socket(link).has_told(errno.EPIPE)
    link.tell_why()
    assert link.ended
    assert link.cause is None


def test_a_write_into_a_broken_link_says_what_broke_it(sock: Sock, link: Any) -> None:
    Socket(link).has_told(errno.ETIMEDOUT)
    link.send = failing(errno.EPIPE, before=lambda: setattr(link, "peer_gone", lambda: True))
    with pytest.raises(ConnectionLostError) as caught:
        sock.write(b"*RST\n")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ETIMEDOUT
