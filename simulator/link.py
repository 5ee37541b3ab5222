"""One link of an instrument: messages in, replies out, and the ways in which it can end.

Two tasks: one receives, so that the end of the link is seen while a command takes its time; the other executes and
replies. It waits and then receives, rather than `loop.sock_recv`, which loses what it has read when it is cancelled at
the wrong moment.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from itertools import chain

from simulator import kernel
from simulator.device import Device, Piece, Raw, Wait, pieces
from simulator.faults import EndOfLink, Orders, Reply
from simulator.ledger import Ledger

CHUNK = 2**16
"""Bytes received or sent at a time."""
LONGEST_MESSAGE = 2**16
"""Bytes without a terminator after which the link is dropped."""
READ_AHEAD = 16
"""Messages received and not yet executed, after which no more is read."""
LONGEST_WAIT = 5.0
"""Seconds to wait for a peer to take what was sent."""
MOMENT = 0.02
"""Seconds to wait instead where the kernel does not tell."""

logger = logging.getLogger(__name__)


async def readable(connection: socket.socket) -> None:
    """Wait until there is something to receive (or to accept)."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    number = connection.fileno()
    loop.add_reader(number, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(number)


class Link:
    """A link that has just been accepted.

    Args:
        connection: its socket, non-blocking; the link closes it.
        number: what the ledger calls it.
        device: executes the messages.
        eol: their terminator.
        ledger: where the link writes what happens.
        orders: the faults that wait for replies.
        reading: while it is not set, nothing is read.

    Attributes:
        task: done when the link is closed.
    """

    def __init__(
        self,
        connection: socket.socket,
        number: int,
        device: Device,
        eol: bytes,
        ledger: Ledger,
        orders: Orders,
        reading: asyncio.Event,
    ) -> None:
        self._socket = connection
        self._number = number
        self._device = device
        self._eol = eol
        self._ledger = ledger
        self._orders = orders
        self._reading = reading
        self._inbox: asyncio.Queue[bytes | None] = asyncio.Queue(READ_AHEAD)
        self._sending = asyncio.Lock()
        self._late: set[asyncio.Task[None]] = set()
        self._ending: EndOfLink | None = None
        ledger.record("opened", number)
        self.task = asyncio.get_running_loop().create_task(self._run())
        self.task.add_done_callback(self._close)

    @property
    def ending(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._ending is not None

    def end(self, ending: EndOfLink) -> None:
        """End the link; await `task` to see it closed."""
        if not self.ending:
            self._ending = ending
            self.task.cancel()

    async def send(self, chunks: AsyncIterator[bytes]) -> None:
        """Send them, each in one piece, with nothing else in between."""
        loop = asyncio.get_running_loop()
        async with self._sending:
            async for chunk in chunks:
                await loop.sock_sendall(self._socket, chunk)

    def send_later(self, seconds: float, chunks: AsyncIterator[bytes]) -> asyncio.Task[None]:
        """Send them after that time, while the link goes on executing; not if it ends before."""

        async def later() -> None:
            await asyncio.sleep(seconds)
            try:
                await self.send(chunks)
            except OSError as error:
                self.end(_lost(error))

        task = asyncio.get_running_loop().create_task(later())
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        return task

    async def arrived(self) -> None:
        """Wait until what was sent is at the peer's host (where that cannot be known: a moment)."""
        await self._until_none_left(kernel.unacknowledged)

    async def read_by_peer(self) -> None:
        """Wait until the peer has read what was sent (a moment where that cannot be known, 5 s at most)."""
        await self._until_none_left(kernel.unacknowledged)
        await self._until_none_left(kernel.unread_by_peer)

    async def _until_none_left(self, left: Callable[[socket.socket], int | None]) -> None:
        give_up = time.monotonic() + LONGEST_WAIT
        while count := left(self._socket):
            if time.monotonic() > give_up:
                return
            await asyncio.sleep(0.0005)
        if count is None:
            await asyncio.sleep(MOMENT)

    async def _run(self) -> None:
        receiving = asyncio.get_running_loop().create_task(self._receive())
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (message := await self._inbox.get()) is not None:
                await self._execute(message)
            ending = EndOfLink("closed by peer")
        except EndOfLink as fault:
            ending = fault
        except OSError as error:
            ending = _lost(error)
        except asyncio.CancelledError:
            ending = EndOfLink("cancelled")
        except Exception:
            logger.exception("link %d ends because the device failed", self._number)
            ending = EndOfLink("the device failed")
        self._ending = self._ending or ending
        tasks = [receiving, *self._late]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self) -> None:
        buffer = b""
        try:
            while data := await self._read():
                *messages, buffer = (buffer + data).split(self._eol)
                for message in messages:
                    await self._inbox.put(message)
                if len(buffer) > LONGEST_MESSAGE:
                    self.end(EndOfLink(f"more than {LONGEST_MESSAGE} bytes without a terminator"))
            await self._inbox.put(None)
        except OSError as error:
            self.end(_lost(error))

    async def _read(self) -> bytes:
        await readable(self._socket)
        await self._reading.wait()
        return self._socket.recv(CHUNK)

    async def _execute(self, message: bytes) -> None:
        if not message.strip():
            return
        answer = iter(pieces(self._device.execute(message)))
        first = next(answer, None)
        self._ledger.record("command", self._number, command=message)
        if first is None:
            return
        chunks = self._chunks(chain([first], answer))
        beginning = await anext(chunks, None)
        if beginning is None:
            return
        reply = Reply(chunks, beginning)
        fault = self._orders.take(message)
        if fault is None:
            await self.send(reply)
        else:
            self._ledger.record("fault", self._number, detail=f"{fault} on the reply to {message!r}")
            await fault.deliver(self, reply)

    async def _chunks(self, answer: Iterable[Piece]) -> AsyncIterator[bytes]:
        chunk = bytearray()
        for piece in answer:
            if isinstance(piece, Wait):
                if chunk:
                    yield bytes(chunk)
                    chunk.clear()
                await asyncio.sleep(piece.seconds)
                continue
            chunk += piece.data if isinstance(piece, Raw) else piece + self._eol
            if len(chunk) >= CHUNK:
                yield bytes(chunk)
                chunk.clear()
                await asyncio.sleep(0)  # a link that takes everything at once must not keep the loop to itself
        if chunk:
            yield bytes(chunk)

    def _close(self, _: asyncio.Task[None]) -> None:
        ending = self._ending or EndOfLink("cancelled")
        with suppress(OSError):
            if ending.reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                self._discard_input()
                self._socket.shutdown(socket.SHUT_RDWR)  # a forked child that holds a copy would keep the link alive
        self._socket.close()
        self._ledger.record("closed", self._number, detail=ending.cause)

    def _discard_input(self) -> None:
        """Make sure that the end is a FIN: a socket closed with unread input sends a RST."""
        with suppress(BlockingIOError):
            for _ in range(LONGEST_MESSAGE * READ_AHEAD // CHUNK):
                self._socket.recv(CHUNK)


def _lost(error: OSError) -> EndOfLink:
    return EndOfLink(f"lost: {error}")
