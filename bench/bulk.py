"""One large read of known length. Sizes are bytes.

The bytes land in memory that nobody touched before, in every program: what a caller gets is a new object each time, so
the plain loop, too, pays for the first touch of its pages.
"""

from __future__ import annotations

import asyncio
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


def recv_into(port: int, size: int) -> float:
    seconds: list[float] = []
    with raw_socket(port) as sock:
        for _ in range(READS):
            view, got = memoryview(bytearray(size)), 0
            start = time.perf_counter()
            sock.sendall(order(size))
            while got < size:
                got += sock.recv_into(view[got:])
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

GROUP = Group(
    name="bulk",
    title="readexactly(100 MB)",
    unit="MB/s",
    programs=(
        Program(RECV_INTO, recv_into),
        Program("ours sio", partial(sio, OURS), (OURS,)),
        Program("ours aio", on_asyncio(aio, OURS), (OURS,)),
        Program("StreamReader.readexactly", on_asyncio(stream_reader)),
    ),
    goals=(
        at_least("sio beside recv_into", "ours sio", RECV_INTO, 0.9),
        at_least("aio beside recv_into", "ours aio", RECV_INTO, 0.9),
    ),
    baseline=RECV_INTO,
    rounds=7,
    size=100_000_000,
    quick_size=100_000_000,
)
