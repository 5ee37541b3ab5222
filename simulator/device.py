"""What the server asks of a device: a message in, an answer out, no sockets and no clock.

A device never waits and never sends: it *says* what is to be sent (bytes, `Raw`) and how long it takes (`Wait`), and
the link that asked does it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Raw:
    """A piece of an answer that is sent as it stands, without a terminator."""

    data: bytes


@dataclass(frozen=True)
class Wait:
    """A piece of an answer that sends nothing: the link is busy for `seconds`, the other links go on."""

    seconds: float


Piece = bytes | Raw | Wait
Answer = bytes | Iterable[Piece] | None


class Device(Protocol):
    """Anything that executes messages."""

    def execute(self, message: bytes) -> Answer:
        """Execute one message (without its terminator) and return the answer.

        The answer is `None` (nothing is sent), bytes (one message: the server appends the terminator and sends it in
        one piece), or an iterable of pieces, which is read only as fast as the link takes them: bytes are messages,
        `Raw` is sent without a terminator, `Wait` keeps the link busy. No message of any link is executed until the
        first piece is there.
        """
        ...


def pieces(answer: Answer) -> Iterable[Piece]:
    """Any answer as an iterable of pieces."""
    if answer is None:
        return ()
    if isinstance(answer, str):  # type: ignore[unreachable]  # what users write who don't check types
        raise TypeError(f"a device answers bytes, not {answer!r}")
    return (answer,) if isinstance(answer, bytes) else answer
