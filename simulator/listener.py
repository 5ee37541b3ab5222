"""The port of an instrument: listening, refusing or hanging, and always the same number.

A port that refuses stays bound, so that nobody else gets it; bound without listening, it answers every connection with
a RST.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress

BACKLOG = 128


class Listener:
    """A listening socket that can stop listening.

    Args:
        host: name or address, IPv4 or IPv6.
        port: 0 for any free one; `port` tells which, and it stays the same from then on.

    Raises:
        OSError: the host cannot be resolved.
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            number, reason = getattr(error, "errno", None), getattr(error, "strerror", None) or error
            raise OSError(number, f"host {host!r} cannot be resolved ({reason}): use an address") from None
        self._family = found[0][0]
        self._address = found[0][4]
        self.port = port
        self.socket: socket.socket | None = None
        self._filler: socket.socket | None = None
        self._fillers: set[object] = set()

    def listen(self) -> None:
        """Take connections.

        Raises:
            OSError: the port is in use, or not ours to use.
        """
        try:
            self._bound().listen(BACKLOG)
        except OSError as error:
            self.close()
            where = f"{self._address[0]} port {self.port}"
            foreign = error.errno == errno.EADDRNOTAVAIL
            remedy = "an address of this machine" if foreign else "another port, or 0 for any free one"
            raise OSError(error.errno, f"cannot listen on {where} ({error.strerror}): choose {remedy}") from None
        self._close_filler()

    def refuse(self) -> None:
        """Answer connections with a RST, and keep the port."""
        self.close()
        self._bound()

    def hang(self) -> None:
        """Let connections hang: the queue of those that wait to be accepted is full, so that the kernel ignores more.

        On Linux a client sees no answer at all (and gets in at a retry of its own, a second or more after `listen`).
        Where a full queue means something else it may be connected, and left alone, or refused.
        """
        listening = self._bound()
        listening.listen(0)
        self._close_filler()
        self._filler = socket.socket(self._family, socket.SOCK_STREAM)
        self._filler.setblocking(False)
        with suppress(BlockingIOError):
            self._filler.connect(listening.getsockname())
        self._fillers.add(self._filler.getsockname())

    def accept(self) -> socket.socket | None:
        """The next connection that waits, or `None`."""
        assert self.socket is not None
        while True:
            try:
                accepted, peer = self.socket.accept()
            except BlockingIOError:
                return None
            if peer not in self._fillers:
                accepted.setblocking(False)
                return accepted
            self._fillers.remove(peer)
            accepted.close()

    def close(self) -> None:
        """Give up the port."""
        self._close_filler()
        if self.socket is not None:
            with suppress(OSError):  # what ends it in a forked child too, where the system can
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()
            self.socket = None
            self._fillers.clear()

    def _bound(self) -> socket.socket:
        if self.socket is None:
            self.socket = socket.socket(self._family, socket.SOCK_STREAM)
            self.socket.setblocking(False)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind((self._address[0], self.port, *self._address[2:]))
            self.port = self.socket.getsockname()[1]
        return self.socket

    def _close_filler(self) -> None:
        if self._filler is not None:
            self._filler.close()
            self._filler = None
