"""What the kernel knows about the bytes of a link: whether they have arrived, and whether they have been read.

Linux tells the queues of any socket, those of the peer too when it lives on the same machine (`man 7 sock_diag`). The
same is in `/proc/net/tcp`, which is slow to read where thousands of links have ended a moment ago.
"""

from __future__ import annotations

import socket
import struct
import sys

SOCK_DIAG = 4
"""The netlink protocol that tells of sockets."""

_BY_FAMILY = 20
_REQUEST = 1
_HEADER = struct.Struct("=IHHII")
_QUESTION = struct.Struct("=BBBxI")
_ADDRESSES = struct.Struct("!HH16s16s")
_SOCKET = struct.Struct("=III")
_ANSWER = struct.Struct("=xB2x48x4xII")
_ANY = 0xFFFFFFFF
_LISTENING = 10


def unacknowledged(link: socket.socket) -> int | None:
    """Bytes sent that have not arrived at the peer's host; `None` if that cannot be known."""
    queues = _queues(link, link.getsockname(), link.getpeername())
    return queues and queues[1]


def unread_by_peer(link: socket.socket) -> int | None:
    """Bytes that have arrived and that the peer has not read; `None` if that cannot be known."""
    queues = _queues(link, link.getpeername(), link.getsockname())
    return queues and queues[0]


def _queues(link: socket.socket, local: tuple[object, ...], remote: tuple[object, ...]) -> tuple[int, int] | None:
    """The lengths of the receive and the send queue of the socket between two addresses."""
    if sys.platform != "linux":
        return None
    question = (
        _QUESTION.pack(link.family, socket.IPPROTO_TCP, 0, _ANY)
        + _ADDRESSES.pack(local[1], remote[1], _packed(link, local), _packed(link, remote))
        + _SOCKET.pack(*local[3:] or [0], _ANY, _ANY)
    )
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, SOCK_DIAG) as kernel:
            kernel.sendto(_HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _REQUEST, 0, 0) + question, (0, 0))
            answer = kernel.recv(4096)
    except OSError:
        return None
    if _HEADER.unpack_from(answer)[1] != _BY_FAMILY:  # but an error: there is no such socket
        return None
    state, received, sent = _ANSWER.unpack_from(answer, _HEADER.size)
    return None if state == _LISTENING else (received, sent)  # who listens stands in for a link that isn't there


def _packed(link: socket.socket, address: tuple[object, ...]) -> bytes:
    return socket.inet_pton(link.family, str(address[0]).partition("%")[0])
