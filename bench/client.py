"""What the client programs share: the clock, the raw ways to the server, and the entry point of their processes."""

from __future__ import annotations

import asyncio
import importlib
import socket
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

from bench.group import OLD, Group

HOST = "127.0.0.1"
REQUEST = b"*IDN?\n"
LINE_SIZE = 64


class Laps:
    """Iterate for some milliseconds; every turn of the loop is one lap on the clock.

    What counts is the lower quartile of the laps: it stays put while others take the core for half of the time.
    """

    def __init__(self, milliseconds: int) -> None:
        self._budget = milliseconds / 1000
        self._laps: list[float] = []

    def __iter__(self) -> Iterator[None]:
        end = time.perf_counter() + self._budget
        start = 0.0
        while start < end:
            start = time.perf_counter()
            yield
            self._laps.append(time.perf_counter() - start)

    @property
    def seconds(self) -> float:
        return statistics.quantiles(self._laps, n=4)[0] if len(self._laps) > 1 else self._laps[0]


class RawProtocol(asyncio.BufferedProtocol):
    """The least that asyncio can do: one buffer shared by all links, one future a request, no framing."""

    _buffer = memoryview(bytearray(65536))

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._reply.set_result(bytes(self._buffer[:nbytes]))

    def request(self, data: bytes) -> asyncio.Future[bytes]:
        self._reply = self._loop.create_future()
        self._transport.write(data)
        return self._reply


def raw_socket(port: int) -> socket.socket:
    sock = socket.create_connection((HOST, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


async def raw_protocol(port: int) -> RawProtocol:
    _, protocol = await asyncio.get_running_loop().create_connection(RawProtocol, HOST, port)
    return protocol


def sockio_tcp(flavour: str, package: str) -> Callable[..., Any]:
    """`TCP` of sockio's module `flavour`, from the package wanted and no other."""
    version = importlib.import_module("sockio").__version__
    if (package == OLD) != (version == "0.15.0"):
        raise ImportError(f"wanted {package}, but sockio is {version} here: {sys.modules['sockio'].__file__}")
    return cast("Callable[..., Any]", importlib.import_module(f"sockio.{flavour}").TCP)


def on_asyncio(program: Callable[..., Awaitable[float]], *args: object) -> Callable[[int, int], float]:
    """A program that is a coroutine function, run on asyncio's own loop; `args` come before port and size."""
    return lambda port, size: asyncio.new_event_loop().run_until_complete(program(*args, port, size))


def on_uvloop(program: Callable[..., Awaitable[float]], *args: object) -> Callable[[int, int], float]:
    def run(port: int, size: int) -> float:
        loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
        return loop.run_until_complete(program(*args, port, size))

    return run


def on_trio(program: Callable[..., Awaitable[float]], *args: object) -> Callable[[int, int], float]:
    return lambda port, size: importlib.import_module("trio").run(program, *args, port, size)


def on_curio(program: Callable[..., Awaitable[float]], *args: object) -> Callable[[int, int], float]:
    return lambda port, size: importlib.import_module("curio").run(program, *args, port, size)


def main(group_name: str, program_name: str, port: str, size: str) -> None:
    """Run one program and print its figure."""
    group: Group = importlib.import_module(f"bench.{group_name}").GROUP
    program = next(program for program in group.programs if program.name == program_name)
    print(program.run(int(port), int(size)))
