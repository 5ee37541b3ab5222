"""Streams: a loop over lines or blocks, bound to one link (contract S1 to S5)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from ._buffer import Buffer, Take
from ._core import Binding, Core
from ._rules import UNSET, Timeout
from .common import (
    ConnectionClosedError,
    ConnectionEOFError,
    ConnectionTimeoutError,
    LimitOverrunError,
    LinkError,
    checked_separator,
    checked_size,
)

C = TypeVar("C", bound=Core)


class End(Exception):
    """The stream has ended cleanly."""


def _nothing() -> bytes:
    raise IndexError


class Stream(ABC, Generic[C]):
    """What is common to the streams of all flavours.

    Args:
        tcp: the object to read from
        reconnect: carry on over a lost link; a message that was cut off is dropped, never joined to the next link's
        timeout: seconds for each step; default: the object's
    """

    _name = "iteration"

    def __init__(self, tcp: C, *, reconnect: bool = False, timeout: Timeout = UNSET) -> None:
        self.tcp = tcp
        self._reconnect = reconnect
        self._timeout = timeout
        self._binding = Binding()
        self._pop = _nothing
        self._fruitless = 0
        self._taken = 0

    @abstractmethod
    def _framing(self) -> tuple[Take, Any]:
        """Return the framing of a step, and its argument."""

    async def _step(self, ticket: Any) -> bytes:
        """Return the next message.

        Raises:
            End: the link ended on the boundary of a message
            LinkError: it ended otherwise
        """
        tcp = self.tcp
        take, wanted = self._framing()
        closings = tcp._closings
        deadline = tcp._deadline(self._timeout)
        while True:
            try:
                found = await tcp._perform(ticket, self._name, None, take, wanted, deadline, bound=self._binding)
            except LinkError as exc:
                if self._binding.link is None:
                    raise  # no connection, and no more attempts
                if isinstance(exc, (ConnectionTimeoutError, ConnectionClosedError, LimitOverrunError)):
                    raise
                if not self._reconnect:
                    if isinstance(exc, ConnectionEOFError) and not exc.partial:
                        raise End from None
                    raise
                self._fruitless += 1
                if self._fruitless > 1:
                    if not tcp.retry.allows(self._fruitless - 1):
                        raise
                    try:
                        await tcp._sleep(tcp.retry.pause(self._fruitless - 1, tcp._random()), deadline, closings)
                    except LinkError as closed:
                        raise tcp._failed(closed, self._name, None, None, None) from None
                self._binding.link = None
            else:
                self._fruitless = 0
                try:
                    return self._handed_out(found)
                except IndexError:
                    pass  # another thread has read what was set aside, or has dropped the link

    def _handed_out(self, found: Any) -> bytes:
        message: bytes = found
        self._taken += len(message)
        return message


class Lines(Stream[C]):
    """Lines, cut a few at a time: those that arrived together cost no wait each."""

    def __init__(self, tcp: C, eol: bytes | None = None, *, reconnect: bool = False, timeout: Timeout = UNSET) -> None:
        super().__init__(tcp, reconnect=reconnect, timeout=timeout)
        self.eol: bytes | None = eol if eol is None else checked_separator(eol)

    def _framing(self) -> tuple[Take, Any]:
        return Buffer.cut_lines, self.tcp._eol(self.eol)

    def _handed_out(self, found: Any) -> bytes:
        lines, size = found
        self._taken += size
        self._pop = lines.popleft
        return self._pop()


class Blocks(Stream[C]):
    """Blocks: of a fixed size, or up to a separator.

    Args:
        limit: bytes a block (int), or what ends one (bytes)
    """

    _name = "BlockStream"

    def __init__(self, tcp: C, limit: int | bytes, *, reconnect: bool = False, timeout: Timeout = UNSET) -> None:
        super().__init__(tcp, reconnect=reconnect, timeout=timeout)
        self.limit: int | bytes = (
            checked_size(limit, "limit", 1) if isinstance(limit, int) else checked_separator(limit, "limit")
        )

    def _framing(self) -> tuple[Take, Any]:
        return (Buffer.take_exactly if isinstance(self.limit, int) else Buffer.take_until), self.limit
