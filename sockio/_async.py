"""The async face of a TCP object, for every flavour whose calls are awaited."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar

from ._buffer import Buffer
from ._calls import Calls, Done, Replies, Reply, each_call
from ._rules import UNSET, Timeout
from ._streams import Blocks, End, Lines, Stream
from ._turns import Ticket, held
from .common import CHUNK, payload

A = TypeVar("A", bound="AsyncTCP")


def awaited(call: Callable[..., Any]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Return the coroutine function for a method of ``Calls``: all of it happens when it is awaited."""

    @wraps(call)
    async def coroutine_function(self: Awaited[Any, Any, Any], /, *args: Any, **options: Any) -> Any:
        return await call(self, *args, **options)

    return coroutine_function


class Awaited(Calls[Reply, Replies, Done]):
    """A TCP object whose calls are carried out by a coroutine."""

    #: Awaited before a call does anything; None: nothing is.
    _before_call: Callable[[], Awaitable[None]] | None = None

    def _call(self, /, *call: Any) -> Any:
        return self._carry_out(False, *call)

    def _request(self, /, *call: Any) -> Any:
        return self._carry_out(True, *call)

    async def _carry_out(
        self,
        asks: bool,
        name: str,
        request: Any,
        take: Any,
        wanted: Any,
        timeout: Timeout,
        idempotent: bool = False,
    ) -> Any:
        """Do a call; straight, without the core's coroutines, if it waits for nothing but a reply.

        Args:
            asks: there is something to send, and then a reply to wait for
        """
        before = self._before_call
        if before is not None:
            try:
                await before()
            except RuntimeError as exc:
                raise self._out_of_world(exc) from None
        deadline = self._deadline(timeout)
        spare = self._spare
        try:
            ticket = spare.pop()
        except IndexError:
            ticket = Ticket()
        link = None
        try:
            with ticket.lock:
                link = self._straight(ticket) if asks and not idempotent and deadline != 0.0 else None
                if link is None:
                    return await self._perform(ticket, name, request, take, wanted, deadline, idempotent)
                try:
                    sent = link.hand_over(request)
                    if sent < len(request):
                        await link.flush(request, sent, deadline)  # meanwhile the reply may come
                    else:
                        await link.more(deadline)
                    reply = take(link.buffer, wanted)
                    if reply is None:
                        reply = await self._reply(link, take, wanted, deadline)
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

    async def _ticketed_open(self, timeout: Timeout, must_be_new: bool) -> None:
        with held() as ticket:
            await self._open(ticket, timeout, must_be_new)


@each_call(awaited)
class AsyncTCP(Awaited[Coroutine[Any, Any, bytes], Coroutine[Any, Any, list[bytes]], Coroutine[Any, Any, None]]):
    """A TCP object whose calls are awaited, but for its library's way of waiting."""

    async def write_readline(  # as each_call would make it, but for the packing of arguments: this one has to be fast
        self, data: bytes, eol: bytes | None = None, *, timeout: Timeout = UNSET, idempotent: bool = False
    ) -> bytes:
        reply: bytes = await self._carry_out(
            True,
            "write_readline",
            data if type(data) is bytes else payload(data),
            Buffer.take_until,
            self._eol(eol),
            timeout,
            idempotent,
        )
        return reply

    async def open(self, *, timeout: Timeout = UNSET) -> None:
        """Connect.

        Args:
            timeout: seconds for everything; default: ``connection_timeout`` for each attempt

        Raises:
            ConnectionError: the object is open already
            OSError: the connection failed
        """
        await self._ticketed_open(timeout, must_be_new=True)

    async def close(self) -> None:
        """Close the link, if any; every caller that waits for something raises ``ConnectionClosedError``."""
        self._close()

    async def __aenter__(self: A) -> A:
        self._enter_world()
        if not self.connected():
            await self._ticketed_open(UNSET, must_be_new=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def transaction(self: A, *, timeout: Timeout = UNSET) -> AsyncGenerator[A]:
        """Keep the object to this task, and the tasks it starts, for several calls.

        If the link is lost inside, the rest of the block raises instead of going on with a new link.

        Args:
            timeout: seconds to wait for the turn and the link; default: the object's

        Raises:
            ConnectionTimeoutError: no turn, or no connection, in time
            OSError: no connection
        """
        around = self._scope() or self
        with held() as ticket:
            link = await self._begin(around, ticket, timeout)
            with self._exclusively(around, ticket, link):
                yield self

    def reset_input_buffer(self) -> None:
        """Forget all bytes that have arrived and were not read; while somebody is reading, they are theirs."""
        self._reset(Ticket())

    def __aiter__(self) -> LineStream:
        return LineStream(self)

    @abstractmethod
    async def _checkpoint(self) -> None:
        """Let the other tasks run."""


class _Steps(Stream[AsyncTCP]):
    """The steps of a stream. It lets the neighbours run at least every 64 KiB or millisecond (contract S5)."""

    _until = 0.0

    def __aiter__(self: _S) -> _S:
        return self

    async def __anext__(self) -> bytes:
        if monotonic() > self._until:  # before a message is taken: a cancellation here loses none
            await self.tcp._checkpoint()
            self._until = monotonic() + 0.001
        try:
            return self._pop()
        except IndexError:
            return await self._next()

    async def _next(self) -> bytes:
        waits, taken = self.tcp.waits, self._taken
        try:
            with held() as ticket:
                message = await self._step(ticket)
        except End:
            raise StopAsyncIteration from None
        if self.tcp.waits != waits:  # the neighbours had their turn
            self._taken -= taken
            self._until = monotonic() + 0.001
        elif self._taken > CHUNK:
            self._taken -= taken
            self._until = 0.0
        return message


_S = TypeVar("_S", bound=_Steps)


class LineStream(_Steps, Lines[AsyncTCP]):
    """``async for line in LineStream(tcp, eol)``: the lines that come in on one link, until its end.

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


class BlockStream(_Steps, Blocks[AsyncTCP]):
    """``async for block in BlockStream(tcp, limit)``: like ``LineStream``.

    Args:
        limit: bytes a block (int), or what ends one (bytes)
    """
