"""Dialling: from a host and a port to a connected socket.

Names are resolved on a daemon thread, so that a slow resolver holds up neither a deadline nor the interpreter's exit.
A name's addresses race, staggered, so that a black-holed one costs a fraction of a second (RFC 8305, contract C7).
The waiting is a ``Bell``'s: the same code dials in every flavour.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections import deque
from collections.abc import Callable
from itertools import chain, zip_longest
from typing import Any

from ._turns import Bell, Expired

#: Seconds after which the next address is tried beside the one under way (RFC 8305, section 5: 250 ms).
STAGGER = 0.25

Address = tuple[socket.AddressFamily, Any]
_CONNECTING = {errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK)}


def earliest(*deadlines: float | None) -> float | None:
    """Return the first of the deadlines to pass; ``None`` never does."""
    first = None
    for deadline in deadlines:
        if deadline is not None and (first is None or deadline < first):
            first = deadline
    return first


def lookup(host: str, port: int, flags: int = 0) -> list[Address]:
    """Return the addresses of a host, families alternating, as the operating system orders them.

    Raises:
        socket.gaierror: there are none
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    addresses = [(family, address) for family, _, _, _, address in found]
    first = [entry for entry in addresses if entry[0] == addresses[0][0]]
    other = [entry for entry in addresses if entry[0] != addresses[0][0]]
    return [entry for entry in chain.from_iterable(zip_longest(first, other)) if entry is not None]


async def resolve(
    find: Callable[..., list[Address]], host: str, port: int, bell: Bell, deadline: float | None
) -> list[Address] | None:
    """Return the addresses of a host name; ``None`` if somebody else rang the bell first.

    Args:
        bell: for this alone, as a resolver that is late rings, too

    Raises:
        Expired: the deadline passed first
        socket.gaierror: there are none
    """
    answers: list[list[Address] | BaseException] = []

    def ask() -> None:
        try:
            answers.append(find(host, port))
        except BaseException as exc:
            answers.append(exc)
        bell.ring_from_thread()

    threading.Thread(target=ask, name=f"sockio resolves {host}", daemon=True).start()
    if not await bell.wait(deadline):
        raise Expired
    if not answers:
        return None
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]


class Race:
    """Connection attempts to several addresses, the next one starting when the last is late or has failed.

    Args:
        addresses: where to
        configure: sets a new socket's options
    """

    def __init__(self, addresses: list[Address], configure: Callable[[socket.socket], None]) -> None:
        self._waiting = deque(addresses)
        self._configure = configure
        self._next_start = 0.0
        self._failures: list[OSError] = []
        self.connecting: list[socket.socket] = []

    def step(self, now: float) -> socket.socket | None:
        """Start what is due, and return a connected socket if there is one.

        Raises:
            OSError: no address is left
        """
        while True:
            for sock in list(self.connecting):
                if self._is_connected(sock):
                    self.connecting.remove(sock)
                    return sock
            if not self._waiting or (self.connecting and now < self._next_start):
                break
            self._next_start = now + STAGGER
            self._start(*self._waiting.popleft())
        if not self.connecting:
            raise self._error()
        return None

    @property
    def next_start(self) -> float | None:
        """When ``step`` has something to start."""
        return self._next_start if self._waiting else None

    def close(self) -> None:
        """Give up the attempts under way."""
        for sock in self.connecting:
            sock.close()

    def _start(self, family: socket.AddressFamily, address: Any) -> None:
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            self.connecting.append(sock)
            sock.setblocking(False)
            self._configure(sock)
            code = sock.connect_ex(address)
            if code and code not in _CONNECTING:
                raise OSError(code, f"{_text(code)}: {address[0]}")
        except OSError as exc:
            if sock is not None:
                self.connecting.remove(sock)
                sock.close()
            self._failures.append(exc)

    def _is_connected(self, sock: socket.socket) -> bool:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code:
            try:
                peer = sock.getpeername()
            except OSError:
                return False
            if peer != sock.getsockname():
                return True
            # A client that dials a free port of its own host may be given that port, and reach itself.
            code = errno.ECONNREFUSED
        self.connecting.remove(sock)
        sock.close()
        self._failures.append(OSError(code, _text(code)))
        return False

    def _error(self) -> OSError:
        first = self._failures[0]
        texts = dict.fromkeys(failure.strerror or str(failure) for failure in self._failures)
        return type(first)(first.errno, "; ".join(texts))


def _text(code: int) -> str:
    return os.strerror(code)
