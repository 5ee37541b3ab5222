"""sockio for ``concurrent.futures``: ``TCP``, whose calls return a ``Future`` at once.

    sock = TCP("192.168.1.73", 5025, timeout=1)  # or sockio.sio.TCP(..., resolve_futures=False)
    reply = sock.write_readline(b"*IDN?\\n")
    print(reply.result())

The calls are those of the async flavours, on a reactor of our own: one daemon thread for all objects. ``cancel()``
cancels a call, also one that is under way. Iteration and context managers block, as in ``sockio.sio``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from functools import update_wrapper
from socket import socket
from types import coroutine
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

from . import sio
from ._async import AsyncTCP
from ._reactor import IN, OUT, Call, Pause, reactor
from ._threads import NAP
from ._turns import Bell as BaseBell
from ._turns import Expired, earliest
from ._turns import Ticket as BaseTicket
from .common import ConnectionEOFError, ConnectionTimeoutError, address_of_url
from .sio import BlockStream, LineStream

__all__ = ["TCP", "BlockStream", "ConnectionEOFError", "ConnectionTimeoutError", "LineStream", "socket_for_url"]

P = ParamSpec("P")
T = TypeVar("T")


class Link(sio.Link):
    """A link whose bytes are received when the reactor says that there are some."""

    def __init__(self, core: Any, sock: socket) -> None:
        super().__init__(core, sock)
        self._reactor = reactor()
        self._alone = (sock,)

    @coroutine
    def more(self, deadline: float | None) -> Generator[Pause, bool, None]:
        in_time = yield Pause(self._reactor, deadline, self._alone, IN)
        if not self.receive() and not in_time and (self.dropped or not self.drained):
            raise Expired

    def may_have_ended(self) -> None:
        self._reactor.soon(self.notice)  # after the step that met the error: the system tells only once what broke

    async def flush(self, data: bytes, sent: int, deadline: float | None) -> None:
        rest = memoryview(data)[sent:]
        while rest:
            if not await self._room(deadline):
                raise Expired
            try:
                sent = self.send(rest)
            except BlockingIOError:
                continue  # it was the end of another pause for this socket
            self.sent = True
            rest = rest[sent:]

    @coroutine
    def _room(self, deadline: float | None) -> Generator[Pause, bool, bool]:
        return (yield Pause(self._reactor, deadline, self._alone, OUT))


class Bell(BaseBell):
    """A pause that others can end."""

    def __init__(self) -> None:
        self._reactor = reactor()
        self._rung = False
        self._pause: Pause | None = None

    def ring(self) -> None:
        self._rung = True
        if self._pause is not None:
            self._pause.end()

    ring_from_thread = ring

    async def wait(self, deadline: float | None, connecting: Sequence[socket] = ()) -> bool:
        self._pause = Pause(self._reactor, deadline, connecting, OUT)
        in_time = self._rung or await self._end()
        self._rung = False
        return in_time

    @coroutine
    def _end(self) -> Generator[Pause | None, bool, bool]:
        return (yield self._pause)


class Hint(Bell):
    """What a call waits for whose turn hasn't come; it looks again now and then, should nobody have told it."""

    async def wait(self, deadline: float | None, connecting: Sequence[socket] = ()) -> bool:
        nap = time.monotonic() + NAP
        return await super().wait(earliest(deadline, nap)) or deadline is None or nap < deadline


class Ticket(BaseTicket):
    bell_class: ClassVar[type[BaseBell]] = Hint


def _started(tcp: Any, coroutine: Coroutine[Any, Any, T]) -> Call[T]:
    call = Call(coroutine, tcp._callbacks)
    call.start()
    return call


def _starts(
    function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[[object], Callable[Concatenate[Any, P], Future[T]]]:
    """Return a decorator that makes a method of that coroutine function, one that starts it."""

    def start(self: Any, /, *args: P.args, **options: P.kwargs) -> Future[T]:
        return _started(self, function(self, *args, **options))

    update_wrapper(start, function)
    return lambda _: start


class _Calls:
    """The calls of the async flavours, started instead of awaited."""

    @_starts(AsyncTCP.open)
    def open(self) -> None: ...
    @_starts(AsyncTCP.close)
    def close(self) -> None: ...
    @_starts(AsyncTCP.read)
    def read(self) -> None: ...
    @_starts(AsyncTCP.readline)
    def readline(self) -> None: ...
    @_starts(AsyncTCP.readlines)
    def readlines(self) -> None: ...
    @_starts(AsyncTCP.readexactly)
    def readexactly(self) -> None: ...
    @_starts(AsyncTCP.readuntil)
    def readuntil(self) -> None: ...
    @_starts(AsyncTCP.readbuffer)
    def readbuffer(self) -> None: ...
    @_starts(AsyncTCP.readblock)
    def readblock(self) -> None: ...
    @_starts(AsyncTCP.write)
    def write(self) -> None: ...
    @_starts(AsyncTCP.writelines)
    def writelines(self) -> None: ...
    @_starts(AsyncTCP.write_read)
    def write_read(self) -> None: ...
    @_starts(AsyncTCP.write_readline)
    def write_readline(self) -> None: ...
    @_starts(AsyncTCP.write_readlines)
    def write_readlines(self) -> None: ...
    @_starts(AsyncTCP.writelines_readlines)
    def writelines_readlines(self) -> None: ...
    @_starts(AsyncTCP.write_readblock)
    def write_readblock(self) -> None: ...

    _before_call = None
    _call = AsyncTCP._call
    _request = AsyncTCP._request
    _ticketed_open = AsyncTCP._ticketed_open


class TCP(_Calls, sio.TCP):  # type: ignore[misc]  # the same calls as in sio, whose results come later
    """A TCP object whose calls return a ``Future``: ``reply = tcp.write_readline(b"*IDN?\\\\n").result()``.

    A callback may return a ``Future``, too: a new link isn't used before that of ``on_connection_made`` is done.
    """

    _bell_class = Bell
    _ticket_class = Ticket
    _link_class = Link

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        call = _started(self, coroutine)
        try:
            return call.result()
        except BaseException:
            call.cancel()
            raise

    async def _call_back(self, callback: Callable[..., Any], bell: BaseBell, deadline: float | None) -> None:
        result: Future[Any] | None = await self._outcome(_on_a_thread(callback), bell, deadline)
        if isinstance(result, Future):
            try:
                await self._outcome(result, bell, deadline)
            finally:
                result.cancel()

    async def _outcome(self, future: Future[Any], bell: BaseBell, deadline: float | None) -> Any:
        closings = self._closings
        future.add_done_callback(lambda _: bell.ring_from_thread())
        while not future.done():
            if not await bell.wait(deadline):
                raise Expired
            self._check_open(closings)
        return future.result()


def _on_a_thread(function: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()
    context = copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(function))
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, name="sockio callback", daemon=True).start()
    return future


def socket_for_url(url: str, *args: Any, **options: Any) -> TCP:
    """Return a ``TCP`` for a ``tcp://host:port`` URL; the other arguments are ``TCP``'s.

    Raises:
        ValueError: another scheme, no host, no port
    """
    return TCP(*address_of_url(url), *args, **options)
