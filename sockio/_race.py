"""Addresses of a host, and the race between them: connecting without waiting.

A name's addresses race, staggered, so that a black-holed one costs a fraction of a second (RFC 8305, contract C7). Who
waits for the sockets under way, and how, is up to the caller. This module runs on Python 2.7 as well.
"""

import errno
import os
import socket
import sys
from collections import deque

if sys.version_info >= (3,):
    import typing as _t

    Address = _t.Tuple[socket.AddressFamily, _t.Any]

#: Seconds after which the next address is tried beside the one under way (RFC 8305, section 5: 250 ms).
STAGGER = 0.25

_CONNECTING = {errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", errno.EWOULDBLOCK)}


def lookup(host, port, flags=0):
    # type: (str, int, int) -> _t.List[Address]
    """Return the addresses of a host, families alternating, as the operating system orders them.

    Raises:
        socket.gaierror: there are none
        ValueError: no name can be like that: a label is empty, or too long
    """
    try:
        if sys.version_info >= (3,):
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
        else:  # Python 2.7 knows no keywords here
            found = socket.getaddrinfo(host.encode("idna"), port, 0, socket.SOCK_STREAM, 0, flags)
    except UnicodeError as exc:
        raise ValueError("host {!r} can't be a name: {}".format(host, exc))
    addresses = [(family, address) for family, _, _, _, address in found]  # type: _t.List[Address]
    first = [entry for entry in addresses if entry[0] == addresses[0][0]]
    other = [entry for entry in addresses if entry[0] != addresses[0][0]]
    shorter = min(len(first), len(other))
    alternating = [entry for pair in zip(first, other) for entry in pair]
    return alternating + first[shorter:] + other[shorter:]


class Race(object):
    """Connection attempts to several addresses, the next one starting when the last is late or has failed.

    Args:
        addresses: where to
        configure: sets a new socket's options
    """

    def __init__(self, addresses, configure):
        # type: (_t.List[Address], _t.Callable[[socket.socket], None]) -> None
        self._waiting = deque(addresses)
        self._configure = configure
        self._next_start = 0.0
        self._failures = []  # type: _t.List[OSError]
        self.connecting = []  # type: _t.List[socket.socket]

    def step(self, now):
        # type: (float) -> _t.Optional[socket.socket]
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
    def next_start(self):
        # type: () -> _t.Optional[float]
        """When ``step`` has something to start."""
        return self._next_start if self._waiting else None

    def close(self):
        # type: () -> None
        """Give up the attempts under way."""
        for sock in self.connecting:
            sock.close()

    def _start(self, family, address):
        # type: (socket.AddressFamily, _t.Any) -> None
        sock = None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            self.connecting.append(sock)
            sock.setblocking(False)
            self._configure(sock)
            code = sock.connect_ex(address)
            if code and code not in _CONNECTING:
                raise socket.error(code, "{}: {}".format(os.strerror(code), address[0]))
        except socket.error as exc:
            if sock is not None:
                self.connecting.remove(sock)
                sock.close()
            self._failures.append(exc)

    def _is_connected(self, sock):
        # type: (socket.socket) -> bool
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code:
            try:
                peer = sock.getpeername()
            except socket.error:
                return False
            if peer != sock.getsockname():
                return True
            # A client that dials a free port of its own host may be given that port, and reach itself.
            code = errno.ECONNREFUSED
        self.connecting.remove(sock)
        sock.close()
        self._failures.append(socket.error(code, os.strerror(code)))
        return False

    def _error(self):
        # type: () -> OSError
        first = self._failures[0]
        texts = []  # type: _t.List[str]
        for failure in self._failures:
            text = failure.strerror or str(failure)
            if text not in texts:
                texts.append(text)
        return type(first)(first.errno, "; ".join(texts))
