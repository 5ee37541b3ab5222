"""A link: one TCP connection, what arrived on it, who waits for it, and how it ended."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ._buffer import Buffer
from ._turns import Expired
from .common import CHUNK as CHUNK
from .common import (
    POLLGONE,
    SMALL,
    ConnectionClosedError,
    ConnectionEOFError,
    ConnectionLostError,
    LinkError,
    poller_of,
    what_broke,
    wire_log,
)
from .common import WIRE as WIRE
from .common import pending as pending

if TYPE_CHECKING:
    from ._base import Base


class Link(ABC):
    """One TCP connection: a non-blocking socket, what arrived on it, who waits for it, and how it ended.

    Attributes:
        idle: the last call ended in order, and took all that had come
        ended: the peer's end, a failure or a drop is known: no request may go out any more
        drained: nothing more will come into the buffer
        reader, writer: tickets of the calls that are using it
        writing, receiving: marks of what must not stop halfway
        sent: a byte of the request under way may have left
        cause: why it ended; ``None`` after a clean end and after ``close()``
        closed: it was ended by ``close()``
        dropped: this side has hung up
        void: what arrived counts no more
        paused: the flavour stopped receiving because the buffer is full
        traced: what it sends and receives is logged
        world: what the link can't outlive: its event loop
    """

    # Python finds an attribute fastest that is the object's own, and not among more than 30; so what is only asked for
    # when something has happened has its first value here.
    traced: bool = False
    cause: BaseException | None = None
    closed: bool = False
    void: bool = False

    def __init__(self, core: Base, sock: socket.socket) -> None:
        self.core: weakref.ref[Base] = weakref.ref(core)
        self.sock = sock
        self.buffer: Buffer = Buffer(core.buffer_size)
        self.world: object = None if core._world is None else core._world()
        self._ask = SMALL
        self.arrived: Callable[[bytes], None] = self.buffer.feed
        self.send: Callable[[bytes | memoryview], int] = sock.send
        self.reader: Any = None
        self.writer: Any = None
        self.poller: Any = poller_of(sock)
        self.idle: bool = False
        self.writing: bool = False
        self.receiving: bool = False
        self.sent: bool = False
        self.ended: bool = False
        self.drained: bool = False
        self.dropped: bool = False
        self.paused: bool = False
        self._reports = ["once"]
        self._telling = threading.RLock()
        if wire_log.isEnabledFor(WIRE):
            self._trace(core._peer)

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

    @abstractmethod
    def hang_up(self) -> None:
        """Close the connection now; whoever waits for it finds it ended."""

    def release(self) -> None:
        """Nobody but the caller was using the link: give back what ``hang_up`` had to leave."""

    def resume(self) -> None:
        """Receive again, after ``paused``."""

    # What every flavour does alike.

    def begin(self, request: bytes) -> int:
        """Hand what the operating system takes at once to it, and return how many bytes that was."""
        self.writing = True
        try:
            sent = self.send(request)
        except BlockingIOError:
            return 0
        self.sent = True
        return sent

    def settle(self) -> None:
        """A request has its reply."""
        self.writing = self.sent = False
        buffer = self.buffer
        self.idle = not (self.ended or buffer.data or buffer.lines or buffer.target)

    def receive(self) -> bool:
        """Move what this host has received into the buffer, one chunk; False if there was nothing."""
        self.receiving = True
        buffer = self.buffer
        space = None if buffer.target is None else buffer.space()
        try:
            if space is None:
                chunk = self.sock.recv(self._ask)
                size = len(chunk)
                self.arrived(chunk)
                if size == self._ask:
                    self._ask = CHUNK
            else:
                size = self.sock.recv_into(space)
                buffer.filled(size)
        except BlockingIOError:
            self.receiving = False
            return False
        except OSError as exc:
            self.drained = True
            self.end(exc)
            size = 0
        else:
            if not size:
                self.drained = True
                self.tell_why()
        self.receiving = False
        return size > 0

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

    def peer_gone(self) -> bool:
        """Whether this host has received the end of the link; asks the operating system, receives nothing."""
        try:
            events = poller_of(self.sock).poll(0)
            if not events:
                return False
            return bool(events[0][1] & POLLGONE) or not self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except (OSError, ValueError):  # ValueError: another thread has closed it
            return True

    def notice(self) -> bool:
        """Whether the link has ended, taking note of it; receives nothing."""
        if not self.ended and self.peer_gone():
            self.tell_why(told_another=self.receiving or self.writing)
        return self.ended

    def tell_why(self, told_another: bool = False) -> None:
        """Say that the link has ended, and why, as the operating system knows it; what broke it, it tells only once.

        Args:
            told_another: perhaps it has told a call of another thread, which then will say
        """
        with self._telling:  # who comes second draws no conclusions before the first has noted what it was told
            try:
                cause = what_broke(self.sock)
            except OSError:
                if told_another:
                    return
                cause = OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            first = self._note(cause)
        if first:
            self._report(cause, eof=cause is None)

    def may_have_ended(self) -> None:
        """Look whether the link has ended. Called on the watcher's thread."""
        self.notice()

    def waiting(self) -> int:
        """How many bytes can be read without waiting."""
        return len(self.buffer) + (0 if self.drained else pending(self.sock))

    def end(self, cause: BaseException | None, *, eof: bool = False) -> None:
        """The link has ended: say so once."""
        if self._note(cause):
            self._report(cause, eof)

    def _note(self, cause: BaseException | None) -> bool:
        """Note that the link has ended; False if that was known."""
        with self._telling:
            try:
                self._reports.pop()  # atomic: not even a signal handler comes in between
            except IndexError:
                return False
            self.cause = cause
            self.ended = True
            self.idle = False
            return True

    def _report(self, cause: BaseException | None, eof: bool) -> None:
        """Tell the object; outside of the lock, for it logs, and a log's handler may hold locks of its own."""
        core = self.core()
        if core is not None:
            core._link_ended(self, cause, eof)

    def drop(self, cause: BaseException | None) -> None:
        """End the link from this side."""
        core = self.core()
        if core is not None and core._link is self:
            core._link = None  # first of all: as soon as the rest shows, another thread may make the next link
        self.void = self.dropped = self.drained = True
        self.end(cause)
        self.buffer.forget_lines()
        self.hang_up()

    def retire(self) -> None:
        """Make room for the next link: hang up, but leave what has arrived to a stream that is bound to this one."""
        self.drain()
        self.dropped = True
        self.hang_up()

    def forget(self) -> None:
        """Throw away what has arrived, as much as the buffer holds at the most."""
        while self.receive() and len(self.buffer) <= self.buffer.limit:
            pass
        self.buffer.clear()

    def drain(self) -> None:
        """Receive what has arrived, as far as the buffer goes, and nothing more."""
        while not self.drained and len(self.buffer) <= self.buffer.limit and self.receive():
            pass
        self.drained = True

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

    def error(self, partial: bytes = b"") -> LinkError:
        """Return what a call that needs this link raises now that it has ended."""
        if self.closed:
            return ConnectionClosedError("the object was closed meanwhile: check who called close()")
        if self.cause is None:
            return ConnectionEOFError("the peer ended the link", partial)
        error = ConnectionLostError(f"the link was lost: {self.cause}", partial)
        error.__cause__ = self.cause
        return error

    def clear_the_way(self) -> None:
        """Receive what came unread: closing above it would send RST, which destroys what the peer has still to read."""
        if self.reader is not None:
            return  # the rest is a reader's
        try:
            for _ in range(16):
                if len(self.sock.recv(CHUNK)) < CHUNK:
                    break
        except OSError:
            pass

    def trace_sent(self, data: bytes) -> None:
        """Log bytes that were handed to the operating system."""
        wire_log.log(WIRE, "%s << %r", self._peer, data)

    def _trace(self, peer: str) -> None:
        """Log every byte: wraps two functions of this one link, so that a link without trace pays nothing."""
        self.traced = True
        self._peer = peer
        self.buffer.large = sys.maxsize  # nothing is received in place, past the trace
        send, arrived = self.send, self.arrived

        def traced_send(data: bytes | memoryview) -> int:
            size = send(data)
            self.trace_sent(bytes(data[:size]))
            return size

        def traced_arrived(chunk: bytes) -> None:
            wire_log.log(WIRE, "%s >> %r", peer, chunk)
            arrived(chunk)

        self.send = traced_send
        self.arrived = traced_arrived


class DirectLink(Link):
    """A link whose bytes go straight to the socket, also those of a request that it takes only part of at once."""

    async def flush(self, data: bytes, sent: int, deadline: float | None) -> None:
        rest = memoryview(data)[sent:]
        while rest:
            await self.room(deadline)
            try:
                sent = self.send(rest)
            except BlockingIOError:
                continue  # it was another wait that ended, or the operating system took the room back
            self.sent = True
            rest = rest[sent:]

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


def given_up(exc: BaseException, name: str) -> Exception:
    """Return the cause of the loss of a link that a call drops because of ``exc``."""
    if isinstance(exc, Exception) and not isinstance(exc, Expired):
        return exc
    reason = "its time was up" if isinstance(exc, Expired) else type(exc).__name__
    return ConnectionClosedError(f"{name} was given up in the middle: {reason}")
