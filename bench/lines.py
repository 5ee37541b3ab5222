"""Line streams: the server sends lines of 64 bytes as fast as they are taken. Sizes are numbers of lines."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from bench.client import HOST, LINE_SIZE, on_asyncio, raw_socket, sockio_tcp
from bench.group import OURS, Group, Program, at_least


def order(lines: int) -> bytes:
    return b"E %d\n" % (lines * LINE_SIZE)


def rate(wanted: int, got: int, start: float) -> float:
    if got != wanted:
        raise ValueError(f"the stream gave {got} lines instead of {wanted}")
    return got / (time.perf_counter() - start)


def makefile(port: int, size: int) -> float:
    with raw_socket(port) as sock, sock.makefile("rb") as file:
        start, count = time.perf_counter(), 0
        sock.sendall(order(size))
        while file.readline():
            count += 1
        return rate(size, count, start)


async def stream_reader(port: int, size: int) -> float:
    reader, writer = await asyncio.open_connection(HOST, port)
    start, count = time.perf_counter(), 0
    writer.write(order(size))
    while await reader.readline():
        count += 1
    return rate(size, count, start)


def sio(package: str, port: int, size: int) -> float:
    sock = sockio_tcp("sio", package)(HOST, port)
    sock.open()
    start, count = time.perf_counter(), 0
    sock.write(order(size))
    for _ in sock:
        count += 1
    return rate(size, count, start)


async def aio(package: str, port: int, size: int) -> float:
    sock = sockio_tcp("aio", package)(HOST, port)
    await sock.open()
    start, count = time.perf_counter(), 0
    await sock.write(order(size))
    async for _ in sock:
        count += 1
    return rate(size, count, start)


MAKEFILE = "socket.makefile().readline"
STREAM_READER = "StreamReader.readline"

GROUP = Group(
    name="lines",
    title="line stream, lines of 64 bytes",
    unit="lines/s",
    programs=(
        Program(MAKEFILE, makefile),
        Program("ours sio, for line in sock", partial(sio, OURS), (OURS,)),
        Program(STREAM_READER, on_asyncio(stream_reader)),
        Program("ours aio, async for line in sock", on_asyncio(aio, OURS), (OURS,)),
    ),
    goals=(
        at_least("sio beside makefile().readline", "ours sio, for line in sock", MAKEFILE, 0.7),
        at_least("aio beside StreamReader.readline", "ours aio, async for line in sock", STREAM_READER, 3),
    ),
    baseline=MAKEFILE,
    rounds=7,
    size=800_000,
    quick_size=100_000,
)
