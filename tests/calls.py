"""Every call of a ``TCP`` object, with arguments that a multimeter answers."""

from __future__ import annotations

from typing import Any

from tests.flavours import Sock

IDENTITY = b"SOCKIO,DMM6500-SIM,0,1.0\n"

READS: dict[str, tuple[Any, ...]] = {
    "read": (1,),
    "readline": (),
    "readlines": (1,),
    "readexactly": (1,),
    "readuntil": (b"\n",),
}
WRITES: dict[str, tuple[Any, ...]] = {
    "write": (b"*IDN?\n",),
    "writelines": ([b"*IDN?\n"],),
}
REQUESTS: dict[str, tuple[Any, ...]] = {
    "write_read": (b"*IDN?\n", 100),
    "write_readline": (b"*IDN?\n",),
    "write_readlines": (b"*IDN?\n", 1),
    "writelines_readlines": ([b"*IDN?\n"],),
}
CALLS = {**READS, "readbuffer": (), **WRITES, **REQUESTS}


def callers(sock: Sock) -> int:
    """Return how many callers are inside a call of the object, being served or waiting for their turn."""
    return sock.flavour.callers(sock)
