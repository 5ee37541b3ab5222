"""One large read of known length. Sizes are bytes.

The plain loop comes twice. Into a `bytearray` made beforehand, whose pages making it has touched, it costs what moving
the bytes costs. Into new memory it also pays for the first touch of every page, as whoever returns a new object must.
"""

from __future__ import annotations

import asyncio
import mmap
import socket
import statistics
import time
from functools import partial

from bench.client import HOST, on_asyncio, raw_socket, sockio_tcp
from bench.group import OURS, Group, Program, at_least

READS = 3


def order(size: int) -> bytes:
    return b"S %d\n" % size


def rate(size: int, seconds: list[float]) -> float:
    return size / statistics.median(seconds) / 1e6


def fill(sock: socket.socket, view: memoryview) -> None:
    got, size = 0, len(view)
    sock.sendall(order(size))
    while got < size:
        got += sock.recv_into(view[got:])


def recv_into(port: int, size: int) -> float:
    seconds: list[float] = []
    view = memoryview(bytearray(size))
    with raw_socket(port) as sock:
        for _ in range(READS):
            start = time.perf_counter()
            fill(sock, view)
            seconds.append(time.perf_counter() - start)
    return rate(size, seconds)


def recv_into_new(port: int, size: int) -> float:
    seconds: list[float] = []
    with raw_socket(port) as sock:
        for _ in range(READS):
            start = time.perf_counter()
            fill(sock, memoryview(mmap.mmap(-1, size, access=mmap.ACCESS_COPY)))
            seconds.append(time.perf_counter() - start)
    return rate(size, seconds)


async def stream_reader(port: int, size: int) -> float:
    seconds: list[float] = []
    reader, writer = await asyncio.open_connection(HOST, port)
    for _ in range(READS):
        start = time.perf_counter()
        writer.write(order(size))
        await reader.readexactly(size)
        seconds.append(time.perf_counter() - start)
    return rate(size, seconds)


def sio(package: str, port: int, size: int) -> float:
    seconds: list[float] = []
    sock = sockio_tcp("sio", package)(HOST, port)
    sock.open()
    for _ in range(READS):
        start = time.perf_counter()
        sock.write(order(size))
        sock.readexactly(size)
        seconds.append(time.perf_counter() - start)
    return rate(size, seconds)


async def aio(package: str, port: int, size: int) -> float:
    seconds: list[float] = []
    sock = sockio_tcp("aio", package)(HOST, port)
    await sock.open()
    for _ in range(READS):
        start = time.perf_counter()
        await sock.write(order(size))
        await sock.readexactly(size)
        seconds.append(time.perf_counter() - start)
    return rate(size, seconds)


RECV_INTO = "recv_into a bytearray"
RECV_INTO_NEW = "recv_into new memory"

GROUP = Group(
    name="bulk",
    title="readexactly(100 MB)",
    unit="MB/s",
    programs=(
        Program(RECV_INTO, recv_into),
        Program(RECV_INTO_NEW, recv_into_new),
        Program("ours sio", partial(sio, OURS), (OURS,)),
        Program("ours aio", on_asyncio(aio, OURS), (OURS,)),
        Program("StreamReader.readexactly", on_asyncio(stream_reader)),
    ),
    goals=(
        at_least("sio beside recv_into", "ours sio", RECV_INTO, 0.9),
        at_least("aio beside recv_into", "ours aio", RECV_INTO, 0.9),
        at_least("sio, new memory", "ours sio", RECV_INTO_NEW, None),
        at_least("aio, new memory", "ours aio", RECV_INTO_NEW, None),
    ),
    baseline=RECV_INTO,
    rounds=7,
    size=100_000_000,
    quick_size=100_000_000,
)
