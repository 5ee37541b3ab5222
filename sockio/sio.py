"""sockio for plain blocking code and threads: ``TCP``, whose calls return when they are done.

    sock = TCP("192.168.1.73", 5025, timeout=1)
    print(sock.write_readline(b"*IDN?\n"))

No event loop is in the path of a call: the socket is non-blocking, a call sends at once, then sleeps in ``poll`` until
the reply is there or its deadline. Any number of threads may share an object.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import Context
from inspect import iscoroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

from ._base import Options
from ._buffer import Buffer
from ._core import Core
from ._link import Link as BaseLink
from ._link import SocketLink
from ._rules import UNSET, Take, Timeout, anything, checked_separator, checked_size, joined, listed, payload, reading
from ._streams import Blocks, End, Lines, Stream
from ._threads import Bell, Callbacks, Ticket, left_of, on_loop, watcher
from ._turns import Bell as BaseBell
from ._turns import Expired, held
from ._turns import Ticket as BaseTicket
from .common import ConnectionEOFError, ConnectionTimeoutError, address_of_url

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from ._eventloop import DefaultEventLoop, EventLoop
    from .futures import TCP as FuturesTCP

__all__ = [
    "TCP",
    "BlockStream",
    "ConnectionEOFError",
    "ConnectionTimeoutError",
    "DefaultEventLoop",
    "EventLoop",
    "LineStream",
    "socket_for_url",
]

T = TypeVar("T")


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of the core to its end: in this flavour it never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    raise RuntimeError("a blocking call was suspended")


class _Done:
    """What a wait returns that was over before it could be awaited."""

    def __await__(self) -> Iterator[Any]:
        return iter(())


_DONE: Any = _Done()


class Link(SocketLink):
    """A link whose bytes are received by the thread that waits for them."""

    sent: bool

    def more(self, deadline: float | None) -> Any:
        if not self.poller.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
            raise Expired
        self.receive()
        return _DONE

    async def flush(self, data: bytes, sent: int, deadline: float | None) -> None:
        rest = memoryview(data)[sent:]
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, selectors.EVENT_WRITE)
            while rest:
                if not selector.select(left_of(deadline)):
                    raise Expired
                sent = self.send(rest)
                self.sent = self.sent or sent > 0
                rest = rest[sent:]


class Threaded(Core):
    """A TCP object among threads: event callbacks run on daemon threads, coroutines on ``DefaultEventLoop``.

    Args:
        resolve_futures: what ``TCP`` is told by it
        options: see ``TCP``
    """

    def __init__(self, host: str, port: int, resolve_futures: bool = True, **options: Unpack[Options]) -> None:
        self._callbacks = Callbacks()
        super().__init__(host, port, **options)

    def _start_callback(self, link: BaseLink, context: Context, callback: Callable[..., Any], *args: object) -> None:
        self._callbacks.start(context, callback, *args)

    def _incomplete(self, error: ConnectionEOFError, expected: int | None) -> ConnectionEOFError:
        from .aio import IncompleteReadError  # brings asyncio along: only when there is one

        return IncompleteReadError(str(error), error.partial, error.request_sent, expected)

    def _after_fork(self) -> None:
        super()._after_fork()
        self._callbacks = Callbacks()


class TCP(Threaded):
    """A TCP object for plain blocking code: ``reply = tcp.write_readline(b"*IDN?\\n")``.

    With ``resolve_futures=False`` one whose calls return ``concurrent.futures.Future``: see ``sockio.futures``.
    """

    _bell_class: ClassVar[type[BaseBell]] = Bell
    _ticket_class: ClassVar[type[BaseTicket]] = Ticket
    _link_class: ClassVar[type[Link]] = Link

    @overload
    def __new__(
        cls, host: str, port: int, resolve_futures: Literal[True] = True, **options: Unpack[Options]
    ) -> Self: ...

    @overload
    def __new__(
        cls, host: str, port: int, resolve_futures: Literal[False], **options: Unpack[Options]
    ) -> FuturesTCP: ...

    def __new__(cls, host: str, port: int, resolve_futures: bool = True, **options: Unpack[Options]) -> Any:
        if resolve_futures:
            return super().__new__(cls)
        from .futures import TCP as FuturesTCP

        if not issubclass(FuturesTCP, cls):
            raise TypeError(f"{cls.__name__}(resolve_futures=False): derive it from sockio.futures.TCP instead")
        return super().__new__(FuturesTCP)

    def open(self, *, timeout: Timeout = UNSET) -> None:
        """Connect.

        Args:
            timeout: seconds for everything; default: ``connection_timeout`` for each attempt

        Raises:
            ConnectionError: the object is open already
            OSError: the connection failed
        """
        with held(self._ticket_class()) as ticket:
            drive(self._open(ticket, timeout))

    def close(self) -> None:
        """Close the link, if any; every thread that waits for something raises ``ConnectionClosedError``."""
        self._close()

    def __enter__(self: S) -> S:
        if not self.connected():
            with held(self._ticket_class()) as ticket:
                self._run(self._open(ticket, UNSET, must_be_new=False))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    @contextmanager
    def transaction(self: S, *, timeout: Timeout = UNSET) -> Generator[S]:
        """Keep the object to this thread for several calls.

        If the link is lost inside, the rest of the block raises instead of going on with a new link.

        Args:
            timeout: seconds to wait for the turn and the link; default: the object's
        """
        around = self._scope() or self
        with (
            held(self._ticket_class()) as ticket,
            self._exclusively(around, ticket, self._run(self._begin(around, ticket, timeout))),
        ):
            yield self

    def read(self, n: int = -1, *, timeout: Timeout = UNSET) -> bytes:
        """Read what has arrived, at least one byte.

        Args:
            n: at most so many bytes; -1: everything up to the end of the link
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended
            ConnectionTimeoutError: nothing came in time
        """
        return self._call("read", None, *reading(n), timeout)  # type: ignore[no-any-return]

    def readline(self, eol: bytes | None = None, *, timeout: Timeout = UNSET) -> bytes:
        """Read a line, and return it with its end.

        Args:
            eol: what ends it; default: the object's
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended; what there was of a line is in ``partial``
            LimitOverrunError: the line is longer than ``buffer_size``
            ConnectionTimeoutError: it wasn't there in time; its bytes are kept for the next read
        """
        return self._call("readline", None, Buffer.take_until, self._eol(eol), timeout)  # type: ignore[no-any-return]

    def readlines(self, n: int, eol: bytes | None = None, *, timeout: Timeout = UNSET) -> list[bytes]:
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
        wanted = checked_size(n), self._eol(eol)
        return self._call("readlines", None, Buffer.take_lines, wanted, timeout)  # type: ignore[no-any-return]

    def readexactly(self, n: int, *, timeout: Timeout = UNSET) -> bytes:
        """Read ``n`` bytes, all or none.

        Args:
            n: how many bytes; may be more than ``buffer_size``
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended; what there was of them is in ``partial``
            ConnectionTimeoutError: they weren't there in time; what came is kept for the next read
        """
        return self._call("readexactly", None, Buffer.take_exactly, checked_size(n), timeout)  # type: ignore[no-any-return]

    def readuntil(self, separator: bytes = b"\n", *, timeout: Timeout = UNSET) -> bytes:
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
        return self._call("readuntil", None, Buffer.take_until, wanted, timeout)  # type: ignore[no-any-return]

    def readbuffer(self, *, timeout: Timeout = UNSET) -> bytes:
        """Return what has arrived, without waiting for more: maybe nothing.

        Args:
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended, and nothing is left
            ConnectionTimeoutError: no turn, or no connection, in time
        """
        return self._call("readbuffer", None, anything, None, timeout)  # type: ignore[no-any-return]

    def readblock(self, eol: bytes | None = None, *, timeout: Timeout = UNSET) -> bytes:
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
        return self._call("readblock", None, Buffer.take_block, self._eol(eol), timeout)  # type: ignore[no-any-return]

    def write(self, data: bytes, *, timeout: Timeout = UNSET, idempotent: bool = False) -> None:
        """Hand all of ``data`` to the operating system.

        Args:
            data: bytes to send
            timeout: seconds for the whole call; default: the object's
            idempotent: whether it does no harm to send ``data`` twice; then it is sent again after a loss

        Raises:
            LinkError: the link failed; ``request_sent`` tells whether a byte may have left
            OSError: no connection
        """
        self._call("write", payload(data), None, None, timeout, idempotent)

    def writelines(self, lines: Iterable[bytes], *, timeout: Timeout = UNSET, idempotent: bool = False) -> None:
        """Hand all lines to the operating system, in one piece.

        Args:
            lines: bytes to send, each with its own end
            timeout: seconds for the whole call; default: the object's
            idempotent: whether it does no harm to send this twice; then it is sent again after a loss

        Raises:
            LinkError: the link failed, or time was up; ``request_sent`` tells whether a byte may have left
            OSError: no connection
        """
        self._call("writelines", joined(lines), None, None, timeout, idempotent)

    def write_read(self, data: bytes, n: int = -1, *, timeout: Timeout = UNSET, idempotent: bool = False) -> bytes:
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
        request = self._request if n else self._call  # nothing to wait for
        return request("write_read", payload(data), *reading(n), timeout, idempotent)  # type: ignore[no-any-return]

    def write_readline(
        self,
        data: bytes,
        eol: bytes | None = None,
        *,
        timeout: Timeout = UNSET,
        idempotent: bool = False,
    ) -> bytes:
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
        return self._request(  # type: ignore[no-any-return]
            "write_readline",
            payload(data),
            Buffer.take_until,
            self._eol(eol),
            timeout,
            idempotent,
        )

    def write_readlines(
        self,
        data: bytes,
        n: int,
        eol: bytes | None = None,
        *,
        timeout: Timeout = UNSET,
        idempotent: bool = False,
    ) -> list[bytes]:
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
        wanted = checked_size(n), self._eol(eol)
        request = self._request if n else self._call  # nothing to wait for
        return request(  # type: ignore[no-any-return]
            "write_readlines",
            payload(data),
            Buffer.take_lines,
            wanted,
            timeout,
            idempotent,
        )

    def writelines_readlines(
        self,
        lines: Iterable[bytes],
        n: int | None = None,
        eol: bytes | None = None,
        *,
        timeout: Timeout = UNSET,
        idempotent: bool = False,
    ) -> list[bytes]:
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
        wanted = checked_size(len(lines) if n is None else n), self._eol(eol)
        request = self._request if wanted[0] else self._call  # nothing to wait for
        return request(  # type: ignore[no-any-return]
            "writelines_readlines", joined(lines), Buffer.take_lines, wanted, timeout, idempotent
        )

    def write_readblock(
        self, data: bytes, eol: bytes | None = None, *, timeout: Timeout = UNSET, idempotent: bool = False
    ) -> bytes:
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
        return self._request(  # type: ignore[no-any-return]
            "write_readblock", payload(data), Buffer.take_block, self._eol(eol), timeout, idempotent
        )

    def reset_input_buffer(self) -> None:
        """Forget all bytes that have arrived and were not read; while somebody is reading, they are theirs."""
        with held(self._ticket_class()) as ticket:
            self._reset(ticket)

    def __iter__(self) -> LineStream:
        return LineStream(self)

    def _call(
        self,
        name: str,
        request: bytes | None,
        take: Take | None,
        wanted: Any,
        timeout: Timeout,
        idempotent: bool = False,
    ) -> Any:
        deadline = self._deadline(timeout)
        with held(self._ticket_class()) as ticket:
            return drive(self._perform(ticket, name, request, take, wanted, deadline, idempotent))

    def _request(self, name: str, request: bytes, take: Take, wanted: Any, timeout: Timeout, idempotent: bool) -> Any:
        """Do a request-reply call; straight, without the core's coroutines, if it waits for nothing but the reply."""
        deadline = self._deadline(timeout)
        spare = self._spare
        try:
            ticket = spare.pop()
        except IndexError:
            ticket = Ticket()
        link = None
        try:
            with ticket.lock:
                link = None if idempotent or deadline == 0.0 else self._straight(ticket)
                if link is None:
                    return drive(self._perform(ticket, name, request, take, wanted, deadline, idempotent))
                try:
                    sent = link.begin(request)
                    if sent < len(request):
                        drive(link.flush(request, sent, deadline))
                    link.more(deadline)
                    reply = take(link.buffer, wanted)
                    if reply is None:
                        reply = drive(self._reply(link, take, wanted, deadline))
                    link.settle()
                    queues = self.queues
                    queues.reads.remove(ticket)
                    queues.writes.remove(ticket)
                    link.reader = link.writer = None
                    if link.dropped:
                        link.release()
                    return reply
                except BaseException as exc:
                    error = self._failed(exc, name, link, request, wanted)
                    self._leave(self, ticket, link)
                    raise error from error.__cause__
        finally:
            if ticket.bells:
                ticket.wake()
            elif link is not None and not self.queues.reads and not self.queues.writes:
                spare.append(ticket)  # nobody knows it any more

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Do what blocks in every kind of object."""
        return drive(coroutine)

    async def _new_link_on(self, sock: socket.socket) -> Link:
        link = self._link_class(self, sock)
        watcher().watch(link)
        return link

    async def _call_back(self, callback: Callable[..., Any], bell: BaseBell, deadline: float | None) -> None:
        await self._settle(callback(), bell, deadline)

    async def _settle(self, result: Any, bell: BaseBell, deadline: float | None) -> None:
        """Wait for what a callback returned, if that can be waited for."""
        future: Future[Any] | None = on_loop(result) if iscoroutine(result) else result
        if isinstance(future, Future):
            try:
                await self._outcome(future, bell, deadline)
            finally:
                future.cancel()

    async def _outcome(self, future: Future[Any], bell: BaseBell, deadline: float | None) -> Any:
        closings = self._closings
        future.add_done_callback(lambda _: bell.ring_from_thread())
        while not future.done():
            if not await bell.wait(deadline):
                raise Expired
            self._check_open(closings)
        return future.result()


S = TypeVar("S", bound=TCP)


class _Steps(Stream[TCP]):
    def __iter__(self: _S) -> _S:
        return self

    def __next__(self) -> bytes:
        try:
            return self._pop()
        except IndexError:
            return self._next()

    def _next(self) -> bytes:
        with held(self.tcp._ticket_class()) as ticket:
            try:
                return self.tcp._run(self._step(ticket))
            except End:
                raise StopIteration from None


_S = TypeVar("_S", bound=_Steps)


class LineStream(_Steps, Lines[TCP]):
    """``for line in LineStream(tcp, eol)``: the lines that come in on one link, until its end.

    Args:
        tcp: the object to read from
        eol: what ends a line; default: the object's
        reconnect: carry on over a lost link; a line that was cut off is dropped, never joined to the next link's
        timeout: seconds for each line; default: the object's

    Raises (each step):
        ConnectionEOFError: the link ended inside a line, whose bytes are in ``partial``
        ConnectionLostError: the link broke
        ConnectionTimeoutError: no line in time; the stream can go on
    """


class BlockStream(_Steps, Blocks[TCP]):
    """``for block in BlockStream(tcp, limit)``: like ``LineStream``.

    Args:
        limit: bytes a block (int), or what ends one (bytes)
    """


@overload
def socket_for_url(url: str, resolve_futures: Literal[True] = True, **options: Unpack[Options]) -> TCP: ...


@overload
def socket_for_url(url: str, resolve_futures: Literal[False], **options: Unpack[Options]) -> FuturesTCP: ...


def socket_for_url(url: str, *args: Any, **options: Any) -> Any:
    """Return a ``TCP`` for a ``tcp://host:port`` URL; the other arguments are ``TCP``'s.

    Raises:
        ValueError: another scheme, no host, no port
    """
    return TCP(*address_of_url(url), *args, **options)


def __getattr__(name: str) -> Any:
    """``EventLoop`` and ``DefaultEventLoop`` bring asyncio with them: only for those who ask."""
    if name in ("DefaultEventLoop", "EventLoop"):
        from . import _eventloop

        return getattr(_eventloop, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
