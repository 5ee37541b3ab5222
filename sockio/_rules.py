"""What the arguments of a call may be. A wrong one is refused before anything is sent (contract X3)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, TypeAlias

from ._buffer import Buffer
from .common import checked_separator as checked_separator
from .common import checked_size as checked_size
from .common import joined as joined
from .common import listed as listed
from .common import payload as payload
from .common import seconds as seconds


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
