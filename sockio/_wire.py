"""One TCP connection, as its socket shows it: bytes out, bytes in, and how it ended.

Who waits for it, and how, is said by the links of the core (``_link``) and of ``py2``, which derive from this. The
module runs on Python 2.7 as well: hence its type comments.
"""

import errno
import os
import select
import socket
import sys
import threading
from abc import abstractmethod

from ._buffer import Buffer
from .common import (
    CHUNK,
    POLLGONE,
    SMALL,
    WIRE,
    ConnectionClosedError,
    ConnectionEOFError,
    ConnectionLostError,
    LinkError,  # noqa: F401  (in the type comments)
    payload,
    pending,
    poller_of,
    what_broke,
    wire_log,
)

try:
    import typing as _t  # noqa: F401  (names in the type comments)
except ImportError:  # Python 2.7
    pass

_AGAIN = (errno.EAGAIN, errno.EWOULDBLOCK)


class Wire(object):
    """A connected socket, non-blocking; what arrived on it; and how it ended.

    Args:
        sock: the socket
        buffer_size: longest line, in bytes
        peer: ``host:port``, for the log

    Attributes:
        idle: the last call ended in order, and took all that had come
        ended: the peer's end, a failure or a drop is known: no request may go out any more
        drained: nothing more will come into the buffer
        writing, receiving: marks of what must not stop halfway
        sent: a byte of the request under way may have left
        cause: why it ended; ``None`` after a clean end and after ``close()``
        closed: it was ended by ``close()``
        dropped: this side has hung up
        void: what arrived counts no more
        traced: what it sends and receives is logged
    """

    # Python finds an attribute fastest that is the object's own, and not among more than 30; so what is only asked for
    # when something has happened has its first value here.
    traced = False  # type: bool
    cause = None  # type: _t.Optional[BaseException]
    closed = False  # type: bool
    void = False  # type: bool
    _peer = ""  # type: str

    def __init__(self, sock, buffer_size, peer):
        # type: (socket.socket, int, str) -> None
        self.sock = sock  # type: socket.socket
        self.buffer = Buffer(buffer_size)  # type: Buffer
        self.arrived = self.buffer.feed  # type: _t.Callable[[bytes], None]
        self.send = sock.send  # type: _t.Callable[[_t.Any], int]
        self.poller = poller_of(sock)  # type: _t.Any
        self.idle = False  # type: bool
        self.writing = False  # type: bool
        self.receiving = False  # type: bool
        self.sent = False  # type: bool
        self.ended = False  # type: bool
        self.drained = False  # type: bool
        self.dropped = False  # type: bool
        self._ask = SMALL
        self._reports = ["once"]
        self._telling = threading.RLock()
        if wire_log.isEnabledFor(WIRE):
            self._trace(peer)

    # What a link says besides.

    @abstractmethod
    def hang_up(self):
        # type: () -> None
        """Close the connection now; whoever waits for it finds it ended."""

    @abstractmethod
    def retire(self):
        # type: () -> None
        """Make room for the next link: hang up, but leave what has arrived to a stream that is bound to this one."""

    @abstractmethod
    def _report(self, cause, eof):
        # type: (_t.Optional[BaseException], bool) -> None
        """Tell of the end; outside of the lock, for a log's handler may hold locks of its own."""

    # Bytes out, bytes in.

    def hand_over(self, data):
        # type: (_t.Union[bytes, memoryview]) -> int
        """Hand what the operating system takes at once to it, and return how many bytes that was.

        Raises:
            OSError: the link broke
        """
        self.writing = True
        try:
            sent = self.send(data)
        except socket.error as exc:
            if exc.errno not in _AGAIN:
                raise
            return 0
        self.sent = True
        return sent

    def settle(self):
        # type: () -> None
        """A request has its reply."""
        self.writing = self.sent = False
        buffer = self.buffer
        self.idle = not (self.ended or buffer.data or buffer.lines or buffer.target)

    def receive(self):
        # type: () -> bool
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
        except socket.error as exc:
            if exc.errno in _AGAIN:
                self.receiving = False
                return False
            self.drained = True
            self.end(exc)
            size = 0
        else:
            if not size:
                self.drained = True
                self.tell_why()
        self.receiving = False
        return size > 0

    def waiting(self):
        # type: () -> int
        """How many bytes can be read without waiting."""
        return len(self.buffer) + (0 if self.drained else pending(self.sock))

    def drain(self):
        # type: () -> None
        """Receive what has arrived, as far as the buffer goes, and nothing more."""
        while not self.drained and len(self.buffer) <= self.buffer.limit and self.receive():
            pass
        self.drained = True

    def forget(self):
        # type: () -> None
        """Throw away what has arrived, as much as the buffer holds at the most."""
        while self.receive() and len(self.buffer) <= self.buffer.limit:
            pass
        self.buffer.clear()

    def clear_the_way(self):
        # type: () -> None
        """Receive what came unread: closing above it would send RST, which destroys what the peer has still to read."""
        try:
            for _ in range(16):
                if len(self.sock.recv(CHUNK)) < CHUNK:
                    break
        except socket.error:
            pass

    # The end.

    def peer_gone(self):
        # type: () -> bool
        """Whether this host has received the end of the link; asks the operating system, receives nothing."""
        try:
            events = poller_of(self.sock).poll(0)
            if not events:
                return False
            return bool(events[0][1] & POLLGONE) or not self.sock.recv(1, socket.MSG_PEEK)
        except (socket.error, select.error, ValueError) as exc:  # ValueError: another thread has closed it
            return getattr(exc, "errno", None) not in _AGAIN

    def notice(self):
        # type: () -> bool
        """Whether the link has ended, taking note of it; receives nothing."""
        if not self.ended and self.peer_gone():
            self.tell_why(told_another=self.receiving or self.writing)
        return self.ended

    def tell_why(self, told_another=False):
        # type: (bool) -> None
        """Say that the link has ended, and why, as the operating system knows it; what broke it, it tells only once.

        Args:
            told_another: perhaps it has told a call of another thread, which then will say
        """
        with self._telling:  # who comes second draws no conclusions before the first has noted what it was told
            try:
                cause = what_broke(self.sock)
            except socket.error:
                if told_another:
                    return
                cause = socket.error(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
            first = self._note(cause)
        if first:
            self._report(cause, eof=cause is None)

    def end(self, cause, eof=False):
        # type: (_t.Optional[BaseException], bool) -> None
        """The link has ended: say so once."""
        if self._note(cause):
            self._report(cause, eof)

    def _note(self, cause):
        # type: (_t.Optional[BaseException]) -> bool
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

    def error(self, partial=b""):
        # type: (bytes) -> LinkError
        """Return what a call that needs this link raises now that it has ended."""
        if self.closed:
            return ConnectionClosedError("the object was closed meanwhile: check who called close()")
        if self.cause is None:
            return ConnectionEOFError("the peer ended the link", partial)
        error = ConnectionLostError("the link was lost: {}".format(self.cause), partial)
        error.__cause__ = self.cause
        return error

    # The trace.

    def trace_sent(self, data):
        # type: (bytes) -> None
        """Log bytes that were handed to the operating system."""
        wire_log.log(WIRE, "%s << %r", self._peer, data)

    def _trace(self, peer):
        # type: (str) -> None
        """Log every byte: wraps two functions of this one link, so that a link without trace pays nothing."""
        self.traced = True
        self._peer = peer
        self.buffer.large = sys.maxsize  # nothing is received in place, past the trace
        send, arrived = self.send, self.arrived

        def traced_send(data):
            # type: (_t.Any) -> int
            size = send(data)
            self.trace_sent(payload(data[:size]))
            return size

        def traced_arrived(chunk):
            # type: (bytes) -> None
            wire_log.log(WIRE, "%s >> %r", peer, chunk)
            arrived(chunk)

        self.send = traced_send
        self.arrived = traced_arrived
