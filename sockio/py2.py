"""sockio for Python 2.7, where the rest can't run; on Python 3 it runs as well. Plain blocking code.

    sock = TCP("192.168.1.73", 5025)
    print(sock.write_readline(b"*IDN?\\n"))

The contract is that of the other flavours; this module says it in the words of Python 2.7. Any number of threads may
share an object. A call waits for its turn, sends at once, then sleeps in ``poll`` until the reply is there or its time
is up. What a call returns also answers ``.result()``.

Ctrl-C may strike between any two statements. So each call runs inside a generator: Python itself knows whether that is
still running, whatever ended it, and everybody who waits behind a call can ask (on 2.7 a signal can tear even ``with
lock:``). And a link is marked ``writing`` and ``receiving`` around what must not stop halfway: whoever finds such a
mark drops the link.
"""

import errno
import os
import random
import select
import socket
import sys
import threading
import warnings

from ._race import Race, lookup
from .common import (
    AGES,
    CHUNK,
    DEFAULT_LIMIT,
    DFT_KEEP_ALIVE,
    IPTOS_LOWDELAY,
    POLLGONE,
    POLLIN,
    POLLOUT,
    QUIET,
    SMALL,
    WIRE,
    Attempts,
    ConnectionClosedError,
    ConnectionEOFError,
    ConnectionLostError,
    ConnectionTimeoutError,
    LimitOverrunError,
    LinkError,
    Poller,
    Retry,  # noqa: F401  (in the type comments)
    address_of_url,
    check_settings,
    checked_separator,
    checked_size,
    configure_socket,
    joined,
    keep_alive_options,
    listed,
    log,
    payload,
    pending,
    poller_of,
    seconds,
    take_block,
    what_broke,
    wire_log,
)

if sys.version_info >= (3,):
    import typing as _t
    from threading import get_ident as _thread
    from time import monotonic as _now

    _ListOfBytes = _t.List[bytes]
    _Timeout = _t.Any  # seconds; None: no limit; _OWN: the object's
    _Take = _t.Callable[["_Buffer", _t.Any], _t.Any]
    _Callback = _t.Optional[_t.Callable[[], _t.Any]]
    _AnyTCP = _t.TypeVar("_AnyTCP", bound="TCP")
    _AnyStream = _t.TypeVar("_AnyStream", bound="_Stream")
else:  # Python 2.7
    from time import time as _now

    from thread import get_ident as _thread

    from .common import ConnectionError, ConnectionResetError  # noqa: F401  (for those who catch them by these names)

    _ListOfBytes = list

    if sys.platform.startswith("linux"):
        import ctypes

        _Timespec = ctypes.c_long * 2
        _clock_gettime = ctypes.PyDLL(None).clock_gettime

        def _now():
            """Return ``time.monotonic()``: a clock that somebody sets must not move a deadline."""
            spec = _Timespec()
            _clock_gettime(1, spec)
            return spec[0] + spec[1] * 1e-9


__all__ = ["TCP", "BlockStream", "ConnectionEOFError", "ConnectionTimeoutError", "LineStream", "socket_for_url"]

#: The default of ``timeout=``: the object's own holds.
_OWN = object()
#: Seconds after which a thread that waits for its turn looks again, should nobody have told it.
_NAP = 0.5
_AGAIN = (errno.EAGAIN, errno.EWOULDBLOCK)
_INFINITE = float("inf")
_NUMBERS = (float, int)
_getpid = os.getpid
_forking = threading.Lock()


class Bytes(bytes):
    """The bytes that a call returns."""

    def result(self):
        # type: () -> bytes
        """Return the bytes, as the future of another flavour does."""
        return self


class Lines(_ListOfBytes):
    """The lines that a call returns."""

    def result(self):
        # type: () -> _t.List[bytes]
        """Return the lines, as the future of another flavour does."""
        return self


class Count(int):
    """How many bytes a call has sent."""

    def result(self):
        # type: () -> None
        """Return nothing, as the future of another flavour does."""


class TCP(object):
    """A TCP object for Python 2.7: ``reply = tcp.write_readline(b"*IDN?\\n")``."""

    _link = None  # type: _t.Optional[_Link]
    _random = staticmethod(random.random)

    def __init__(
        self,
        host,  # type: str
        port,  # type: int
        timeout=1.0,  # type: _t.Optional[float]
        eol=b"\n",  # type: bytes
        auto_reconnect=True,  # type: bool
        on_connection_made=None,  # type: _Callback
        buffer_size=DEFAULT_LIMIT,  # type: int
        no_delay=True,  # type: bool
        tos=IPTOS_LOWDELAY,  # type: _t.Optional[int]
        connection_timeout=None,  # type: _t.Optional[float]
        keep_alive=DFT_KEEP_ALIVE,  # type: _t.Union[_t.Dict[str, int], bool, None]
        retry=None,  # type: _t.Optional[Retry]
        stale_input="discard",  # type: str
    ):
        # type: (...) -> None
        """Connects to nothing yet: the first use does (or ``open()``, or ``with``).

        Args:
            host: name or address of the instrument
            port: its TCP port, 1 to 65535
            timeout: seconds for each whole call, unless the call says otherwise; ``None``: no limit
            eol: what ends a line, bytes of any length
            auto_reconnect: connect on first use and after a loss; else only ``open()`` and ``with`` do
            on_connection_made: called on every new link before any other request; may use the object
            buffer_size: longest line, in bytes
            no_delay: switch Nagle's algorithm off
            tos: type of service (IPv6: traffic class); ``None`` leaves it alone
            connection_timeout: seconds for each connection attempt; ``None``: no limit
            keep_alive: a bool, ``None`` (the system's), or a dict with any of ``active``, ``idle`` and ``interval``
                (seconds), ``retry`` (probes)
            retry: how connecting is retried; default: one attempt
            stale_input: what the ``write_read*`` calls do with input that arrived before they send:
                ``"discard"`` or ``"keep"``

        Raises:
            TypeError, ValueError: an argument of a wrong type or value
        """
        self.host = host
        self.port = port
        self.timeout = timeout
        self.eol = eol
        self.auto_reconnect = auto_reconnect
        self.on_connection_made = on_connection_made
        self.buffer_size = buffer_size
        self.no_delay = no_delay
        self.tos = tos
        self.connection_timeout = connection_timeout
        self.keep_alive = keep_alive
        self.retry = retry  # type: _t.Any  # completed below
        self.stale_input = stale_input
        check_settings(self, (on_connection_made,))
        self.connection_counter = 0  # type: int
        self._closings = 0
        self._begin_anew()

    def _begin_anew(self):
        # type: () -> None
        self._link = None
        self._new_link = None  # type: _t.Optional[_Link]
        self._greeting = None  # type: _t.Optional[_Greeting]
        self._queue = []  # type: _t.List[_Ticket]
        self._bells = []  # type: _t.List[_Bell]
        self._pid = os.getpid()

    # Beside the calls that move data.

    def open(self, timeout=_OWN):
        # type: (_Timeout) -> Count
        """Connect.

        Args:
            timeout: seconds; ``None``: no limit; default: only ``connection_timeout`` limits each attempt

        Raises:
            ConnectionError: the object is open already
            OSError: no connection
            ConnectionTimeoutError: not in time
        """
        return self._open(timeout, True)

    def close(self):
        # type: () -> Count
        """End the link, and wake everybody who is inside a call of this object with a ``ConnectionError``."""
        self._check_process()
        self._closings += 1
        for link in (self._link, self._new_link):
            if link is not None:
                link.closed = True
                self._drop(link, None)
        for bell in tuple(self._bells):
            bell.ring()
        return Count()

    def connected(self):
        # type: () -> bool
        """Whether there is a link whose end this host has not received; asks the operating system."""
        link = self._visible_link()
        return link is not None and not link.notice()

    is_open = property(connected)  # type: property

    def at_eof(self):
        # type: () -> bool
        """Whether the link has ended and nothing of what it brought is left to read."""
        link = self._visible_link()
        return link is not None and link.notice() and not link.waiting()

    def in_waiting(self):
        # type: () -> int
        """Return how many bytes can be read without waiting."""
        link = self._visible_link()
        return 0 if link is None else link.waiting()

    def reset_input_buffer(self):
        # type: () -> None
        """Forget all bytes that have arrived and were not read; while somebody is using the object, they are theirs."""
        link = self._visible_link()
        if link is not None:
            self._run(self._reset, link)

    def __enter__(self):
        # type: (_AnyTCP) -> _AnyTCP
        if not self.connected():
            self._open(_OWN, False)
        return self

    def __exit__(self, *exc_info):
        # type: (object) -> None
        self.close()

    def __iter__(self):
        # type: () -> LineStream
        return LineStream(self)

    @property
    def _peer(self):
        # type: () -> str
        return "{}:{}".format(self.host, self.port)

    def __repr__(self):
        # type: () -> str
        link = self._link
        state = "closed" if link is None else "ended" if link.ended else "connected"
        return "<{}.{} {} {}>".format(type(self).__module__, type(self).__name__, self._peer, state)

    if sys.version_info >= (3,):  # 2.7 closes a dropped socket in silence

        def __del__(self):
            # type: () -> None
            link = self._link
            if link is not None:
                forgotten, name = not link.ended, repr(self)
                link.hang_up()
                if forgotten:
                    warnings.warn("unclosed " + name, ResourceWarning, stacklevel=2, source=self)

    # The calls that move data.

    def read(self, n=-1, timeout=_OWN):
        # type: (int, _Timeout) -> Bytes
        """Read what has arrived, at least one byte.

        Args:
            n: at most so many bytes; -1: everything up to the end of the link
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended
            ConnectionTimeoutError: nothing came in time
        """
        return Bytes(self._call("read", None, _reading(n), n, timeout))

    def readline(self, eol=None, timeout=_OWN):
        # type: (_t.Optional[bytes], _Timeout) -> Bytes
        """Read a line, its end included.

        Args:
            eol: what ends it; default: the object's
            timeout: seconds for the whole call; ``None``: no limit; default: the object's

        Raises:
            ConnectionEOFError: the link ended before the line did; what there was of it is in ``partial``
            ConnectionLostError: the link broke
            ConnectionTimeoutError: not in time; what has arrived can still be read
            ConnectionClosedError: closed meanwhile, or not open and without ``auto_reconnect``
            LimitOverrunError: the line is longer than ``buffer_size``
            OSError: no connection
        """
        return Bytes(self._call("readline", None, _Buffer.take_until, self._eol(eol), timeout))

    def readlines(self, n, eol=None, timeout=_OWN):
        # type: (int, _t.Optional[bytes], _Timeout) -> Lines
        """Read ``n`` lines, all or none, and return them with their ends.

        Args:
            n: how many lines
            eol: what ends each; default: the object's
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended; what there was of the lines is in ``partial``
            LimitOverrunError: a line is longer than ``buffer_size``
            ConnectionTimeoutError: they weren't there in time; what came is kept for the next read
        """
        return Lines(self._call("readlines", None, _Buffer.take_lines, (checked_size(n), self._eol(eol)), timeout))

    def readexactly(self, n, timeout=_OWN):
        # type: (int, _Timeout) -> Bytes
        """Read ``n`` bytes, all or none.

        Args:
            n: how many bytes; may be more than ``buffer_size``
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended; what there was of them is in ``partial``
            ConnectionTimeoutError: they weren't there in time; what came is kept for the next read
        """
        return Bytes(self._call("readexactly", None, _Buffer.take_exactly, checked_size(n), timeout))

    def readuntil(self, separator=b"\n", timeout=_OWN):
        # type: (bytes, _Timeout) -> Bytes
        """Read up to and including ``separator``.

        Args:
            separator: bytes, at least one
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended; what came before that is in ``partial``
            LimitOverrunError: no separator within ``buffer_size`` bytes
            ConnectionTimeoutError: it wasn't there in time; what came is kept for the next read
        """
        wanted = checked_separator(separator, "separator")
        return Bytes(self._call("readuntil", None, _Buffer.take_until, wanted, timeout))

    def readbuffer(self, timeout=_OWN):
        # type: (_Timeout) -> Bytes
        """Return what has arrived, without waiting for more: maybe nothing.

        Args:
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended, and nothing is left
            ConnectionTimeoutError: no turn, or no connection, in time
        """
        return Bytes(self._call("readbuffer", None, _anything, None, timeout))

    def readblock(self, eol=None, timeout=_OWN):
        # type: (_t.Optional[bytes], _Timeout) -> Bytes
        """Read an IEEE 488.2 block with its terminator, whatever bytes are in it, and return its data.

        One of definite length (``#42000...``) may be larger than ``buffer_size``. One of indefinite length (``#0...``)
        ends with the terminator that 50 ms of silence follow, or the end of the link.

        Args:
            eol: the terminator that follows the data; default: the object's
            timeout: seconds for the whole call; default: the object's

        Raises:
            BlockError: what came is no block; it is in ``partial``, and the link is dropped
            ConnectionEOFError: the link has ended; what there was of a block is in ``partial``
            ConnectionTimeoutError: it wasn't there in time; its bytes are kept for the next read
        """
        return Bytes(self._call("readblock", None, _Buffer.take_block, self._eol(eol), timeout))

    def write(self, data, timeout=_OWN, idempotent=False):
        # type: (bytes, _Timeout, bool) -> Count
        """Hand all of ``data`` to the operating system.

        Args:
            data: bytes, sent as they are
            timeout: seconds for the whole call; ``None``: no limit; default: the object's
            idempotent: whether ``data`` may be sent again on a new link after a loss

        Returns:
            how many bytes that were: all

        Raises:
            ConnectionLostError, ConnectionEOFError: the link ended; ``request_sent`` tells if anything left
            ConnectionTimeoutError: not in time; if anything left, the link is dropped
            ConnectionClosedError: closed meanwhile, or not open and without ``auto_reconnect``
            OSError: no connection
        """
        request = payload(data)
        self._call("write", request, None, None, timeout, idempotent)
        return Count(len(request))

    def writelines(self, lines, timeout=_OWN, idempotent=False):
        # type: (_t.Iterable[bytes], _Timeout, bool) -> Count
        """Hand all lines to the operating system, in one piece.

        Args:
            lines: bytes to send, each with its own end
            timeout: seconds for the whole call; default: the object's
            idempotent: whether it does no harm to send this twice; then it is sent again after a loss

        Returns:
            how many bytes that were: all

        Raises:
            LinkError: the link failed, or time was up; ``request_sent`` tells whether a byte may have left
            OSError: no connection
        """
        request = joined(lines)
        self._call("writelines", request, None, None, timeout, idempotent)
        return Count(len(request))

    def write_read(self, data, n=-1, timeout=_OWN, idempotent=False):
        # type: (bytes, int, _Timeout, bool) -> Bytes
        """Send ``data`` and return what is read of the reply, as one atomic request.

        Args:
            data: bytes to send
            n: at most so many bytes; -1: everything up to the end of the link
            timeout: seconds for the whole call; default: the object's
            idempotent: whether it does no harm to send this twice; then it is sent again after a loss

        Raises:
            ConnectionEOFError: the link ended before anything came
            LinkError: the link failed, or time was up; ``request_sent`` tells whether a byte may have left
            OSError: no connection
        """
        return Bytes(self._request("write_read", payload(data), _reading(n), n, timeout, idempotent))

    def write_readline(self, data, eol=None, timeout=_OWN, idempotent=False):
        # type: (bytes, _t.Optional[bytes], _Timeout, bool) -> Bytes
        """Send ``data`` and return a line of reply with its end, as one atomic request.

        Args:
            data: bytes to send
            eol: what ends the line; default: the object's
            timeout: seconds for the whole call; default: the object's
            idempotent: whether it does no harm to send this twice; then it is sent again after a loss

        Raises:
            ConnectionEOFError: the link ended before the reply was whole; what there was is in ``partial``
            LimitOverrunError: a line is longer than ``buffer_size``
            LinkError: the link failed, or time was up; ``request_sent`` tells whether a byte may have left
            OSError: no connection
        """
        wanted = self._eol(eol)
        request = data if type(data) is bytes else payload(data)
        return Bytes(self._request("write_readline", request, _Buffer.take_until, wanted, timeout, idempotent))

    def write_readlines(self, data, n, eol=None, timeout=_OWN, idempotent=False):
        # type: (bytes, int, _t.Optional[bytes], _Timeout, bool) -> Lines
        """Send ``data`` and return ``n`` lines of reply with their ends, as one atomic request.

        Args:
            data: bytes to send
            n: how many lines
            eol: what ends each; default: the object's
            timeout: seconds for the whole call; default: the object's
            idempotent: whether it does no harm to send this twice; then it is sent again after a loss

        Raises:
            ConnectionEOFError: the link ended before the reply was whole; what there was is in ``partial``
            LimitOverrunError: a line is longer than ``buffer_size``
            LinkError: the link failed, or time was up; ``request_sent`` tells whether a byte may have left
            OSError: no connection
        """
        wanted = (checked_size(n), self._eol(eol))
        return Lines(self._request("write_readlines", payload(data), _Buffer.take_lines, wanted, timeout, idempotent))

    def writelines_readlines(self, lines, n=None, eol=None, timeout=_OWN, idempotent=False):
        # type: (_t.Iterable[bytes], _t.Optional[int], _t.Optional[bytes], _Timeout, bool) -> Lines
        """Send the lines in one piece and return ``n`` lines of reply with their ends, as one atomic request.

        Args:
            lines: bytes to send, each with its own end
            n: how many lines of reply; default: as many as are sent
            eol: what ends each line of reply; default: the object's
            timeout: seconds for the whole call; default: the object's
            idempotent: whether it does no harm to send this twice; then it is sent again after a loss

        Raises:
            ConnectionEOFError: the link ended before the reply was whole; what there was is in ``partial``
            LimitOverrunError: a line is longer than ``buffer_size``
            LinkError: the link failed, or time was up; ``request_sent`` tells whether a byte may have left
            OSError: no connection
        """
        lines = listed(lines)
        wanted = (checked_size(len(lines) if n is None else n), self._eol(eol))
        return Lines(
            self._request("writelines_readlines", joined(lines), _Buffer.take_lines, wanted, timeout, idempotent)
        )

    def write_readblock(self, data, eol=None, timeout=_OWN, idempotent=False):
        # type: (bytes, _t.Optional[bytes], _Timeout, bool) -> Bytes
        """Send ``data`` and return the data of an IEEE 488.2 block, as one atomic request; see ``readblock``.

        Args:
            data: bytes to send
            eol: the terminator that follows the block; default: the object's
            timeout: seconds for the whole call; default: the object's
            idempotent: whether it does no harm to send this twice; then it is sent again after a loss

        Raises:
            ConnectionEOFError: the link ended before the reply was whole; what there was is in ``partial``
            BlockError: what came is no block; it is in ``partial``, and the link is dropped
            LinkError: the link failed, or time was up; ``request_sent`` tells whether a byte may have left
            OSError: no connection
        """
        wanted = self._eol(eol)
        return Bytes(self._request("write_readblock", payload(data), _Buffer.take_block, wanted, timeout, idempotent))

    # The rules of a call.

    def _deadline(self, timeout):
        # type: (_Timeout) -> _t.Optional[float]
        """When a call with that timeout must be over; 0.0 if it mustn't wait at all."""
        if timeout is _OWN:
            timeout = self.timeout
        if timeout is None:
            return None
        if timeout.__class__ in _NUMBERS and 0 < timeout < AGES:
            return _now() + timeout
        number = float(seconds(timeout))
        return 0.0 if number <= 0 else None if number == _INFINITE else _now() + number

    def _eol(self, eol):
        # type: (_t.Optional[bytes]) -> bytes
        if eol is None:
            eol = self.eol
        return eol if type(eol) is bytes and eol else checked_separator(eol)

    def _fits(self, link, free, sends, eol):
        # type: (_Link, bool, bool, _t.Optional[bytes]) -> bool
        """Whether the call whose turn has come may go on on this link; False: it needs another one.

        Args:
            link: the one that there is
            free: the call isn't bound to this link
            sends: whether the call sends
            eol: what ends a whole message that may be discarded; None: nothing may

        Raises:
            LinkError: it can't have another one
        """
        if not link.dropped and (link.writing or link.receiving):
            self._drop(link, ConnectionClosedError("a call was torn off in the middle"))
        if link.closed or (link.void and not free):
            raise link.error()
        if not sends or (link.idle and not link.poller.poll(0)):
            return not link.void
        if not link.notice() and eol is not None:
            self._look(link, eol)
        if not link.ended:
            return True
        if not free:
            raise link.error()
        if not self.auto_reconnect:
            error = link.error()
            self._drop(link, None)
            raise error
        self._retire(link)
        return False

    def _look(self, link, eol):
        # type: (_Link, bytes) -> None
        """Look once at what arrived before the request goes out: it can't be the reply (contract Q4)."""
        while len(link.buffer) <= self.buffer_size and link.receive():
            pass
        if link.ended or not len(link.buffer) or self.stale_input == "keep":
            return
        stale = link.buffer.take_all()
        if stale.endswith(eol) and len(stale) <= self.buffer_size:
            log.warning("%s: discarded %d bytes that nobody had asked for: %.80r", self._peer, len(stale), stale)
        else:
            log.warning("%s: %d bytes of an unfinished message are in the way: %.80r", self._peer, len(stale), stale)
            text = "an unfinished message was left over (on_connection_made can read what comes first on a link)"
            self._drop(link, ConnectionClosedError(text))

    def _unmet(self, link, take):
        # type: (_Link, _Take) -> _t.Optional[bytes]
        """Return what a call gets whose reply isn't complete, and that has no more to wait for.

        Raises:
            LinkError: the link has ended
        """
        buffer = link.buffer
        if take is _anything:
            while len(buffer) <= self.buffer_size and link.receive():
                pass
            if len(buffer) or not link.drained:
                return buffer.take_all()
        clean = link.cause is None and not link.closed
        partial = buffer.take_all()
        if take is _to_end and partial and clean:
            self._drop(link, None)
            return partial
        raise link.error(partial)

    def _failed(self, exc, name, link=None, request=None):
        # type: (BaseException, str, _t.Optional[_Link], _t.Optional[bytes]) -> BaseException
        """Return what a failed call raises, after deciding what becomes of the link.

        A link on which a request was begun is dropped whatever the failure (contract A2), and so is one that has ended;
        a plain read that gives up leaves it alone (A7).
        """
        sent = link is not None and request is not None and link.writing and link.sent
        where = "{} on {}".format(name, self._peer)
        error = exc
        if link is not None and isinstance(exc, socket.error) and not isinstance(exc, LinkError):
            link.drained = True
            if exc.errno == errno.EPIPE:
                link.notice()  # this one only says that it is broken, not why
            link.end(exc)
            error = link.error()
        elif isinstance(exc, _Expired):
            error = ConnectionTimeoutError("its time is up: raise timeout, or check that the instrument answers")
        elif isinstance(exc, socket.error) and not isinstance(exc, LinkError):  # from the connection attempt
            error = type(exc)(exc.errno, "{}: {}".format(where, exc.strerror))
            error.request_sent = False  # type: ignore[attr-defined]
        if isinstance(error, LinkError):
            error.request_sent = sent
            error.args = ("{}: {}{}".format(where, error, self._advice(error)),)
            if error is not exc and getattr(error, "__cause__", None) is None:
                error.__cause__ = exc if isinstance(exc, socket.error) else None
        if link is not None and (
            (request is not None and link.writing)
            or (isinstance(error, LinkError) and not isinstance(error, ConnectionTimeoutError))
        ):
            given_up = error if isinstance(error, LinkError) else ConnectionClosedError(name + " was given up midway")
            self._drop(link, given_up)
        return error

    def _advice(self, error):
        # type: (LinkError) -> str
        """Return the end of a message: what there was of the reply, and what to do."""
        found = " after {!r} (see .partial)".format(error.partial[:60]) if error.partial else ""
        if isinstance(error, (ConnectionEOFError, ConnectionLostError)):
            return found + (
                ": the next call connects again" if self.auto_reconnect else ": call open() to connect again"
            )
        return found

    # The order of things in a call.

    def _run(self, function, *args):
        # type: (_t.Callable[..., _t.Any], _t.Any) -> _t.Any
        """Return ``function(ticket, *args)``; the ticket tells everybody whether that is still running."""
        ticket = _Ticket()
        ticket.running = _running(function, ticket, args)
        try:
            return next(ticket.running)
        finally:
            ticket.running = None

    def _call(self, name, request, take, wanted, timeout, idempotent=False, bound=None):
        # type: (str, _t.Optional[bytes], _t.Optional[_Take], _t.Any, _Timeout, bool, _t.Optional[_Stream]) -> _t.Any
        """Do a call: send ``request`` if there is one, then wait until ``take(buffer, wanted)`` has the reply.

        Args:
            name: of the call, for messages
            request: what to send
            take: framing of the reply; None: there is none
            wanted: its argument
            timeout: seconds
            idempotent: whether the request may be sent again after a loss (contract R4)
            bound: the stream that keeps the link of its first step for the next ones
        """
        return self._run(self._perform, name, request, take, wanted, self._deadline(timeout), idempotent, bound)

    def _request(self, name, request, take, wanted, timeout, idempotent):
        # type: (str, bytes, _Take, _t.Any, _Timeout, bool) -> _t.Any
        """Do a request-reply call; straight, without ``_perform``, if it waits for nothing but the reply."""
        ticket = _Ticket()
        args = (name, request, take, wanted, self._deadline(timeout), idempotent)
        ticket.running = _running(self._ask, ticket, args)
        try:
            return next(ticket.running)
        finally:
            ticket.running = None

    def _ask(self, ticket, name, request, take, wanted, deadline, idempotent):
        # type: (_Ticket, str, bytes, _Take, _t.Any, _t.Optional[float], bool) -> _t.Any
        link, queue = self._link, self._queue
        if link is None or not link.idle or queue or idempotent or deadline == 0.0 or self._pid != _getpid():
            return self._perform(ticket, name, request, take, wanted, deadline, idempotent, None)
        queue.append(ticket)
        link.user = ticket
        # Another thread may have struck since.
        if queue[0] is not ticket or not link.idle or link.poller.poll(0):  # type: ignore[redundant-expr]
            self._leave(ticket, link)
            return self._perform(ticket, name, request, take, wanted, deadline, idempotent, None)
        try:
            link.idle = False
            link.begin(request, deadline)
            link.more(deadline)
            reply = take(link.buffer, wanted)
            if reply is None:
                reply = self._reply(link, take, wanted, deadline)
            link.writing = link.sent = False
            link.idle = not (link.ended or link.buffer.data)
        except BaseException as exc:
            error = self._failed(exc, name, link, request)
            self._leave(ticket, link)
            if error is exc:
                raise
            raise error
        queue.remove(ticket)
        link.user = None
        if queue or link.dropped:
            self._leave(ticket, link)
        return reply

    def _perform(
        self,
        ticket,  # type: _Ticket
        name,  # type: str
        request,  # type: _t.Optional[bytes]
        take,  # type: _t.Optional[_Take]
        wanted,  # type: _t.Any
        deadline,  # type: _t.Optional[float]
        idempotent,  # type: bool
        bound,  # type: _t.Optional[_Stream]
    ):
        # type: (...) -> _t.Any
        self._check_process()
        closings = self._closings
        scope = self._scope()
        if scope is not None:
            deadline = _earliest(deadline, scope.deadline)
        failures = 0
        sent = False
        try:
            while True:
                link = None
                try:
                    if failures > 1:
                        self._sleep(self.retry.pause(failures - 1, self._random()), deadline, closings)
                    if deadline == 0.0 and request is not None:
                        raise _Expired
                    if scope is None:
                        self._turn(ticket, deadline, closings)
                    sends = request is not None
                    eol = _terminator(take, wanted, self.eol) if sends and take is not None else None
                    link = self._fit_link(ticket, scope, sends, eol, deadline, closings, bound)
                    return self._exchange(link, request, take, wanted, deadline)
                except BaseException as exc:
                    error = self._failed(exc, name, link, request)
                    sent = sent or getattr(error, "request_sent", False)
                    failures += 1
                    if not idempotent or scope is not None or not self._may_resend(error, failures):
                        if sent:
                            error.request_sent = True  # type: ignore[attr-defined]
                        if error is exc:
                            raise
                        raise error
                finally:
                    if link is not None:
                        link.leave(ticket)
        finally:
            self._leave(ticket, None)

    def _may_resend(self, error, failures):
        # type: (BaseException, int) -> bool
        """Whether an idempotent request that met this error may go out on a new link (contract R4)."""
        lost = isinstance(error, (ConnectionEOFError, ConnectionLostError))
        return lost and self.auto_reconnect and failures <= (self.retry.attempts or failures)

    def _exchange(self, link, request, take, wanted, deadline):
        # type: (_Link, _t.Optional[bytes], _t.Optional[_Take], _t.Any, _t.Optional[float]) -> _t.Any
        link.idle = False
        if request is not None:
            link.begin(request, deadline)
        reply = None if take is None else self._reply(link, take, wanted, deadline)
        if request is not None:
            link.writing = link.sent = False
            link.idle = take is not None and not (link.ended or link.buffer.data)
        return reply

    def _reply(self, link, take, wanted, deadline):
        # type: (_Link, _Take, _t.Any, _t.Optional[float]) -> _t.Any
        """Wait for the reply to be complete; what comes after the deadline is too late, even if it never stops."""
        in_time = None  # type: _t.Optional[int]
        reply = take(link.buffer, wanted)
        while reply is None:
            if take == _Buffer.take_block:
                reply = self._indefinite_block(link, wanted, deadline)
                if reply is not None:
                    break
            if link.drained or take is _anything:
                reply = self._unmet(link, take)
            else:
                if _passed(deadline):
                    if in_time is None:
                        in_time = link.waiting()
                    elif len(link.buffer) >= in_time:
                        raise _Expired
                link.more(deadline)
                reply = take(link.buffer, wanted)
        return reply

    def _indefinite_block(self, link, eol, deadline):
        # type: (_Link, bytes, _t.Optional[float]) -> _t.Optional[bytes]
        """Return the data of a block of indefinite length whose terminator nothing follows (contract Q5)."""
        buffer = link.buffer
        while buffer.may_be_block(eol) and not link.void:
            size = len(buffer)
            if not link.drained:
                quiet = _now() + QUIET
                try:
                    link.more(_earliest(deadline, quiet))
                except _Expired:
                    if deadline and deadline < quiet:  # without any time (0.0) what is there counts
                        raise
            if len(buffer) == size and not link.void:
                return buffer.take_all()[2 : -len(eol)]
        return None

    def _fit_link(self, ticket, scope, sends, eol, deadline, closings, bound):
        # type: (_Ticket, _t.Optional[_Greeting], bool, _t.Any, _t.Optional[float], int, _t.Optional[_Stream]) -> _Link
        """Return a link that is fit for the call, connecting if there is none."""
        attempts = Attempts()
        while True:
            if closings != self._closings:
                raise self._closed_meanwhile()
            free = False
            if scope is not None:
                link = scope.link
            elif bound is not None and bound.link is not None:
                link = bound.link
            else:
                free = True
                link = self._link or self._reconnect(ticket, attempts, deadline, closings, not sends)
            link.user = ticket
            fits = False
            try:
                fits = self._fits(link, free, sends, eol)
            finally:
                if not fits:
                    link.leave(ticket)
            if fits:
                if bound is not None:
                    bound.link = link
                return link
            if link is attempts.link:  # made for this very call: a failed attempt (contract R5)
                self._back_off(attempts, link.error(), deadline, closings)

    def _open(self, timeout, must_be_new):
        # type: (_Timeout, bool) -> Count
        deadline = None if timeout is _OWN else self._deadline(timeout)
        self._run(self._open_in_turn, deadline, must_be_new)
        return Count()

    def _open_in_turn(self, ticket, deadline, must_be_new):
        # type: (_Ticket, _t.Optional[float], bool) -> None
        self._check_process()
        closings = self._closings
        try:
            scope = self._scope()
            if scope is None:
                self._turn(ticket, deadline, closings)
            link = self._link if scope is None else scope.link
            if link is not None and not link.notice():
                if must_be_new:
                    raise ConnectionClosedError("the object is already open: close() it first, or just use it")
                return
            if link is not None:
                self._retire(link)
            self._connect(ticket, Attempts(), deadline, closings)
        except BaseException as exc:
            error = self._failed(exc, "open")
            if error is exc:
                raise
            raise error
        finally:
            self._leave(ticket, None)

    def _reset(self, ticket, link):
        # type: (_Ticket, _Link) -> None
        """Forget what has arrived, if nobody is using the object."""
        self._queue.append(ticket)
        if self._queue[0] is ticket or self._scope() is not None:
            link.user = ticket
            while link.receive() and len(link.buffer) <= link.buffer.limit:
                pass
            link.buffer.clear()
        self._leave(ticket, link)

    # Turns: a queue of tickets, first come first served.

    def _turn(self, ticket, deadline, closings):
        # type: (_Ticket, _t.Optional[float], int) -> None
        """Wait until the ticket is the first of the queue."""
        queue = self._queue
        if ticket not in queue:
            queue.append(ticket)
        if queue[0] is ticket:
            return
        ticket.bell = bell = self._new_bell()
        try:
            while self._first() is not ticket:
                if closings != self._closings:
                    raise self._closed_meanwhile()
                if not bell.wait(_earliest(deadline, _now() + _NAP)) and _passed(deadline):
                    raise _Expired
        finally:
            ticket.bell = None
            self._close_bell(bell)

    def _first(self):
        # type: () -> _t.Optional[_Ticket]
        """Return whose turn it is; those who are over no longer stand in the queue."""
        while True:
            try:
                first = self._queue[0]
                if not first.over:
                    return first
                self._queue.remove(first)
            except IndexError:
                return None
            except ValueError:
                pass  # another thread was faster

    def _leave(self, ticket, link):
        # type: (_Ticket, _t.Optional[_Link]) -> None
        """Give the turn back, and the link."""
        if link is not None:
            link.leave(ticket)
        queue = self._queue
        if ticket in queue:
            queue.remove(ticket)
        if queue:
            first = self._first()
            bell = first and first.bell
            if bell:
                bell.ring()

    def _new_bell(self):
        # type: () -> _Bell
        """Return a bell that ``close()`` rings."""
        bell = _Bell()
        self._bells.append(bell)
        return bell

    def _close_bell(self, bell):
        # type: (_Bell) -> None
        self._bells.remove(bell)
        bell.close()

    def _sleep(self, pause, deadline, closings):
        # type: (float, _t.Optional[float], int) -> None
        bell = self._new_bell()
        try:
            if closings == self._closings:  # else nobody rings any more
                bell.wait(_earliest(deadline, _now() + pause))
        finally:
            self._close_bell(bell)
        if closings != self._closings:
            raise self._closed_meanwhile()

    def _closed_meanwhile(self):
        # type: () -> ConnectionClosedError
        return ConnectionClosedError("the object was closed meanwhile: check who called close()")

    # Links.

    def _reconnect(self, ticket, attempts, deadline, closings, may_end):
        # type: (_Ticket, Attempts, _t.Optional[float], int, bool) -> _Link
        if not self.auto_reconnect:
            raise ConnectionClosedError("the object is not open: call open()")
        return self._connect(ticket, attempts, deadline, closings, may_end)

    def _connect(self, ticket, attempts, deadline, closings, may_end=False):
        # type: (_Ticket, Attempts, _t.Optional[float], int, bool) -> _Link
        """Attempt to connect as often as the retry policy and the deadline allow (contract R5, T2).

        Args:
            may_end: a new link that ended at once will do as well, if it brought something to read
        """
        while True:
            limit = self.connection_timeout
            attempt_deadline = _earliest(deadline, None if limit is None else _now() + limit)
            try:
                link = attempts.link = self._attempt(ticket, attempt_deadline, closings, may_end)
                return link
            except (socket.error, _Expired) as exc:
                if closings != self._closings:
                    raise self._closed_meanwhile()
                error = self._connect_error(exc, attempts.error)
            self._back_off(attempts, error, deadline, closings)

    def _back_off(self, attempts, error, deadline, closings):
        # type: (Attempts, OSError, _t.Optional[float], int) -> None
        """Wait until the next attempt is due, or raise the error of the last one if there may be no other."""
        attempts.error = error
        attempts.failures += 1
        log.debug("%s: connection attempt %d failed: %s", self._peer, attempts.failures, error)
        if not self.retry.allows(attempts.failures):
            raise error
        if _passed(deadline):
            raise error if isinstance(error, ConnectionTimeoutError) else self._connect_error(_Expired(), error)
        self._sleep(self.retry.pause(attempts.failures, self._random()), deadline, closings)

    def _connect_error(self, exc, previous):
        # type: (_t.Any, _t.Any) -> OSError
        """Return the error of an attempt; the one before is the cause of a timeout."""
        if isinstance(exc, LinkError):
            return exc
        if isinstance(exc, _Expired):
            error = ConnectionTimeoutError(
                "no connection in time: check the address and that the instrument is on, or raise the timeout"
            )
            error.__cause__ = previous
            return error
        text = "{}: check the address and that the instrument is on".format(exc.strerror or exc)
        return type(exc)(exc.errno, text)  # type: ignore[no-any-return]

    def _attempt(self, ticket, deadline, closings, may_end):
        # type: (_Ticket, _t.Optional[float], int, bool) -> _Link
        if _passed(deadline):
            raise _Expired
        bell = self._new_bell()
        try:
            if closings != self._closings:  # a close() before that rang no bell
                raise self._closed_meanwhile()
            addresses = self._resolve(bell, deadline, closings)
            sock = self._connected_socket(addresses, bell, deadline, closings)
        finally:
            self._close_bell(bell)
        link = _Link(sock, self.buffer_size, self._peer)
        link.user = ticket
        self._new_link = link
        try:
            if closings != self._closings:
                raise self._closed_meanwhile()
            if self.on_connection_made is not None:
                self._greet(ticket, link, deadline, self.on_connection_made)
                may_end = False
            if link.notice() and not (may_end and link.waiting()):
                link.retire()
                raise link.error(link.buffer.take_all())
            self._link = link
            if closings != self._closings:
                raise self._closed_meanwhile()
        except BaseException as exc:
            self._drop(link, exc if isinstance(exc, LinkError) else ConnectionClosedError("connecting was given up"))
            link.leave(ticket)
            raise
        finally:
            self._new_link = None
        self.connection_counter += 1
        log.debug("%s: link %d is up", self._peer, self.connection_counter)
        return link

    def _resolve(self, bell, deadline, closings):
        # type: (_Bell, _t.Optional[float], int) -> _t.List[_t.Any]
        """Return the addresses of the host; a name is resolved on a daemon thread (contract F6)."""
        host, port = self.host, self.port
        try:  # here, which imports the codec of names: a thread that does so waits for whoever is importing us
            return lookup(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            pass  # a name
        answers = []  # type: _t.List[_t.Any]

        def ask():
            # type: () -> None
            try:
                answers.append(lookup(host, port))
            except Exception as exc:
                answers.append(exc)
            bell.ring()

        thread = threading.Thread(target=ask, name="sockio resolves " + host)
        thread.daemon = True
        thread.start()
        rung = bell.wait(deadline)
        if closings != self._closings:
            raise self._closed_meanwhile()
        if not rung:
            raise _Expired
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]  # type: ignore[no-any-return]

    def _connected_socket(self, addresses, bell, deadline, closings):
        # type: (_t.List[_t.Any], _Bell, _t.Optional[float], int) -> socket.socket
        keep_alive = keep_alive_options(self.keep_alive)
        race = Race(addresses, lambda sock: configure_socket(sock, self.no_delay, self.tos, keep_alive))
        try:
            while True:
                sock = race.step(_now())
                if sock is not None:
                    return sock
                if _passed(deadline):
                    raise _Expired
                bell.wait(_earliest(deadline, race.next_start), race.connecting)
                if closings != self._closings:
                    raise self._closed_meanwhile()
        finally:
            race.close()

    def _greet(self, ticket, link, deadline, callback):
        # type: (_Ticket, _Link, _t.Optional[float], _t.Callable[[], _t.Any]) -> None
        """Run ``on_connection_made`` before anybody else may use the link (contract E1, E2)."""
        self._greeting = _Greeting(ticket, link, deadline)
        try:
            callback()
        except Exception:
            if not link.notice():
                log.exception("%s: on_connection_made failed: %r", self._peer, callback)
        finally:
            self._greeting = None
        if _passed(deadline):
            raise _Expired

    def _scope(self):
        # type: () -> _t.Optional[_Greeting]
        """Return the ``on_connection_made`` that the caller is inside of."""
        greeting = self._greeting
        if greeting is None or greeting.thread != _thread() or greeting.ticket.over:
            return None
        return greeting

    def _visible_link(self):
        # type: () -> _t.Optional[_Link]
        self._check_process()
        scope = self._scope()
        return self._link if scope is None else scope.link

    def _drop(self, link, cause):
        # type: (_Link, _t.Optional[BaseException]) -> None
        """End a link from this side; ``None``: for no other reason than ``close()``, or its own end."""
        if self._link is link:
            self._link = None  # first of all: as soon as the rest shows, another thread may make the next link
        link.void = link.dropped = link.drained = True
        link.end(cause)
        link.hang_up()

    def _retire(self, link):
        # type: (_Link) -> None
        """Make room for the next link, but leave what has arrived to a stream that is bound to this one."""
        link.retire()
        self._link = None

    def _check_process(self):
        # type: () -> None
        """Begin anew in a child process: the links are the parent's (contract F3)."""
        if self._pid != os.getpid():
            with _forking:
                if self._pid != os.getpid():
                    for link in (self._link, self._new_link):
                        if link is not None:
                            link.abandon()
                    self._begin_anew()


class _Expired(Exception):
    """A deadline passed; the call turns it into a ``ConnectionTimeoutError`` that says what for."""


def _running(function, ticket, args):
    # type: (_t.Callable[..., _t.Any], _Ticket, _t.Tuple[_t.Any, ...]) -> _t.Iterator[_t.Any]
    yield function(ticket, *args)


class _Ticket(object):
    """A call's place in the queue.

    Attributes:
        running: the generator that the call runs inside
        bell: what it waits for, as long as it isn't the first
    """

    running = None  # type: _t.Any
    bell = None  # type: _t.Optional[_Bell]

    @property
    def over(self):
        # type: () -> bool
        """Whether the call has ended, in whatever way."""
        running = self.running
        return running is None or not running.gi_running


class _Greeting(object):
    """An ``on_connection_made`` that is running: calls of its thread use its link, and end by its deadline."""

    def __init__(self, ticket, link, deadline):
        # type: (_Ticket, _Link, _t.Optional[float]) -> None
        self.thread = _thread()
        self.ticket = ticket
        self.link = link
        self.deadline = deadline


class _Bell(object):
    """What a thread sleeps on: a pair of sockets, so that it can wait for a ring and for other sockets together."""

    def __init__(self):
        # type: () -> None
        self._rope, self._clapper = socket.socketpair()
        self._rope.setblocking(False)
        self._clapper.setblocking(False)

    def ring(self):
        # type: () -> None
        """Let the waiter go on."""
        try:
            self._rope.send(b"!")
        except socket.error:
            pass  # rung often enough, or closed

    def wait(self, deadline, connecting=()):
        # type: (_t.Optional[float], _t.Iterable[socket.socket]) -> bool
        """Wait for a ring, for one of the sockets to end connecting, or for the deadline: False."""
        poller = Poller()
        poller.register(self._clapper, POLLIN)
        for sock in connecting:
            poller.register(sock, POLLOUT)
        if not _wait(poller.poll, deadline):
            return False
        try:
            self._clapper.recv(SMALL)
        except socket.error:
            pass  # it was one of the others
        return True

    def close(self):
        # type: () -> None
        """Give the sockets back."""
        self._rope.close()
        self._clapper.close()

    if sys.version_info >= (3,):

        def __del__(self):
            # type: () -> None
            self.close()  # Ctrl-C may strike before anybody else does


class _Link(object):
    """One TCP connection: a non-blocking socket, what arrived on it, who uses it, and how it ended.

    Attributes:
        idle: the last call ended in order, and took all that had come
        ended: the peer's end, a failure or a drop is known: no request may go out any more
        drained: nothing more will come into the buffer
        user: ticket of the call that is using it
        writing, receiving: marks of what must not stop halfway
        sent: a byte of the request under way may have left
        cause: why it ended; ``None`` after a clean end and after ``close()``
        closed: it was ended by ``close()``
        dropped: this side has hung up
        void: what arrived counts no more
    """

    def __init__(self, sock, buffer_size, peer):
        # type: (socket.socket, int, str) -> None
        self.sock = sock
        self.buffer = _Buffer(buffer_size)  # type: _Buffer
        self.send = sock.send  # type: _t.Callable[..., int]
        self.recv = sock.recv  # type: _t.Callable[..., bytes]
        self.poller = poller_of(sock)  # type: _t.Any
        self.user = None  # type: _t.Optional[_Ticket]
        self.idle = False  # type: bool
        self.writing = False  # type: bool
        self.receiving = False  # type: bool
        self.sent = False  # type: bool
        self.ended = False  # type: bool
        self.drained = False  # type: bool
        self.closed = False  # type: bool
        self.dropped = False  # type: bool
        self.void = False  # type: bool
        self.cause = None  # type: _t.Optional[BaseException]
        self._peer = peer
        self._ask = SMALL
        self._telling = threading.RLock()
        if wire_log.isEnabledFor(WIRE):
            self._trace()

    def begin(self, request, deadline):
        # type: (bytes, _t.Optional[float]) -> None
        """Hand the request to the operating system.

        Raises:
            _Expired: it didn't take all of it in time
            OSError: the link broke
        """
        self.writing = True
        try:
            size = self.send(request)
            self.sent = True
        except socket.error as exc:
            if exc.errno not in _AGAIN:
                raise
            size = 0
        if size < len(request):
            rest = memoryview(request)[size:]
            poller = Poller()
            poller.register(self.sock, POLLOUT)
            while rest:
                if not _wait(poller.poll, deadline) or _passed(deadline):
                    raise _Expired
                rest = rest[self.send(rest) :]
                self.sent = True

    def more(self, deadline):
        # type: (_t.Optional[float]) -> None
        """Wait until bytes were added to the buffer, or the link ended.

        Raises:
            _Expired: the deadline passed first
        """
        if not _wait(self.poller.poll, deadline):
            raise _Expired
        self.receive()

    def receive(self):
        # type: () -> bool
        """Move what this host has received into the buffer, one chunk; False if there was nothing."""
        self.receiving = True
        try:
            chunk = self.recv(self._ask)
        except socket.error as exc:
            if exc.errno not in _AGAIN:
                self.drained = True
                self.end(exc)
            self.receiving = False
            return False
        if chunk:
            buffer = self.buffer
            if buffer.data:
                buffer.feed(chunk)
            else:
                buffer.data = chunk
            if len(chunk) == self._ask:
                self._ask = CHUNK
        else:
            self.drained = True
            self.tell_why()
        self.receiving = False
        return bool(chunk)

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
        """Note that the link has ended, and why, as the operating system knows it; what broke it, it tells only once.

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

    def waiting(self):
        # type: () -> int
        """How many bytes can be read without waiting."""
        return len(self.buffer) + (0 if self.drained else pending(self.sock))

    def end(self, cause):
        # type: (_t.Optional[BaseException]) -> None
        """The link has ended, not by the peer's clean end: note, and say so once."""
        if self._note(cause):
            self._report(cause, eof=False)

    def _note(self, cause):
        # type: (_t.Optional[BaseException]) -> bool
        """Note that the link has ended; False if that was known."""
        with self._telling:
            if self.ended:
                return False
            self.cause = cause
            self.ended = True
            self.idle = False
            return True

    def _report(self, cause, eof):
        # type: (_t.Optional[BaseException], bool) -> None
        """Log the end; outside of the lock, for a log's handler may hold locks of its own."""
        log.debug("%s: link ended: %s", self._peer, cause or ("closed by the peer" if eof else "closed"))

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

    def leave(self, ticket):
        # type: (_Ticket) -> None
        """That call isn't using the link any more."""
        if self.user is ticket:
            self.user = None
        if self.dropped:
            self._release()

    def retire(self):
        # type: () -> None
        """Hang up, but keep what has arrived."""
        while not self.drained and len(self.buffer) <= self.buffer.limit and self.receive():
            pass
        self.drained = self.dropped = True
        self._release()

    def hang_up(self):
        # type: () -> None
        """Close the connection now; whoever waits for it finds it ended."""
        self.dropped = True
        try:
            self.sock.shutdown(socket.SHUT_RDWR)  # wakes the threads that wait for this socket
        except socket.error:
            pass
        self._release()

    def _release(self):
        # type: () -> None
        """Close the descriptor, unless a call is under way: when that one uses it, it could be another file's."""
        if self.user is not None and not self.user.over:
            return
        try:
            for _ in range(16):  # to close above unread bytes would send RST, which destroys what the peer has to read
                if len(self.sock.recv(CHUNK)) < CHUNK:
                    break
        except socket.error:
            pass
        self._close()

    def _close(self):
        # type: () -> None
        self.send = self.recv = _closed  # on 2.7 they would keep the descriptor
        self.sock.close()

    def abandon(self):
        # type: () -> None
        """Let go of the link without a word to the peer: it belongs to the parent process."""
        self.ended = self.dropped = self.drained = self.void = True
        self._close()

    def _trace(self):
        # type: () -> None
        """Log every byte: wraps two functions of this one link, so that a link without trace pays nothing."""
        send, recv = self.send, self.recv

        def traced_send(data):
            # type: (_t.Any) -> int
            size = send(data)
            wire_log.log(WIRE, "%s << %r", self._peer, payload(data[:size]))
            return size

        def traced_recv(size):
            # type: (int) -> bytes
            chunk = recv(size)
            wire_log.log(WIRE, "%s >> %r", self._peer, chunk)
            return chunk

        self.send = traced_send
        self.recv = traced_recv


def _closed(*_):
    # type: (object) -> _t.Any
    raise socket.error(errno.EBADF, os.strerror(errno.EBADF))


def _wait(poll, deadline):
    # type: (_t.Callable[[_t.Optional[int]], object], _t.Optional[float]) -> bool
    """Wait until ``poll`` finds something, or for the deadline: False."""
    # What comes within a millisecond costs no look at the clock.
    milliseconds = None if deadline is None else 1 if deadline else 0
    while True:
        try:
            if poll(milliseconds):
                return True
        except select.error as exc:  # Python 2.7: a signal came
            if exc.args[0] != errno.EINTR:
                raise
        if deadline is not None:
            left = deadline - _now()
            if left <= 0:
                return False
            milliseconds = int(min(left * 1000 + 0.999, 2**30))


def _earliest(one, other):
    # type: (_t.Optional[float], _t.Optional[float]) -> _t.Optional[float]
    """Return the deadline that passes first; ``None`` never does."""
    return other if one is None else one if other is None else min(one, other)


def _passed(deadline):
    # type: (_t.Optional[float]) -> bool
    return deadline is not None and _now() >= deadline


class _Buffer(object):
    """The bytes of one link that arrived and were not taken yet: ``data[start:]``.

    Args:
        limit: longest line, in bytes and without its terminator
    """

    def __init__(self, limit):
        # type: (int) -> None
        self.limit = limit
        self.clear()

    def __len__(self):
        # type: () -> int
        return len(self.data) - self._start

    def clear(self):
        # type: () -> None
        """Forget every byte."""
        self.data = b""  # type: _t.Union[bytes, bytearray]
        self._start = 0
        self._search = None  # type: _t.Optional[_t.Tuple[bytes, int, int, int]]

    def feed(self, chunk):
        # type: (bytes) -> None
        """Add bytes that arrived to those that are there."""
        start = self._start
        if isinstance(self.data, bytes):
            self.data = bytearray(self.data[start:])
        else:
            del self.data[:start]
        self.data += chunk
        self._start = 0
        if self._search is not None:
            separator, begin, seen, found = self._search
            self._search = (separator, begin - start, seen - start, found)

    # What a call asks for. Each returns None, and takes nothing, until all of it is there.

    def take(self, size):
        # type: (int) -> _t.Optional[bytes]
        """Take at least one byte and at most ``size``."""
        available = len(self)
        return self.take_exactly(min(size, available)) if available else None

    def take_all(self):
        # type: () -> bytes
        """Take whatever is there."""
        return self.take(len(self)) or b""

    def take_exactly(self, size):
        # type: (int) -> _t.Optional[bytes]
        """Take ``size`` bytes."""
        end = self._start + size
        return None if end > len(self.data) else self._cut(end)

    def take_until(self, separator):
        # type: (bytes) -> _t.Optional[bytes]
        """Take a line: everything up to and including ``separator``.

        Raises:
            LimitOverrunError: the line is longer than ``limit``
        """
        data = self.data
        if isinstance(data, bytes) and not self._start and data:
            # One piece, one line: the usual reply. What follows this branch would do the same.
            end = data.find(separator)
            if 0 <= end == len(data) - len(separator) and end <= self.limit:
                self.data = b""
                self._search = None
                return data
        line_end = self._line_end(1, separator)
        return None if line_end is None else self._cut(line_end)

    def take_lines(self, wanted):
        # type: (_t.Tuple[int, bytes]) -> _t.Optional[_t.List[bytes]]
        """Take that many lines with that terminator, all or none.

        Raises:
            LimitOverrunError: one of them is longer than ``limit``
        """
        count, separator = wanted
        end = self._line_end(count, separator)
        if end is None:
            return None
        return [line + separator for line in self._cut(end).split(separator)[:-1]]

    def take_block(self, eol):
        # type: (bytes) -> _t.Optional[bytes]
        """Take a block of definite length with its terminator, and return its data.

        One of indefinite length is never complete: see ``may_be_block``.

        Raises:
            BlockError: it is something else
        """
        return take_block(self, eol)

    def may_be_block(self, eol):
        # type: (bytes) -> bool
        """Whether a block of indefinite length has arrived up to an ``eol``, which need not be the last."""
        return self.head(2) == b"#0" and len(self) >= 2 + len(eol) and self.data.endswith(eol)

    def head(self, size):
        # type: (int) -> bytes
        """Return the first bytes, and leave them there."""
        return bytes(self.data[self._start : self._start + size])

    def _line_end(self, count, separator):
        # type: (int, bytes) -> _t.Optional[int]
        """Where the count-th line ends. An unfinished search goes on later where it stopped."""
        data, size = self.data, len(separator)
        begin = seen = self._start
        found = 0
        if self._search is not None and self._search[0] == separator and self._search[3] < count:
            _, begin, seen, found = self._search
        while found < count:
            end = data.find(separator, seen)
            if (end if end >= 0 else len(data) - size + 1) - begin > self.limit:
                raise LimitOverrunError(
                    "more than {} bytes arrived without the end of line {!r}: check eol, or raise buffer_size".format(
                        self.limit, separator
                    )
                )
            if end < 0:
                self._search = (separator, begin, max(begin, len(data) - size + 1), found)
                return None
            begin = seen = end + size
            found += 1
        return begin

    def _cut(self, end):
        # type: (int) -> bytes
        """Take the bytes up to ``end``."""
        taken = bytes(self.data[self._start : end])
        if end < len(self.data):
            self._start = end
            self._search = None
        else:
            self.clear()
        return taken


def _to_end(_buffer, _n):
    # type: (_Buffer, int) -> None
    """The framing of ``read(-1)``: complete only when the link ends."""


def _anything(buffer, _nothing):
    # type: (_Buffer, None) -> _t.Optional[bytes]
    """The framing of ``readbuffer``: whatever is there."""
    return buffer.take_all() or None


def _reading(n):
    # type: (int) -> _Take
    """Return the framing of ``read(n)``."""
    if n == -1:
        return _to_end
    return _Buffer.take if checked_size(n) else _Buffer.take_exactly


def _terminator(take, wanted, eol):
    # type: (_Take, _t.Any, bytes) -> bytes
    """Return what ends a whole message for a call that frames its reply so."""
    if take in (_Buffer.take_until, _Buffer.take_block):  # on 2.7 not the same object each time
        return wanted  # type: ignore[no-any-return]
    return wanted[1] if take == _Buffer.take_lines else eol


class _Stream(object):
    """What both kinds of streams share; bound to one link, the one of its first step."""

    def __init__(self, tcp, take, wanted, timeout):
        # type: (TCP, _Take, _t.Any, _Timeout) -> None
        self.tcp = tcp
        self.link = None  # type: _t.Optional[_Link]
        self._take = take
        self._wanted = wanted
        self._timeout = timeout

    def __iter__(self):
        # type: (_AnyStream) -> _AnyStream
        return self

    def __next__(self):
        # type: () -> Bytes
        wanted = self.tcp._eol(None) if self._wanted is None else self._wanted
        try:
            found = self.tcp._call("iteration", None, self._take, wanted, self._timeout, False, self)
        except ConnectionEOFError as exc:
            if self.link is None or exc.partial:
                raise
            found = None
        if found is None:
            raise StopIteration
        return Bytes(found)

    next = __next__


class LineStream(_Stream):
    """``for line in LineStream(tcp, eol)``: the lines that come in on one link, until its end.

    Args:
        tcp: the object to read from
        eol: what ends a line; default: the object's
        timeout: seconds for each line; default: the object's

    Raises (each step):
        ConnectionEOFError: the link ended inside a line, whose bytes are in ``partial``
        ConnectionLostError: the link broke
        ConnectionTimeoutError: no line in time; the stream can go on
    """

    def __init__(self, tcp, eol=None, timeout=_OWN):
        # type: (TCP, _t.Optional[bytes], _Timeout) -> None
        wanted = eol if eol is None else checked_separator(eol)
        super(LineStream, self).__init__(tcp, _Buffer.take_until, wanted, timeout)


class BlockStream(_Stream):
    """``for block in BlockStream(tcp, limit)``: like ``LineStream``.

    Args:
        tcp: the object to read from
        limit: bytes a block (int), or what ends one (bytes)
        timeout: seconds for each block; default: the object's
    """

    def __init__(self, tcp, limit, timeout=_OWN):
        # type: (TCP, _t.Union[int, bytes], _Timeout) -> None
        if isinstance(limit, (bytes, bytearray)):
            wanted = checked_separator(limit, "limit")
            super(BlockStream, self).__init__(tcp, _Buffer.take_until, wanted, timeout)
        else:
            size = checked_size(limit, "limit", 1)
            super(BlockStream, self).__init__(tcp, _Buffer.take_exactly, size, timeout)


def socket_for_url(url, *args, **kwargs):
    # type: (str, _t.Any, _t.Any) -> TCP
    """Return a ``TCP`` for a ``tcp://host:port`` URL; the other arguments are ``TCP``'s.

    Raises:
        ValueError: another scheme, no host, no port
    """
    host, port = address_of_url(url)
    return TCP(host, port, *args, **kwargs)
