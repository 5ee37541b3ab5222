"""What the simulator can't be: a peer that is a bare socket, and names that the test makes up."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

from simulator.faults import Fault, Outlet, Reply
from tests.flavours import BOUND, Sock, eventually


class Peer:
    """A listening socket, and the connections that it has accepted."""

    def __init__(self, host: str = "127.0.0.1", receive_buffer: int | None = None) -> None:
        self._listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind((host, 0))
        self._listener.listen()
        self._listener.settimeout(BOUND)
        self._accepted: list[socket.socket] = []
        self.host = host
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (*self._accepted, self._listener):
            sock.close()

    def accept(self) -> socket.socket:
        """Return the other end of the next connection."""
        sock = self._listener.accept()[0]
        sock.settimeout(BOUND)
        self._accepted.append(sock)
        return sock


def send_in_pieces(other_end: socket.socket, sock: Sock, *pieces: bytes) -> None:
    """Send the pieces to ``sock``, each when the one before was read."""
    other_end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link = sock.raw._link
    pending = sock.flavour.imported("sockio.common").pending

    def was_read() -> bool:
        try:
            return link.ended or not pending(link.sock)
        except OSError:
            return True  # closed since it was asked whether it has ended

    for piece in pieces:
        other_end.sendall(piece)
        eventually(was_read)


def received(sock: socket.socket, size: int) -> bytes:
    """Return ``size`` bytes that arrive, or what there is up to the end."""
    data = bytearray()
    while len(data) < size and (chunk := sock.recv(min(size - len(data), 2**16))):
        data += chunk
    return bytes(data)


def received_to_end(sock: socket.socket) -> bytes:
    """Return everything that arrives; a link that is reset raises."""
    return received(sock, 2**63)


def segments_received(sock: socket.socket) -> int:
    """Return how many segments with data have arrived (Linux: ``tcpi_data_segs_in``)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    count: int = struct.unpack_from("I", info, 152)[0]
    return count


def unplug(sock: socket.socket) -> None:
    """Make a link fall silent: whatever comes for ``sock`` is thrown away unanswered (Linux: a packet filter)."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(drop_all))
    sock.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER


def failing(code: int, before: Callable[[], object] = bool) -> Callable[..., Any]:
    """Return a function that fails as a system call does; ``before`` happens before its caller can say so."""

    def fail(*_: Any) -> Any:
        before()
        raise OSError(code, os.strerror(code))

    return fail


class Held(Fault):
    """The reply, or what another fault makes of it, when the test says so."""

    def __init__(self, fault: Fault | None = None) -> None:
        self._fault = fault
        self._going = threading.Event()

    def go(self) -> None:
        """Let the reply go."""
        self._going.set()

    async def deliver(self, link: Outlet, reply: Reply) -> None:
        await asyncio.to_thread(self._going.wait, BOUND)
        await (link.send(reply) if self._fault is None else self._fault.deliver(link, reply))


class Names:
    """Host names and what they stand for, in place of the system's resolver.

    ``names["a.test"] = [(host, port), ...]`` makes a name; ``names.lookups`` are the names asked for,
    ``names.times`` when; while ``names.answering`` is cleared, nothing is answered.
    """

    def __init__(self) -> None:
        self._real = socket.getaddrinfo
        self._addresses: dict[str, list[tuple[str, int]]] = {}
        self.lookups: list[str] = []
        self.times: list[float] = []
        self.answering = threading.Event()
        self.answering.set()

    def __setitem__(self, name: str, addresses: list[tuple[str, int]]) -> None:
        self._addresses[name] = addresses

    def getaddrinfo(self, host: str, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        """Stand in for ``socket.getaddrinfo``."""
        if host not in self._addresses:
            return self._real(host, port, family, type, proto, flags)
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        self.lookups.append(host)
        self.times.append(time.monotonic())
        assert self.answering.wait(BOUND)
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))
            for address, port in self._addresses[host]
        ]
