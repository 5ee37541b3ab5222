"""A started multimeter, and raw blocking clients: the simulator is tested without the library that it serves."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from simulator import Instrument


class Client:
    """A blocking link that never waits longer than 10 s."""

    def __init__(self, instrument: Instrument) -> None:
        self.socket = socket.create_connection((instrument.host, instrument.port), timeout=10)
        self._file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def readline(self) -> bytes:
        return self._file.readline()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def ask(self, message: bytes) -> bytes:
        self.send(message + b"\n")
        return self.readline()

    def read_until_reset(self) -> bytes:
        received = b""
        try:
            while data := self.socket.recv(1000):
                received += data
        except ConnectionResetError:
            return received
        raise AssertionError(f"FIN instead of RST, after {received!r}")

    def close(self) -> None:
        self._file.close()
        self.socket.close()


@pytest.fixture
def dmm() -> Iterator[Instrument]:
    with Instrument() as instrument:
        yield instrument


@pytest.fixture
def connect() -> Iterator[Callable[[Instrument], Client]]:
    clients: list[Client] = []

    def make(instrument: Instrument) -> Client:
        clients.append(Client(instrument))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(dmm: Instrument, connect: Callable[[Instrument], Client]) -> Client:
    return connect(dmm)
