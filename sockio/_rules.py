"""What the arguments of a call may be. A wrong one is refused before anything is sent (contract X3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final, TypeAlias

from ._buffer import Buffer


class Unset(Enum):
    """The default of ``timeout=``: the object's own ``timeout`` holds."""

    UNSET = "the object's"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
#: Seconds; None: no limit.
Timeout: TypeAlias = float | Unset | None
#: The reply that a call waits for: tries to take it from the buffer, None as long as it isn't complete.
Take = Callable[[Buffer, Any], Any]


def payload(data: bytes | bytearray | memoryview) -> bytes:
    """Return what to send as ``bytes``.

    Raises:
        TypeError: it isn't bytes
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        return bytes(data)
    raise TypeError(f"data must be bytes, not {type(data).__name__}: {data!r:.60}")


def joined(lines: Iterable[bytes]) -> bytes:
    """Return the lines as one request, so that they leave in one segment (contract L4)."""
    return b"".join([payload(line) for line in listed(lines)])


def listed(lines: Iterable[bytes]) -> list[bytes]:
    """Return the lines as a list.

    Raises:
        TypeError: it isn't a collection of lines
    """
    if isinstance(lines, (str, bytes, bytearray, memoryview)) or not isinstance(lines, Iterable):
        raise TypeError(f"lines must be a list of bytes, not {type(lines).__name__}: {lines!r:.60}")
    return list(lines)


def checked_size(size: int, name: str = "n", least: int = 0) -> int:
    """Return ``size``.

    Raises:
        TypeError: it isn't an int
        ValueError: it is below ``least``
    """
    if not isinstance(size, int):
        raise TypeError(f"{name} must be a whole number, not {size!r}")
    if size < least:
        raise ValueError(f"{name} must be at least {least}, not {size}")
    return size


def checked_separator(separator: bytes, name: str = "eol") -> bytes:
    """Return ``separator``.

    Raises:
        TypeError: it isn't bytes
        ValueError: it is empty
    """
    if not isinstance(separator, (bytes, bytearray)):
        raise TypeError(f"{name} must be bytes, not {separator!r}")
    if not separator:
        raise ValueError(f"{name} must not be empty")
    return bytes(separator)


def seconds(timeout: float, name: str = "timeout") -> float:
    """Return ``timeout``.

    Raises:
        TypeError: it isn't a number
        ValueError: it isn't a number either, but NaN
    """
    if isinstance(timeout, (bool, str, bytes)) or not hasattr(timeout, "__float__"):
        raise TypeError(f"{name} must be seconds or None, not {timeout!r}")
    if math.isnan(timeout):
        raise ValueError(f"{name} must be seconds or None, not NaN")
    return timeout


def to_end(_buffer: Buffer, _nothing: None) -> None:
    """The framing of ``read(-1)``: complete only when the link ends."""


def anything(buffer: Buffer, _nothing: None) -> bytes | None:
    """The framing of ``readbuffer``: whatever is there."""
    return buffer.take_all() or None


def reading(n: int) -> tuple[Take, Any]:
    """Return the framing of ``read(n)``, and its argument."""
    if n == -1:
        return to_end, None
    return (Buffer.take if n else Buffer.take_exactly), checked_size(n, least=0)


def terminator(take: Take | None, wanted: Any, eol: bytes) -> bytes:
    """Return what ends a whole message for a call that frames its reply so."""
    if take is Buffer.take_until or take is Buffer.take_block:
        return wanted  # type: ignore[no-any-return]
    return wanted[1] if take is Buffer.take_lines else eol
