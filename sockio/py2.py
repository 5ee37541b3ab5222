"""sockio for Python 2.7, where the rest can't run; on Python 3 it runs as well. Plain blocking code.

    sock = TCP("192.168.1.73", 5025)
    print(sock.write_readline(b"*IDN?\\n"))

The contract is that of the other flavours, and so are the rules of a call (``_rules``), its framing (``_buffer``) and
what a connection tells (``_wire``); the waiting this module says in the words of Python 2.7. Any number of threads may
share an object. A call waits for its turn, sends at once, then sleeps in ``poll`` until the reply is there or its time
is up. What a call returns also answers ``.result()``.

Ctrl-C may strike between any two statements. So each call runs inside a generator: Python itself knows whether that is
still running, whatever ended it, and everybody who waits behind a call can ask (on 2.7 a signal can tear even ``with
lock:``). And a link is marked ``writing`` and ``receiving`` around what must not stop halfway: whoever finds such a
mark drops the link.
"""

import errno
import os
import select
import socket
import sys
import threading

from ._buffer import Buffer, anything, reading, terminator
from ._race import Race, lookup
from ._rules import UNSET, Expired, Rules, earliest, given_up
from ._wire import Wire
from .common import (
    DEFAULT_LIMIT,
    DFT_KEEP_ALIVE,
    IPTOS_LOWDELAY,
    POLLIN,
    POLLOUT,
    QUIET,
    SMALL,
    Attempts,
    ConnectionEOFError,
    ConnectionTimeoutError,
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
)

if sys.version_info >= (3,):
    import typing as _t
    from threading import get_ident as _thread
    from time import monotonic as _now

    from ._buffer import Take  # noqa: F401  (in the type comments, like the next)
    from ._rules import Timeout  # noqa: F401

    _ListOfBytes = _t.List[bytes]
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

#: Seconds after which a thread that waits for its turn looks again, should nobody have told it.
_NAP = 0.5
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


class TCP(Rules):
    """A TCP object for Python 2.7: ``reply = tcp.write_readline(b"*IDN?\\n")``."""

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
        self._clock = _now
        self._begin_anew()

    def _begin_anew(self):
        # type: () -> None
        self._link = None  # type: _t.Optional[_Link]
        self._new_link = None  # type: _t.Optional[_Link]
        self._greeting = None  # type: _t.Optional[_Greeting]
        self._queue = []  # type: _t.List[_Ticket]
        self._bells = []  # type: _t.List[_Bell]
        self._pid = os.getpid()

    # Beside the calls that move data.

    def open(self, timeout=UNSET):
        # type: (Timeout) -> Count
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

    def reset_input_buffer(self):
        # type: () -> None
        """Forget all bytes that have arrived and were not read; while somebody is using the object, they are theirs."""
        link = self._visible_link()
        if link is not None:
            self._run(self._reset, link)

    def __enter__(self):
        # type: (_AnyTCP) -> _AnyTCP
        if not self.connected():
            self._open(UNSET, False)
        return self

    def __exit__(self, *exc_info):
        # type: (object) -> None
        self.close()

    def __iter__(self):
        # type: () -> LineStream
        return LineStream(self)

    # The calls that move data.

    def read(self, n=-1, timeout=UNSET):
        # type: (int, Timeout) -> Bytes
        """Read what has arrived, at least one byte.

        Args:
            n: at most so many bytes; -1: everything up to the end of the link
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended
            ConnectionTimeoutError: nothing came in time
        """
        take, wanted = reading(n)
        return Bytes(self._call("read", None, take, wanted, timeout))

    def readline(self, eol=None, timeout=UNSET):
        # type: (_t.Optional[bytes], Timeout) -> Bytes
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
        return Bytes(self._call("readline", None, Buffer.take_until, self._eol(eol), timeout))

    def readlines(self, n, eol=None, timeout=UNSET):
        # type: (int, _t.Optional[bytes], Timeout) -> Lines
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
        return Lines(self._call("readlines", None, Buffer.take_lines, (checked_size(n), self._eol(eol)), timeout))

    def readexactly(self, n, timeout=UNSET):
        # type: (int, Timeout) -> Bytes
        """Read ``n`` bytes, all or none.

        Args:
            n: how many bytes; may be more than ``buffer_size``
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended; what there was of them is in ``partial``
            ConnectionTimeoutError: they weren't there in time; what came is kept for the next read
        """
        return Bytes(self._call("readexactly", None, Buffer.take_exactly, checked_size(n), timeout))

    def readuntil(self, separator=b"\n", timeout=UNSET):
        # type: (bytes, Timeout) -> Bytes
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
        return Bytes(self._call("readuntil", None, Buffer.take_until, wanted, timeout))

    def readbuffer(self, timeout=UNSET):
        # type: (Timeout) -> Bytes
        """Return what has arrived, without waiting for more: maybe nothing.

        Args:
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended, and nothing is left
            ConnectionTimeoutError: no turn, or no connection, in time
        """
        return Bytes(self._call("readbuffer", None, anything, None, timeout))

    def readblock(self, eol=None, timeout=UNSET):
        # type: (_t.Optional[bytes], Timeout) -> Bytes
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
        return Bytes(self._call("readblock", None, Buffer.take_block, self._eol(eol), timeout))

    def write(self, data, timeout=UNSET, idempotent=False):
        # type: (bytes, Timeout, bool) -> Count
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

    def writelines(self, lines, timeout=UNSET, idempotent=False):
        # type: (_t.Iterable[bytes], Timeout, bool) -> Count
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

    def write_read(self, data, n=-1, timeout=UNSET, idempotent=False):
        # type: (bytes, int, Timeout, bool) -> Bytes
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
        take, wanted = reading(n)
        return Bytes(self._request("write_read", payload(data), take, wanted, timeout, idempotent))

    def write_readline(self, data, eol=None, timeout=UNSET, idempotent=False):
        # type: (bytes, _t.Optional[bytes], Timeout, bool) -> Bytes
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
        return Bytes(self._request("write_readline", request, Buffer.take_until, wanted, timeout, idempotent))

    def write_readlines(self, data, n, eol=None, timeout=UNSET, idempotent=False):
        # type: (bytes, int, _t.Optional[bytes], Timeout, bool) -> Lines
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
        return Lines(self._request("write_readlines", payload(data), Buffer.take_lines, wanted, timeout, idempotent))

    def writelines_readlines(self, lines, n=None, eol=None, timeout=UNSET, idempotent=False):
        # type: (_t.Iterable[bytes], _t.Optional[int], _t.Optional[bytes], Timeout, bool) -> Lines
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
            self._request("writelines_readlines", joined(lines), Buffer.take_lines, wanted, timeout, idempotent)
        )

    def write_readblock(self, data, eol=None, timeout=UNSET, idempotent=False):
        # type: (bytes, _t.Optional[bytes], Timeout, bool) -> Bytes
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
        return Bytes(self._request("write_readblock", payload(data), Buffer.take_block, wanted, timeout, idempotent))

    # The rules of a call.

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
        # type: (str, _t.Optional[bytes], _t.Optional[Take], _t.Any, Timeout, bool, _t.Optional[_Stream]) -> _t.Any
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
        # type: (str, bytes, Take, _t.Any, Timeout, bool) -> _t.Any
        """Do a request-reply call; straight, without ``_perform``, if it waits for nothing but the reply."""
        ticket = _Ticket()
        args = (name, request, take, wanted, self._deadline(timeout), idempotent)
        ticket.running = _running(self._ask, ticket, args)
        try:
            return next(ticket.running)
        finally:
            ticket.running = None

    def _ask(self, ticket, name, request, take, wanted, deadline, idempotent):
        # type: (_Ticket, str, bytes, Take, _t.Any, _t.Optional[float], bool) -> _t.Any
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
            sent = link.hand_over(request)
            if sent < len(request):
                link.flush(request, sent, deadline)
            link.more(deadline)
            reply = take(link.buffer, wanted)
            if reply is None:
                reply = self._reply(link, take, wanted, deadline)
            link.settle()
        except BaseException as exc:
            error = self._failed(exc, name, link, request, wanted)
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
        take,  # type: _t.Optional[Take]
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
            deadline = earliest(deadline, scope.deadline)
        failures = 0
        sent = False
        try:
            while True:
                link = None
                try:
                    if failures > 1:
                        self._sleep(self.retry.pause(failures - 1, self._random()), deadline, closings)
                    if deadline == 0.0 and request is not None:
                        raise Expired
                    if scope is None:
                        self._turn(ticket, deadline, closings)
                    sends = request is not None
                    eol = terminator(take, wanted, self.eol) if sends and take is not None else None
                    link = self._fit_link(ticket, scope, sends, eol, deadline, closings, bound)
                    return self._exchange(link, request, take, wanted, deadline)
                except BaseException as exc:
                    error = self._failed(exc, name, link, request, wanted)
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

    def _exchange(self, link, request, take, wanted, deadline):
        # type: (_Link, _t.Optional[bytes], _t.Optional[Take], _t.Any, _t.Optional[float]) -> _t.Any
        link.idle = False
        if request is not None:
            sent = link.hand_over(request)
            if sent < len(request):
                link.flush(request, sent, deadline)
        reply = None if take is None else self._reply(link, take, wanted, deadline)
        if request is not None and take is not None:
            link.settle()
        elif request is not None:
            link.writing = link.sent = False
        return reply

    def _reply(self, link, take, wanted, deadline):
        # type: (_Link, Take, _t.Any, _t.Optional[float]) -> _t.Any
        """Wait for the reply to be complete; what comes after the deadline is too late, even if it never stops."""
        in_time = None  # type: _t.Optional[int]
        reply = take(link.buffer, wanted)
        while reply is None:
            if take == Buffer.take_block:
                reply = self._indefinite_block(link, wanted, deadline)
                if reply is not None:
                    break
            if link.drained or take is anything:
                reply = self._unmet(link, take)
            else:
                if _passed(deadline):
                    if in_time is None:
                        in_time = link.waiting()
                    elif len(link.buffer) >= in_time:
                        raise Expired
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
                    link.more(earliest(deadline, quiet))
                except Expired:
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
            self._check_open(closings)
            free = False
            if scope is not None:
                link = scope.link
            elif bound is not None and bound.link is not None:
                link = bound.link
            else:
                free = True
                link = self._healthy_link(ticket, attempts, deadline, closings, not sends)
            link.user = ticket
            fits = False
            try:
                # The usual case of a write first, which needs no poll object of its own.
                fits = (sends and link.idle and not link.poller.poll(0)) or self._fits(
                    link, free, sends, link.writing or link.receiving, eol
                )
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
        # type: (Timeout, bool) -> Count
        deadline = None if timeout is UNSET else self._deadline(timeout)
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
                    raise self._already_open()
                return
            if link is not None:
                link.retire()
            self._connect(ticket, Attempts(), deadline, closings)
        except BaseException as exc:
            error = self._failed(exc, "open", None, None, None)
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
            link.forget()
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
                self._check_open(closings)
                if not bell.wait(earliest(deadline, _now() + _NAP)) and _passed(deadline):
                    raise Expired
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
                bell.wait(earliest(deadline, _now() + pause))
        finally:
            self._close_bell(bell)
        self._check_open(closings)

    # Links.

    def _healthy_link(self, ticket, attempts, deadline, closings, may_end):
        # type: (_Ticket, Attempts, _t.Optional[float], int, bool) -> _Link
        link = self._link
        if link is not None and not link.dropped:
            return link
        if not self.auto_reconnect:
            raise self._not_open()
        return self._connect(ticket, attempts, deadline, closings, may_end)

    def _connect(self, ticket, attempts, deadline, closings, may_end=False):
        # type: (_Ticket, Attempts, _t.Optional[float], int, bool) -> _Link
        """Attempt to connect as often as the retry policy and the deadline allow (contract R5, T2).

        Args:
            may_end: a new link that ended at once will do as well, if it brought something to read
        """
        while True:
            limit = self.connection_timeout
            attempt_deadline = earliest(deadline, None if limit is None else _now() + limit)
            try:
                link = attempts.link = self._attempt(ticket, attempt_deadline, closings, may_end)
                return link
            except (socket.error, Expired) as exc:
                self._check_open(closings)
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
            raise error if isinstance(error, ConnectionTimeoutError) else self._connect_error(Expired(), error)
        self._sleep(self.retry.pause(attempts.failures, self._random()), deadline, closings)

    def _attempt(self, ticket, deadline, closings, may_end):
        # type: (_Ticket, _t.Optional[float], int, bool) -> _Link
        if _passed(deadline):
            raise Expired
        bell = self._new_bell()
        try:
            self._check_open(closings)
            addresses = self._resolve(bell, deadline, closings)
            sock = self._connected_socket(addresses, bell, deadline, closings)
        finally:
            self._close_bell(bell)
        link = _Link(sock, self.buffer_size, self._peer)
        link.user = ticket
        self._new_link = link
        try:
            self._check_open(closings)
            if self.on_connection_made is not None:
                self._greet(ticket, link, deadline, self.on_connection_made)
                may_end = False
            if link.notice() and not (may_end and link.waiting()):
                link.retire()
                raise link.error(link.buffer.take_all())
            self._link = link
            self._check_open(closings)
        except BaseException as exc:
            self._drop(link, given_up(exc, "connecting"))
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
        self._check_open(closings)
        if not rung:
            raise Expired
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
                    raise Expired
                bell.wait(earliest(deadline, race.next_start), race.connecting)
                self._check_open(closings)
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
            raise Expired

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


class _Link(Wire):
    """A connection that one call uses at a time.

    Attributes:
        user: ticket of the call that is using it
    """

    def __init__(self, sock, buffer_size, peer):
        # type: (socket.socket, int, str) -> None
        super(_Link, self).__init__(sock, buffer_size, peer)
        self.user = None  # type: _t.Optional[_Ticket]
        self._peer = peer

    def flush(self, data, sent, deadline):
        # type: (bytes, int, _t.Optional[float]) -> None
        """Hand ``data`` to the operating system, of which ``sent`` bytes were taken already.

        Raises:
            Expired: the deadline passed first
            OSError: the link broke
        """
        rest = memoryview(data)[sent:]
        poller = Poller()
        poller.register(self.sock, POLLOUT)
        while rest:
            if not _wait(poller.poll, deadline) or _passed(deadline):
                raise Expired
            rest = rest[self.hand_over(rest) :]

    def more(self, deadline):
        # type: (_t.Optional[float]) -> None
        """Wait until bytes were added to the buffer, or the link ended.

        Raises:
            Expired: the deadline passed first
        """
        if not _wait(self.poller.poll, deadline):
            raise Expired
        self.receive()

    def leave(self, ticket):
        # type: (_Ticket) -> None
        """That call isn't using the link any more."""
        if self.user is ticket:
            self.user = None
        if self.dropped:
            self._release()

    def retire(self):
        # type: () -> None
        self.drain()
        self.dropped = True  # type: bool
        self._release()

    def hang_up(self):
        # type: () -> None
        self.dropped = True
        try:
            self.sock.shutdown(socket.SHUT_RDWR)  # wakes the threads that wait for this socket
        except socket.error:
            pass
        self._release()

    def abandon(self):
        # type: () -> None
        """Let go of the link without a word to the peer: it belongs to the parent process."""
        self.ended = self.dropped = self.drained = self.void = True
        self._close()

    def _release(self):
        # type: () -> None
        """Close the descriptor, unless a call is under way: when that one uses it, it could be another file's."""
        if self.user is None or self.user.over:
            self.clear_the_way()
            self._close()

    def _close(self):
        # type: () -> None
        self.send = _closed  # type: _t.Callable[[_t.Any], int]  # on 2.7 the old one would keep the descriptor
        self.sock.close()

    def _report(self, cause, eof):
        # type: (_t.Optional[BaseException], bool) -> None
        log.debug("%s: link ended: %s", self._peer, cause or ("closed by the peer" if eof else "closed"))


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


def _passed(deadline):
    # type: (_t.Optional[float]) -> bool
    return deadline is not None and _now() >= deadline


class _Stream(object):
    """What both kinds of streams share; bound to one link, the one of its first step."""

    def __init__(self, tcp, take, wanted, timeout):
        # type: (TCP, Take, _t.Any, Timeout) -> None
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

    def __init__(self, tcp, eol=None, timeout=UNSET):
        # type: (TCP, _t.Optional[bytes], Timeout) -> None
        wanted = eol if eol is None else checked_separator(eol)
        super(LineStream, self).__init__(tcp, Buffer.take_until, wanted, timeout)


class BlockStream(_Stream):
    """``for block in BlockStream(tcp, limit)``: like ``LineStream``.

    Args:
        tcp: the object to read from
        limit: bytes a block (int), or what ends one (bytes)
        timeout: seconds for each block; default: the object's
    """

    def __init__(self, tcp, limit, timeout=UNSET):
        # type: (TCP, _t.Union[int, bytes], Timeout) -> None
        if isinstance(limit, (bytes, bytearray)):
            wanted = checked_separator(limit, "limit")
            super(BlockStream, self).__init__(tcp, Buffer.take_until, wanted, timeout)
        else:
            size = checked_size(limit, "limit", 1)
            super(BlockStream, self).__init__(tcp, Buffer.take_exactly, size, timeout)


def socket_for_url(url, *args, **kwargs):
    # type: (str, _t.Any, _t.Any) -> TCP
    """Return a ``TCP`` for a ``tcp://host:port`` URL; the other arguments are ``TCP``'s.

    Raises:
        ValueError: another scheme, no host, no port
    """
    host, port = address_of_url(url)
    return TCP(host, port, *args, **kwargs)
