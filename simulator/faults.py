"""The faults that a reply can suffer on its way out, each saying how *it* delivers a reply.

They are ordered with `Instrument.inject` and wait in `Orders` until a reply comes that they apply to. The faults that
strike at once (a dropped link, a refused connection) are methods of `Instrument`.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


class EndOfLink(Exception):
    """The link ends here.

    Args:
        cause: why, for the ledger.
        reset: with RST instead of FIN.
    """

    def __init__(self, cause: str, *, reset: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.reset = reset


class Reply(AsyncIterator[bytes]):
    """The bytes of one reply, taken piece by piece, so that a long one is never held in memory.

    Args:
        chunks: the reply.
        left: what was already taken of it.
    """

    def __init__(self, chunks: AsyncIterator[bytes], left: bytes = b"") -> None:
        self._chunks = chunks
        self._left = left

    async def __anext__(self) -> bytes:
        if self._left:
            left, self._left = self._left, b""
            return left
        return await anext(self._chunks)

    async def take(self, size: float = math.inf) -> bytes:
        """Take exactly `size` bytes, or all there are when the reply is shorter."""
        taken = bytearray()
        async for chunk in self:
            taken += chunk
            if len(taken) >= size:
                cut = int(size)
                self._left = bytes(taken[cut:])
                return bytes(taken[:cut])
        return bytes(taken)


class Outlet(Protocol):
    """What a fault may do with the link of its reply."""

    async def send(self, chunks: AsyncIterator[bytes]) -> None:
        """Send them, each in one piece, with nothing else in between."""
        ...

    def send_later(self, seconds: float, chunks: AsyncIterator[bytes]) -> object:
        """Send them after that time, while the link goes on executing; not if it ends before."""
        ...

    async def arrived(self) -> None:
        """Wait until what was sent is at the peer's host (where that cannot be known: a moment)."""
        ...

    async def read_by_peer(self) -> None:
        """Wait until the peer has read what was sent (a moment where that cannot be known, 5 s at most)."""
        ...


class Fault(ABC):
    """How a reply goes wrong. The command has been executed all the same."""

    @abstractmethod
    async def deliver(self, link: Outlet, reply: Reply) -> None:
        """Send the reply, or what becomes of it."""


class Altered(Fault):
    """A fault that sends something else than the reply, or sends it in its own way."""

    async def deliver(self, link: Outlet, reply: Reply) -> None:
        await link.send(self.parts(link, reply))

    @abstractmethod
    def parts(self, link: Outlet, reply: Reply) -> AsyncIterator[bytes]:
        """What is sent, each part in one piece; may wait in between, and may end the link by `EndOfLink`."""


@dataclass(frozen=True)
class Cut(Altered):
    """Exactly `after` bytes of the reply, then the end of the link (FIN)."""

    after: int

    def __post_init__(self) -> None:
        _check_size(self, "after", self.after)

    async def parts(self, link: Outlet, reply: Reply) -> AsyncIterator[bytes]:
        yield await reply.take(self.after)
        raise EndOfLink(repr(self))


@dataclass(frozen=True)
class Reset(Altered):
    """Exactly `after` bytes of the reply arrive, then the link is reset (RST)."""

    after: int

    def __post_init__(self) -> None:
        _check_size(self, "after", self.after)

    async def parts(self, link: Outlet, reply: Reply) -> AsyncIterator[bytes]:
        yield await reply.take(self.after)
        await link.arrived()
        raise EndOfLink(repr(self), reset=True)


@dataclass(frozen=True)
class Split(Altered):
    """The first `at` bytes, then, once they have been read (or after `pause` seconds), the rest."""

    at: int
    pause: float | None = None

    def __post_init__(self) -> None:
        _check_size(self, "at", self.at)
        if self.pause is not None:
            _check_seconds(self, "pause", self.pause)

    async def parts(self, link: Outlet, reply: Reply) -> AsyncIterator[bytes]:
        yield await reply.take(self.at)
        if self.pause is None:
            await link.read_by_peer()
        else:
            await asyncio.sleep(self.pause)
        async for chunk in reply:
            yield chunk


@dataclass(frozen=True)
class Drip(Altered):
    """The reply byte by byte, `pause` seconds after each."""

    pause: float

    def __post_init__(self) -> None:
        _check_seconds(self, "pause", self.pause)

    async def parts(self, link: Outlet, reply: Reply) -> AsyncIterator[bytes]:
        async for chunk in reply:
            for index in range(len(chunk)):
                yield chunk[index : index + 1]
                await asyncio.sleep(self.pause)


@dataclass(frozen=True)
class Prefix(Altered):
    """Unsolicited bytes just before the reply, in one piece with its beginning."""

    data: bytes

    def __post_init__(self) -> None:
        check_bytes(f"{self!r}: data", self.data)

    async def parts(self, link: Outlet, reply: Reply) -> AsyncIterator[bytes]:
        before = self.data
        async for chunk in reply:
            yield before + chunk
            before = b""


@dataclass(frozen=True)
class Duplicate(Altered):
    """The reply twice, in one piece. It is held in memory: not for long streams."""

    async def parts(self, link: Outlet, reply: Reply) -> AsyncIterator[bytes]:
        yield 2 * await reply.take()


@dataclass(frozen=True)
class Delay(Fault):
    """The reply `seconds` later; the link is busy meanwhile."""

    seconds: float

    def __post_init__(self) -> None:
        _check_seconds(self, "seconds", self.seconds)

    async def deliver(self, link: Outlet, reply: Reply) -> None:
        await asyncio.sleep(self.seconds)
        await link.send(reply)


@dataclass(frozen=True)
class Late(Fault):
    """The reply `seconds` later, while the link goes on executing: it may come after the replies of later commands."""

    seconds: float

    def __post_init__(self) -> None:
        _check_seconds(self, "seconds", self.seconds)

    async def deliver(self, link: Outlet, reply: Reply) -> None:
        link.send_later(self.seconds, reply)


@dataclass(frozen=True)
class Silence(Fault):
    """No reply at all; the link stays and goes on executing."""

    async def deliver(self, link: Outlet, reply: Reply) -> None:
        pass


class Orders:
    """The faults that were ordered and still wait for their replies, first come first served."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Fault, bytes]] = []

    def add(self, fault: Fault, count: int, command: bytes) -> None:
        self._waiting += count * [(fault, command)]

    def take(self, message: bytes) -> Fault | None:
        """The fault that the reply to this message suffers, if any; it is used up."""
        for index, (fault, command) in enumerate(self._waiting):
            if message.startswith(command):
                del self._waiting[index]
                return fault
        return None

    def clear(self) -> None:
        self._waiting.clear()


def check_bytes(what: str, data: object) -> None:
    """Raise `TypeError` unless `data` is bytes."""
    if not isinstance(data, bytes):
        raise TypeError(f"{what} must be bytes, not {data!r}")


def check_count(what: str, count: object, least: int) -> None:
    """Raise `ValueError` unless `count` is a whole number and not less than `least`."""
    if not isinstance(count, int) or count < least:
        raise ValueError(f"{what} must be a whole number, {least} or more, not {count!r}")


def _check_size(fault: Fault, what: str, size: int) -> None:
    check_count(f"{fault!r}: {what} (bytes)", size, 0)


def _check_seconds(fault: Fault, what: str, seconds: object) -> None:
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
        raise ValueError(f"{fault!r}: {what} must be a finite number of seconds, 0 or more")
