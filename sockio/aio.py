"""sockio for asyncio: ``TCP``, whose calls are awaited. Runs on the event loop that the caller runs on, uvloop's too.

    sock = TCP("192.168.1.73", 5025, timeout=1)
    print(await sock.write_readline(b"*IDN?\\n"))

Receiving is asyncio's (``BufferedProtocol``: what arrives unasked, and ends, are seen at once); a request goes straight
to the socket, which takes it whole unless it is large.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import Context
from inspect import isawaitable
from typing import Any, cast
from weakref import WeakKeyDictionary

from ._async import AsyncTCP, BlockStream, LineStream
from ._core import Core
from ._link import Link as BaseLink
from ._rules import Expired
from ._turns import Bell as BaseBell
from .common import CHUNK, DFT_KEEP_ALIVE, ConnectionEOFError, ConnectionTimeoutError, address_of_url, log

__all__ = [
    "DFT_KEEP_ALIVE",
    "TCP",
    "BlockStream",
    "ConnectionEOFError",
    "ConnectionTimeoutError",
    "LineStream",
    "socket_for_url",
]

# A selector loop (uvloop, too) asks for the buffer, fills it and hands it back without a pause: its links can share
# one. Those of another loop can't, as that one may run on another thread.
_chunks: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def _chunk_of(loop: asyncio.AbstractEventLoop) -> memoryview:
    chunk = _chunks.get(loop)
    if chunk is None:
        chunk = _chunks[loop] = memoryview(bytearray(CHUNK))
    return chunk


class IncompleteReadError(ConnectionEOFError, asyncio.IncompleteReadError):
    """The end of the link cut off an exact read. Also what asyncio's streams raise then.

    Attributes:
        expected: how many bytes were wanted; ``None`` for ``readuntil``
    """

    def __init__(
        self, message: str = "", partial: bytes = b"", request_sent: bool = False, expected: int | None = None
    ) -> None:
        ConnectionEOFError.__init__(self, message, partial, request_sent)
        self.expected = expected


class Link(BaseLink, asyncio.BufferedProtocol):
    """A link whose bytes are brought by an asyncio transport."""

    paused: bool
    drained: bool

    def __init__(self, core: Core, sock: socket.socket) -> None:
        super().__init__(core, sock)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._chunk = _chunk_of(self._loop) if _watches_sockets(self._loop) else memoryview(bytearray(CHUNK))
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._read_deadline: float | None = None
        self._write_deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._full = False

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(0)

    def get_buffer(self, sizehint: int) -> memoryview:
        if self.buffer.target is None:
            return self._chunk
        space = self.buffer.space()
        return self._chunk if space is None else space

    def buffer_updated(self, nbytes: int) -> None:
        if self.buffer.target is None or self.buffer.space() is None:
            self.arrived(self._chunk[:nbytes].tobytes())
        else:
            self.buffer.filled(nbytes)
            if self.buffer.space() is not None:
                return
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)
            return
        self.idle = False
        if len(self.buffer) >= self.buffer.limit:
            self.paused = True
            cast(asyncio.Transport, self._transport).pause_reading()

    def eof_received(self) -> None:
        self.drained = True
        self.end(None, eof=True)
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.drained = True
        self.end(exc)
        self._wake()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    # What the core calls.

    def more(self, deadline: float | None) -> asyncio.Future[None]:
        self._reader = reader = self._loop.create_future()
        self._read_deadline = deadline
        if deadline is not None and deadline < self._timer_at:
            self._arm(deadline)
        if self.paused:
            self.resume()
        if self.drained:
            self._wake()
        return reader

    async def flush(self, data: bytes, sent: int, deadline: float | None) -> None:
        transport = self._transport
        if transport is None:
            raise self.error()
        transport.write(memoryview(data)[sent:])
        self.sent = True
        if self.traced:
            self.trace_sent(data[sent:])
        while (transport.get_write_buffer_size() or transport.is_closing()) and not self.drained:
            if not self._full:  # how it went is told at the end of the iteration: a failure, and by uvloop all
                await asyncio.sleep(0)
                continue
            self._writer = self._loop.create_future()
            self._write_deadline = deadline
            if deadline is not None and deadline < self._timer_at:
                self._arm(deadline)
            try:
                await self._writer
            finally:
                self._writer = None
        if self.drained and self.ended:
            raise self.error()

    def resume(self) -> None:
        self.paused = False
        if not self.drained and not self._loop.is_closed():
            cast(asyncio.Transport, self._transport).resume_reading()

    def hang_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_at = math.inf
        transport, self._transport = self._transport, None
        if transport is None:
            return
        if _running_loop() is self._loop:
            self._wake()
            self.clear_the_way()
            transport.abort()
            return
        try:
            self._loop.call_soon_threadsafe(transport.abort)
            return
        except RuntimeError:
            pass  # the loop is closed
        self.sock.close()
        if hasattr(transport, "_sock"):  # asyncio's own: it can't be closed without its loop, and would complain
            setattr(transport, "_sock", None)  # noqa: B010

    def _wake(self) -> None:
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        self._reader = None

    # One timer a link serves all its calls: it is set anew only when it fires too early.

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_later(deadline - time.monotonic(), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        now = time.monotonic()
        left: list[float] = []
        for waiter, deadline in ((self._reader, self._read_deadline), (self._writer, self._write_deadline)):
            if waiter is None or waiter.done() or deadline is None:
                continue
            if deadline > now:
                left.append(deadline)
            elif waiter is self._reader and (self.receive() or self.drained):
                self._wake()  # it came in time, though the loop was late
            else:
                waiter.set_exception(Expired())
        if left:
            self._arm(min(left))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _watches_sockets(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop tells when a socket is ready: Windows' own can't."""
    return type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader


class Bell(BaseBell):
    """A future of the running loop: True when the bell has rung, False when the deadline has passed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[bool] = self._loop.create_future()

    def ring(self) -> None:
        if not self._future.done() and not self._loop.is_closed():
            self._future.set_result(True)

    def ring_from_thread(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self.ring)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    async def wait(self, deadline: float | None, connecting: Sequence[socket.socket] = ()) -> bool:
        if self._future.done():
            self._future = self._loop.create_future()
        timers: list[asyncio.TimerHandle] = []
        if deadline is not None:
            timers.append(self._loop.call_later(max(0.0, deadline - time.monotonic()), self._late))
        if connecting and not _watches_sockets(self._loop):
            timers.append(self._loop.call_later(0.01, self.ring))  # look again
            connecting = ()
        try:
            for sock in connecting:
                self._loop.add_writer(sock, self.ring)
            return await self._future
        finally:
            for sock in connecting:
                self._loop.remove_writer(sock)
            for timer in timers:
                timer.cancel()

    def _late(self) -> None:
        if not self._future.done():
            self._future.set_result(False)


class TCP(AsyncTCP):
    """A TCP object for asyncio: ``reply = await tcp.write_readline(b"*IDN?\\n")``."""

    _bell_class = Bell
    _world = staticmethod(asyncio.get_running_loop)
    _runner = "asyncio.run(...)"

    async def close(self) -> None:
        """Close the link, if any; every caller that waits for something raises ``ConnectionClosedError``.

        A plain ``on_connection_lost`` has run when this returns.
        """
        await super().close()
        await asyncio.sleep(0)

    async def _new_link_on(self, sock: socket.socket) -> Link:
        link = Link(self, sock)
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: link, sock=sock)
            if not self.no_delay:  # uvloop has switched it on
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        except BaseException:
            sock.close()
            raise
        return link

    async def _call_back(self, callback: Callable[..., Any], bell: BaseBell, deadline: float | None) -> None:
        with _its_own(callback):
            result = callback()
        if not isawaitable(result):
            return
        task = asyncio.ensure_future(result)
        task.add_done_callback(lambda _: bell.ring())
        closings = self._closings
        try:
            while not task.done() and self._closings == closings:
                if not await bell.wait(deadline):
                    raise Expired
            if task.done():
                with _its_own(callback):
                    task.result()
        finally:
            task.cancel()

    def _start_callback(self, link: BaseLink, context: Context, callback: Callable[..., Any], *args: object) -> None:
        loop = _running_loop() or cast(Link, link)._loop
        if not loop.is_closed():  # else nobody is left to be told
            loop.call_soon_threadsafe(self._run_callback, callback, args, context=context)

    def _run_callback(self, callback: Callable[..., Any], args: tuple[object, ...]) -> None:
        async def finish(result: Any) -> None:
            with _logged(callback):
                await result

        with _logged(callback):
            result = callback(*args)
            if isawaitable(result):
                task = asyncio.ensure_future(finish(result))
                _callbacks.add(task)
                task.add_done_callback(_callbacks.discard)

    async def _checkpoint(self) -> None:
        await asyncio.sleep(0)

    def _incomplete(self, error: ConnectionEOFError, expected: int | None) -> ConnectionEOFError:
        return IncompleteReadError(str(error), error.partial, error.request_sent, expected)


_callbacks: set[asyncio.Future[None]] = set()


@contextmanager
def _its_own(callback: Callable[..., Any]) -> Generator[None]:
    """Turn a cancellation that ended a callback into a failure of its own: nobody has cancelled its caller."""
    try:
        yield
    except asyncio.CancelledError as exc:
        raise RuntimeError(f"{callback!r} was cancelled") from exc


@contextmanager
def _logged(callback: Callable[..., Any]) -> Generator[None]:
    try:
        yield
    except Exception:
        log.exception("connection event callback failed: %r", callback)


def socket_for_url(url: str, *args: Any, **kwargs: Any) -> TCP:
    """Return a ``TCP`` for a ``tcp://host:port`` URL; the other arguments are ``TCP``'s.

    Raises:
        ValueError: another scheme, no host, no port
    """
    return TCP(*address_of_url(url), *args, **kwargs)
