"""The flavour for Python 2.7, under this Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sockio.py2
from tests.flavours.facade import Sock
from tests.flavours.sio import Sio


class Py2(Sio):
    """``sockio.py2``, under this Python."""

    name = "py2"
    variant = "py2-3"
    module = sockio.py2  # type: ignore[assignment]
    callbacks = ("on_connection_made",)

    def tcp(self, host: str, port: int, **options: Any) -> Sock:
        # The tests expect the other flavours' default.
        return super().tcp(host, port, **{"timeout": None, **options})

    def callers(self, sock: Sock) -> int:
        return len(sock.raw._queue)

    def is_untraced(self, sock: Sock) -> bool:
        link = sock.raw._link
        return bool(link.send == link.sock.send and link.recv == link.sock.recv)

    def returned(self, value: Any) -> Any:
        # What a call returns answers result(), with what the other flavours return (contract P2).
        return value.result() if hasattr(value, "result") else value
