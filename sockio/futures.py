"""sockio for ``concurrent.futures``: ``TCP``, whose calls return a ``Future`` at once.

    sock = TCP("192.168.1.73", 5025, timeout=1)  # or sockio.sio.TCP(..., resolve_futures=False)
    reply = sock.write_readline(b"*IDN?\\n")
    print(reply.result())

The calls are those of the async flavours, on a reactor of our own: one daemon thread for all objects. ``cancel()``
cancels a call, also one that is under way. Iteration and context managers block, as in ``sockio.sio``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from concurrent.futures import Future
from functools import wraps
from socket import socket
from types import coroutine
from typing import Any, TypeVar

from . import sio
from ._async import Awaited
from ._calls import each_call
from ._reactor import IN, OUT, Call, Pause, reactor
from ._rules import UNSET, Expired, Timeout, earliest
from ._threads import NAP, on_a_thread
from ._turns import Bell as BaseBell
from .common import ConnectionEOFError, ConnectionTimeoutError, address_of_url
from .sio import BlockStream, LineStream

__all__ = ["TCP", "BlockStream", "ConnectionEOFError", "ConnectionTimeoutError", "LineStream", "socket_for_url"]

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

    @coroutine
    def room(self, deadline: float | None) -> Generator[Pause, bool, None]:
        if not (yield Pause(self._reactor, deadline, self._alone, OUT)):
            raise Expired


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


def _started(tcp: Any, coroutine: Coroutine[Any, Any, T]) -> Call[T]:
    call = Call(coroutine, tcp._callbacks)
    call.start()
    return call


def _starting(call: Callable[..., Any]) -> Callable[..., Future[Any]]:
    """Return the method that starts a method of ``Calls``."""

    @wraps(call)
    def start(self: TCP, /, *args: Any, **options: Any) -> Future[Any]:
        try:
            coroutine = call(self, *args, **options)
        except Exception as exc:  # an argument is wrong
            refused: Future[Any] = Future()
            refused.set_exception(exc)
            return refused
        return _started(self, coroutine)

    return start


@each_call(_starting)
class TCP(Awaited[Future[bytes], Future[list[bytes]], Future[None]], sio.TCP):  # pyright: ignore[reportGeneralTypeIssues]
    """A TCP object whose calls return a ``Future``: ``reply = tcp.write_readline(b"*IDN?\\n").result()``.

    A callback may return a ``Future``, too: a new link isn't used before that of ``on_connection_made`` is done.
    """

    _bell_class = Bell
    _hint_class = Hint
    _link_class = Link

    def open(self, *, timeout: Timeout = UNSET) -> Future[None]:  # type: ignore[override]  # later
        """Connect.

        Args:
            timeout: seconds for everything; default: ``connection_timeout`` for each attempt

        Raises:
            ConnectionError: the object is open already
            OSError: the connection failed
        """
        return _started(self, self._ticketed_open(timeout, must_be_new=True))

    def close(self) -> Future[None]:  # type: ignore[override]  # later
        """Close the link, if any; the future of every call under way raises ``ConnectionClosedError``."""
        self._close()
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        call = _started(self, coroutine)
        try:
            return call.result()
        except BaseException:
            call.cancel()
            raise

    async def _call_back(self, callback: Callable[..., Any], bell: BaseBell, deadline: float | None) -> None:
        result = await self._outcome(on_a_thread(callback), bell, deadline)
        await self._settle(result, bell, deadline)


def socket_for_url(url: str, *args: Any, **options: Any) -> TCP:
    """Return a ``TCP`` for a ``tcp://host:port`` URL; the other arguments are ``TCP``'s.

    Raises:
        ValueError: another scheme, no host, no port
    """
    return TCP(*address_of_url(url), *args, **options)
