"""The calls that move data: what each is asked with, and what it promises; said once for all flavours of the core.

What a call returns is the flavour's: the reply itself, a coroutine, a future. So the class has a type parameter for
each kind of reply, and leaves it to the flavour to carry the call out: what to send, and how the reply is framed.
"""

# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from ._buffer import Buffer, Take, anything, reading
from ._core import Core
from ._rules import UNSET, Timeout
from .common import checked_separator, checked_size, joined, listed, payload

Reply = TypeVar("Reply")
Replies = TypeVar("Replies")
Done = TypeVar("Done")


class Calls(Core, Generic[Reply, Replies, Done]):
    """A TCP object, but for how its calls are carried out.

    ``Reply``, ``Replies`` and ``Done`` are what a call returns that brings bytes, a list of them, nothing.
    """

    @abstractmethod
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
        """Carry out a call.

        Args:
            name: of the call, for messages
            request: what to send
            take: framing of the reply; None: there is none
            wanted: its argument
            timeout: seconds for the whole call
            idempotent: whether the request may be sent again after a loss (contract R4)
        """

    @abstractmethod
    def _request(
        self, name: str, request: bytes, take: Take, wanted: Any, timeout: Timeout, idempotent: bool, /
    ) -> Any:
        """Carry out a call that sends something, and then has a reply to wait for."""

    def read(self, n: int = -1, *, timeout: Timeout = UNSET) -> Reply:
        """Read what has arrived, at least one byte.

        Args:
            n: at most so many bytes; -1: everything up to the end of the link
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended
            ConnectionTimeoutError: nothing came in time
        """
        return self._call("read", None, *reading(n), timeout)

    def readline(self, eol: bytes | None = None, *, timeout: Timeout = UNSET) -> Reply:
        """Read a line, and return it with its end.

        Args:
            eol: what ends it; default: the object's
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended; what there was of a line is in ``partial``
            LimitOverrunError: the line is longer than ``buffer_size``
            ConnectionTimeoutError: it wasn't there in time; its bytes are kept for the next read
        """
        return self._call("readline", None, Buffer.take_until, self._eol(eol), timeout)

    def readlines(self, n: int, eol: bytes | None = None, *, timeout: Timeout = UNSET) -> Replies:
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
        return self._call("readlines", None, Buffer.take_lines, wanted, timeout)

    def readexactly(self, n: int, *, timeout: Timeout = UNSET) -> Reply:
        """Read ``n`` bytes, all or none.

        Args:
            n: how many bytes; may be more than ``buffer_size``
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended; what there was of them is in ``partial``
            ConnectionTimeoutError: they weren't there in time; what came is kept for the next read
        """
        return self._call("readexactly", None, Buffer.take_exactly, checked_size(n), timeout)

    def readuntil(self, separator: bytes = b"\n", *, timeout: Timeout = UNSET) -> Reply:
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
        return self._call("readuntil", None, Buffer.take_until, wanted, timeout)

    def readbuffer(self, *, timeout: Timeout = UNSET) -> Reply:
        """Return what has arrived, without waiting for more: maybe nothing.

        Args:
            timeout: seconds for the whole call; default: the object's

        Raises:
            ConnectionEOFError: the link has ended, and nothing is left
            ConnectionTimeoutError: no turn, or no connection, in time
        """
        return self._call("readbuffer", None, anything, None, timeout)

    def readblock(self, eol: bytes | None = None, *, timeout: Timeout = UNSET) -> Reply:
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
        return self._call("readblock", None, Buffer.take_block, self._eol(eol), timeout)

    def write(self, data: bytes, *, timeout: Timeout = UNSET, idempotent: bool = False) -> Done:
        """Hand all of ``data`` to the operating system.

        Args:
            data: bytes to send
            timeout: seconds for the whole call; default: the object's
            idempotent: whether it does no harm to send ``data`` twice; then it is sent again after a loss

        Raises:
            LinkError: the link failed; ``request_sent`` tells whether a byte may have left
            OSError: no connection
        """
        return self._call("write", payload(data), None, None, timeout, idempotent)

    def writelines(self, lines: Iterable[bytes], *, timeout: Timeout = UNSET, idempotent: bool = False) -> Done:
        """Hand all lines to the operating system, in one piece.

        Args:
            lines: bytes to send, each with its own end
            timeout: seconds for the whole call; default: the object's
            idempotent: whether it does no harm to send this twice; then it is sent again after a loss

        Raises:
            LinkError: the link failed, or time was up; ``request_sent`` tells whether a byte may have left
            OSError: no connection
        """
        return self._call("writelines", joined(lines), None, None, timeout, idempotent)

    def write_read(self, data: bytes, n: int = -1, *, timeout: Timeout = UNSET, idempotent: bool = False) -> Reply:
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
        ask = self._request if n else self._call  # nothing to wait for
        return ask("write_read", payload(data), *reading(n), timeout, idempotent)

    def write_readline(
        self,
        data: bytes,
        eol: bytes | None = None,
        *,
        timeout: Timeout = UNSET,
        idempotent: bool = False,
    ) -> Reply:
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
        return self._request(
            "write_readline",
            data if type(data) is bytes else payload(data),
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
    ) -> Replies:
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
        ask = self._request if n else self._call  # nothing to wait for
        return ask(
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
    ) -> Replies:
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
        ask = self._request if wanted[0] else self._call  # nothing to wait for
        return ask("writelines_readlines", joined(lines), Buffer.take_lines, wanted, timeout, idempotent)

    def write_readblock(
        self, data: bytes, eol: bytes | None = None, *, timeout: Timeout = UNSET, idempotent: bool = False
    ) -> Reply:
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
        return self._request("write_readblock", payload(data), Buffer.take_block, self._eol(eol), timeout, idempotent)


C = TypeVar("C", bound=Calls[Any, Any, Any])


def each_call(adapt: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[[type[C]], type[C]]:
    """Return a class decorator that adapts every call to how the flavour carries it out, but what the class defines."""

    def decorate(cls: type[C]) -> type[C]:
        for name, call in vars(Calls).items():
            if not name.startswith("_") and name not in vars(cls):
                setattr(cls, name, adapt(call))
        return cls

    return decorate
