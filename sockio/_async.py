"""The async face of a TCP object, for every flavour whose calls are awaited."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from time import monotonic
from types import TracebackType
from typing import Any, ClassVar, TypeVar

from ._buffer import Buffer
from ._core import Core
from ._link import CHUNK
from ._rules import UNSET, Take, Timeout, anything, checked_separator, checked_size, joined, listed, payload, reading
from ._streams import Blocks, End, Lines, Stream
from ._turns import Ticket, held

A = TypeVar("A", bound="AsyncTCP")


class AsyncTCP(Core):
    """A TCP object whose calls are awaited, but for its library's way of waiting."""

    _ticket_class: ClassVar[type[Ticket]]
    #: Awaited before a call does anything; None: nothing is.
    _before_call: Callable[[], Awaitable[None]] | None = None

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
        """
        around = self._scope() or self
        with held(self._ticket_class()) as ticket:
            link = await self._begin(around, ticket, timeout)
            with self._exclusively(around, ticket, link):
                yield self

    async def read(self, n: int = -1, *, timeout: Timeout = UNSET) -> bytes:
        """Read what has arrived, at least one byte.

        Args:
            n: at most so many bytes; -1: everything up to the end of the link
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended
            ConnectionTimeoutError: nothing came in time
        """
        return await self._call("read", None, *reading(n), timeout)  # type: ignore[no-any-return]

    async def readline(self, eol: bytes | None = None, *, timeout: Timeout = UNSET) -> bytes:
        """Read a line, and return it with its end.

        Args:
            eol: what ends it; default: the object's
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended; what there was of a line is in ``partial``
            LimitOverrunError: the line is longer than ``buffer_size``
            ConnectionTimeoutError: it wasn't there in time; its bytes are kept for the next read
        """
        return await self._call("readline", None, Buffer.take_until, self._eol(eol), timeout)  # type: ignore[no-any-return]

    async def readlines(self, n: int, eol: bytes | None = None, *, timeout: Timeout = UNSET) -> list[bytes]:
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
        return await self._call("readlines", None, Buffer.take_lines, wanted, timeout)  # type: ignore[no-any-return]

    async def readexactly(self, n: int, *, timeout: Timeout = UNSET) -> bytes:
        """Read ``n`` bytes, all or none.

        Args:
            n: how many bytes; may be more than ``buffer_size``
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended; what there was of them is in ``partial``
            ConnectionTimeoutError: they weren't there in time; what came is kept for the next read
        """
        return await self._call("readexactly", None, Buffer.take_exactly, checked_size(n), timeout)  # type: ignore[no-any-return]

    async def readuntil(self, separator: bytes = b"\n", *, timeout: Timeout = UNSET) -> bytes:
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
        return await self._call("readuntil", None, Buffer.take_until, wanted, timeout)  # type: ignore[no-any-return]

    async def readbuffer(self, *, timeout: Timeout = UNSET) -> bytes:
        """Return what has arrived, without waiting for more: maybe nothing.

        Args:
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended, and nothing is left
            ConnectionTimeoutError: no turn, or no connection, in time
        """
        return await self._call("readbuffer", None, anything, None, timeout)  # type: ignore[no-any-return]

    async def readblock(self, eol: bytes | None = None, *, timeout: Timeout = UNSET) -> bytes:
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
        return await self._call("readblock", None, Buffer.take_block, self._eol(eol), timeout)  # type: ignore[no-any-return]

    async def write(self, data: bytes, *, timeout: Timeout = UNSET, idempotent: bool = False) -> None:
        """Hand all of ``data`` to the operating system.

        Args:
            data: bytes to send
            timeout: seconds for the whole call; default: the object's
            idempotent: whether it does no harm to send ``data`` twice; then it is sent again after a loss

        Raises:
            LinkError: the link failed; ``request_sent`` tells whether a byte may have left
            OSError: no connection
        """
        await self._call("write", payload(data), None, None, timeout, idempotent)

    async def writelines(self, lines: Iterable[bytes], *, timeout: Timeout = UNSET, idempotent: bool = False) -> None:
        """Hand all lines to the operating system, in one piece.

        Args:
            lines: bytes to send, each with its own end
            timeout: seconds for the whole call; default: the object's
            idempotent: whether it does no harm to send this twice; then it is sent again after a loss

        Raises:
            LinkError: the link failed, or time was up; ``request_sent`` tells whether a byte may have left
            OSError: no connection
        """
        await self._call("writelines", joined(lines), None, None, timeout, idempotent)

    async def write_read(
        self, data: bytes, n: int = -1, *, timeout: Timeout = UNSET, idempotent: bool = False
    ) -> bytes:
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
        return await request("write_read", payload(data), *reading(n), timeout, idempotent)  # type: ignore[no-any-return]

    async def write_readline(
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
        return await self._request(  # type: ignore[no-any-return]
            "write_readline",
            payload(data),
            Buffer.take_until,
            self._eol(eol),
            timeout,
            idempotent,
        )

    async def write_readlines(
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
        return await request(  # type: ignore[no-any-return]
            "write_readlines",
            payload(data),
            Buffer.take_lines,
            wanted,
            timeout,
            idempotent,
        )

    async def writelines_readlines(
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
        return await request(  # type: ignore[no-any-return]
            "writelines_readlines", joined(lines), Buffer.take_lines, wanted, timeout, idempotent
        )

    async def write_readblock(
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
        return await self._request(  # type: ignore[no-any-return]
            "write_readblock", payload(data), Buffer.take_block, self._eol(eol), timeout, idempotent
        )

    def reset_input_buffer(self) -> None:
        """Forget all bytes that have arrived and were not read; while somebody is reading, they are theirs."""
        self._reset(self._ticket_class())

    def __aiter__(self) -> LineStream:
        return LineStream(self)

    async def _ticketed_open(self, timeout: Timeout, must_be_new: bool) -> None:
        with held(self._ticket_class()) as ticket:
            await self._open(ticket, timeout, must_be_new)

    async def _call(
        self,
        name: str,
        request: bytes | None,
        take: Take | None,
        wanted: Any,
        timeout: Timeout,
        idempotent: bool = False,
    ) -> Any:
        if self._before_call is not None:
            await self._before_call()
        deadline = self._deadline(timeout)
        ticket = self._ticket_class()
        try:
            with ticket.lock:
                return await self._perform(ticket, name, request, take, wanted, deadline, idempotent)
        finally:
            ticket.finish()

    async def _request(
        self, name: str, request: bytes, take: Take, wanted: Any, timeout: Timeout, idempotent: bool
    ) -> Any:
        """Do a request-reply call; straight, without the core's coroutines, if it waits for nothing but the reply."""
        if self._before_call is not None:
            await self._before_call()
        deadline = self._deadline(timeout)
        spare = self._spare
        try:
            ticket = spare.pop()
        except IndexError:
            ticket = self._ticket_class()
        link = None
        try:
            with ticket.lock:
                link = None if idempotent or deadline == 0.0 else self._straight(ticket)
                if link is None:
                    return await self._perform(ticket, name, request, take, wanted, deadline, idempotent)
                try:
                    sent = link.begin(request)
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
            with held(self.tcp._ticket_class()) as ticket:
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
