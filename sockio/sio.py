"""sockio for plain blocking code and threads: ``TCP``, whose calls return when they are done.

    sock = TCP("192.168.1.73", 5025, timeout=1)
    print(sock.write_readline(b"*IDN?\n"))

No event loop is in the path of a call: the socket is non-blocking, a call sends at once, then sleeps in ``poll`` until
the reply is there or its deadline. Any number of threads may share an object.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import Context
from inspect import iscoroutine
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

from ._base import Options
from ._buffer import Take
from ._calls import Calls, Done, Replies, Reply
from ._link import Link as BaseLink
from ._link import SocketLink
from ._rules import UNSET, Expired, Timeout
from ._streams import Blocks, End, Lines, Stream
from ._threads import LONGEST, Bell, Callbacks, Hint, left_of, on_a_thread, on_loop, watcher
from ._turns import Bell as BaseBell
from ._turns import Ticket, held
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

S = TypeVar("S", bound="TCP")
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

    def more(self, deadline: float | None) -> Any:
        if deadline is None:
            self.poller.poll(None)
        else:
            milliseconds: float = 1 if deadline else 0  # what comes within a millisecond costs no look at the clock
            while not self.poller.poll(milliseconds):
                left = deadline - monotonic()
                if left <= 0:
                    raise Expired
                milliseconds = min(left, LONGEST) * 1000
        self.receive()
        return _DONE

    def room(self, deadline: float | None) -> Any:
        left = left_of(deadline)
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, selectors.EVENT_WRITE)
            if left == 0.0 or not selector.select(left):
                raise Expired
        return _DONE


class Threaded(Calls[Reply, Replies, Done]):
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


class TCP(Threaded[bytes, list[bytes], None]):
    """A TCP object for plain blocking code: ``reply = tcp.write_readline(b"*IDN?\\n")``.

    With ``resolve_futures=False`` one whose calls return ``concurrent.futures.Future``: see ``sockio.futures``.
    """

    _bell_class: ClassVar[type[BaseBell]] = Bell
    _hint_class: ClassVar[type[BaseBell] | None] = Hint
    _link_class: ClassVar[type[Link]] = Link

    @overload
    def __new__(
        cls, host: str, port: int, resolve_futures: Literal[True] = True, **options: Unpack[Options]
    ) -> Self: ...

    @overload
    def __new__(
        cls, host: str, port: int, resolve_futures: Literal[False], **options: Unpack[Options]
    ) -> FuturesTCP: ...

    @overload
    def __new__(  # type: ignore[misc]  # a union; used as one
        cls, host: str, port: int, resolve_futures: bool, **options: Unpack[Options]
    ) -> Self | FuturesTCP: ...

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
        with held() as ticket:
            drive(self._open(ticket, timeout))

    def close(self) -> None:
        """Close the link, if any; every thread that waits for something raises ``ConnectionClosedError``."""
        self._close()

    def __enter__(self: S) -> S:
        if not self.connected():
            with held() as ticket:
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

        Raises:
            ConnectionTimeoutError: no turn, or no connection, in time
            OSError: no connection
        """
        around = self._scope() or self
        with (
            held() as ticket,
            self._exclusively(around, ticket, self._run(self._begin(around, ticket, timeout))),
        ):
            yield self

    def reset_input_buffer(self) -> None:
        """Forget all bytes that have arrived and were not read; while somebody is reading, they are theirs."""
        with held() as ticket:
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
        /,
    ) -> Any:
        deadline = self._deadline(timeout)
        with held() as ticket:
            return drive(self._perform(ticket, name, request, take, wanted, deadline, idempotent))

    def _request(
        self, name: str, request: bytes, take: Take, wanted: Any, timeout: Timeout, idempotent: bool, /
    ) -> Any:
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
                    sent = link.hand_over(request)
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
                if not future.done():
                    on_a_thread(future.cancel)  # which runs the callbacks of whoever made it

    async def _outcome(self, future: Future[Any], bell: BaseBell, deadline: float | None) -> Any:
        closings = self._closings
        future.add_done_callback(lambda _: bell.ring_from_thread())
        while not future.done():
            if not await bell.wait(deadline):
                raise Expired
            self._check_open(closings)
        return future.result()


class _Steps(Stream[TCP]):
    def __iter__(self: _S) -> _S:
        return self

    def __next__(self) -> bytes:
        try:
            return self._pop()
        except IndexError:
            return self._next()

    def _next(self) -> bytes:
        with held() as ticket:
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


@overload
def socket_for_url(url: str, resolve_futures: bool, **options: Unpack[Options]) -> TCP | FuturesTCP: ...


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
