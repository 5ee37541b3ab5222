"""A link: one TCP connection (``_wire``), who waits for it, and whom it tells of its end."""

from __future__ import annotations

import os
import socket
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from ._wire import Wire

if TYPE_CHECKING:
    from ._base import Base


class Link(Wire, ABC):
    """A connection of the core.

    Attributes:
        reader, writer: tickets of the calls that are using it
        paused: the flavour stopped receiving because the buffer is full
        world: what the link can't outlive: its event loop
    """

    dropped: bool

    def __init__(self, core: Base, sock: socket.socket) -> None:
        super().__init__(sock, core.buffer_size, core._peer)
        self.core: weakref.ref[Base] = weakref.ref(core)
        self.world: object = None if core._world is None else core._world()
        self.reader: Any = None
        self.writer: Any = None
        self.paused: bool = False

    # What the flavour says.

    @abstractmethod
    def more(self, deadline: float | None) -> Awaitable[None]:
        """Wait until bytes were added to the buffer, or the link ended.

        Raises:
            Expired: the deadline passed first
        """

    @abstractmethod
    async def flush(self, data: bytes, sent: int, deadline: float | None) -> None:
        """Hand ``data`` to the operating system, of which ``sent`` bytes were taken already.

        Raises:
            Expired: the deadline passed first
            OSError: the link broke
        """

    def release(self) -> None:
        """Nobody but the caller was using the link: give back what ``hang_up`` had to leave."""

    def resume(self) -> None:
        """Receive again, after ``paused``."""

    # What every flavour does alike.

    def serve(self, ticket: Any, reads: bool, sends: bool) -> None:
        """Note whose call is using the link."""
        if reads:
            self.reader = ticket
        if sends:
            self.writer = ticket

    def leave(self, ticket: Any) -> None:
        """That call isn't using the link any more."""
        if self.reader is ticket:
            self.reader = None
        if self.writer is ticket:
            self.writer = None
        if self.dropped:
            self.release()

    def may_have_ended(self) -> None:
        """Look whether the link has ended. Called on the watcher's thread."""
        self.notice()

    def _report(self, cause: BaseException | None, eof: bool) -> None:
        core = self.core()
        if core is not None:
            core._link_ended(self, cause, eof)

    def retire(self) -> None:
        self.drain()
        self.dropped = True
        self.hang_up()

    def abandon(self) -> None:
        """Let go of the link without a word to the peer: it belongs to the parent process."""
        self._reports.clear()
        self.idle = False
        self.ended = self.dropped = self.drained = True
        if self.sock.fileno() >= 0:
            # The copy of a loop (uvloop's) keeps the number: from now on it means an empty file, never another link.
            with open(os.devnull, "rb") as nothing:
                os.dup2(nothing.fileno(), self.sock.fileno(), inheritable=False)
            self.sock.close()

    def clear_the_way(self) -> None:
        if self.reader is None:  # else the rest is a reader's
            super().clear_the_way()


class DirectLink(Link):
    """A link whose bytes go straight to the socket, also those of a request that it takes only part of at once."""

    async def flush(self, data: bytes, sent: int, deadline: float | None) -> None:
        rest = memoryview(data)[sent:]
        while rest:
            await self.room(deadline)
            rest = rest[self.hand_over(rest) :]  # maybe none: it was another wait that ended, or the room is gone again

    @abstractmethod
    def room(self, deadline: float | None) -> Awaitable[None]:
        """Wait until the operating system may take more.

        Raises:
            Expired: the deadline passed first
            OSError: the link broke
        """


class SocketLink(DirectLink):
    """A link whose bytes are received by whoever waits for them: nothing but the socket has to be closed."""

    def __init__(self, core: Base, sock: socket.socket) -> None:
        super().__init__(core, sock)
        self._caretaking = threading.Lock()

    def hang_up(self) -> None:
        self.clear_the_way()
        try:
            self.sock.shutdown(socket.SHUT_RDWR)  # wakes those who wait for this socket
        except OSError:
            pass
        self.release()

    def retire(self) -> None:
        self.dropped = True
        self.release()

    def release(self) -> None:
        """Close the descriptor, unless a call is under way: when that one uses it, it could be another file's."""
        with self._caretaking:
            if all(ticket is None or ticket.over for ticket in (self.reader, self.writer)):
                self.drain()
                self.sock.close()
