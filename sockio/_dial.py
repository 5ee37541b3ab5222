"""Dialling: from a host and a port to a connected socket.

Names are resolved on a daemon thread, so that a slow resolver holds up neither a deadline nor the interpreter's exit.
The waiting, also for the race between the addresses (``_race``), is a ``Bell``'s: the same code dials in every flavour.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ._race import STAGGER as STAGGER
from ._race import Address as Address
from ._race import Race as Race
from ._race import lookup as lookup
from ._rules import Expired
from ._turns import Bell


async def resolve(
    find: Callable[..., list[Address]], host: str, port: int, bell: Bell, deadline: float | None
) -> list[Address] | None:
    """Return the addresses of a host name; ``None`` if somebody else rang the bell first.

    Args:
        bell: for this alone, as a resolver that is late rings, too

    Raises:
        Expired: the deadline passed first
        socket.gaierror: there are none
    """
    answers: list[list[Address] | BaseException] = []

    def ask() -> None:
        try:
            answers.append(find(host, port))
        except BaseException as exc:
            answers.append(exc)
        bell.ring_from_thread()

    threading.Thread(target=ask, name=f"sockio resolves {host}", daemon=True).start()
    if not await bell.wait(deadline):
        raise Expired
    if not answers:
        return None
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]
