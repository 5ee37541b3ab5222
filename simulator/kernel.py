"""What the kernel knows about the bytes of a link: whether they have arrived, and whether they have been read.

Linux shows the queues of every socket in `/proc/net/tcp`, those of the peer too when it lives on the same machine.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

TABLES = {socket.AF_INET: Path("/proc/net/tcp"), socket.AF_INET6: Path("/proc/net/tcp6")}


def unacknowledged(link: socket.socket) -> int | None:
    """Bytes sent that have not arrived at the peer's host; `None` if that cannot be known."""
    queues = _queues(link, link.getsockname(), link.getpeername())
    return queues and queues[0]


def unread_by_peer(link: socket.socket) -> int | None:
    """Bytes that have arrived and that the peer has not read; `None` if that cannot be known."""
    queues = _queues(link, link.getpeername(), link.getsockname())
    return queues and queues[1]


def _queues(link: socket.socket, local: tuple[object, ...], remote: tuple[object, ...]) -> tuple[int, int] | None:
    """The lengths of the send and the receive queue of the socket between two addresses."""
    try:
        table = TABLES[link.family].read_text()
    except OSError:
        return None
    wanted = [_hex(link.family, local), _hex(link.family, remote)]
    for line in table.splitlines()[1:]:
        _, *addresses, _, queues = line.split(maxsplit=5)[:5]
        if addresses == wanted:
            sent, _, received = queues.partition(":")
            return int(sent, 16), int(received, 16)
    return None


def _hex(family: int, address: tuple[object, ...]) -> str:
    """An address as the table writes it: each 32-bit word of the host in the machine's own byte order."""
    packed = socket.inet_pton(family, str(address[0]).partition("%")[0])
    words = (int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words) + f":{address[1]:04X}"
