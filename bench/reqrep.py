"""Request-reply: one request, one line back, one at a time. Sizes are milliseconds of measuring a process."""

from __future__ import annotations

import asyncio
from functools import partial

from bench.client import HOST, REQUEST, Laps, on_asyncio, on_uvloop, raw_protocol, raw_socket, sockio_tcp
from bench.group import OLD, OURS, UVLOOP, Group, Program, share

CALLS = 25


def microseconds(laps: Laps) -> float:
    return laps.seconds / CALLS * 1e6


def raw(timeout: float | None, port: int, size: int) -> float:
    with raw_socket(port) as sock:
        sock.settimeout(timeout)
        laps = Laps(size)
        for _ in laps:
            for _ in range(CALLS):
                sock.send(REQUEST)
                sock.recv(4096)
    return microseconds(laps)


async def protocol(port: int, size: int) -> float:
    link = await raw_protocol(port)
    laps = Laps(size)
    for _ in laps:
        for _ in range(CALLS):
            await link.request(REQUEST)
    return microseconds(laps)


async def streams(port: int, size: int) -> float:
    reader, writer = await asyncio.open_connection(HOST, port)
    laps = Laps(size)
    for _ in laps:
        for _ in range(CALLS):
            writer.write(REQUEST)
            await reader.readline()
    return microseconds(laps)


def sio(package: str, port: int, size: int) -> float:
    sock = sockio_tcp("sio", package)(HOST, port)
    laps = Laps(size)
    for _ in laps:
        for _ in range(CALLS):
            sock.write_readline(REQUEST)
    return microseconds(laps)


def sio_timeout(package: str, port: int, size: int) -> float:
    sock = sockio_tcp("sio", package)(HOST, port)
    laps = Laps(size)
    for _ in laps:
        for _ in range(CALLS):
            sock.write_readline(REQUEST, timeout=1)
    return microseconds(laps)


async def aio(package: str, port: int, size: int) -> float:
    sock = sockio_tcp("aio", package)(HOST, port)
    laps = Laps(size)
    for _ in laps:
        for _ in range(CALLS):
            await sock.write_readline(REQUEST)
    return microseconds(laps)


async def aio_timeout(package: str, port: int, size: int) -> float:
    sock = sockio_tcp("aio", package)(HOST, port)
    laps = Laps(size)
    for _ in laps:
        for _ in range(CALLS):
            await sock.write_readline(REQUEST, timeout=1)
    return microseconds(laps)


RAW = "raw send/recv"
PROTOCOL = "asyncio BufferedProtocol"
UVLOOP_PROTOCOL = "BufferedProtocol on uvloop"

GROUP = Group(
    name="reqrep",
    title="request-reply, *IDN? and one line back",
    unit="µs/call",
    programs=(
        Program(RAW, partial(raw, None)),
        Program("ours sio", partial(sio, OURS), (OURS,)),
        Program("ours sio, timeout=1", partial(sio_timeout, OURS), (OURS,)),
        Program("raw send/recv, settimeout(1)", partial(raw, 1.0)),
        Program("0.15 sio", partial(sio, OLD), (OLD,)),
        Program("0.15 sio, timeout=1", partial(sio_timeout, OLD), (OLD,)),
        Program(PROTOCOL, on_asyncio(protocol)),
        Program("ours aio", on_asyncio(aio, OURS), (OURS,)),
        Program("ours aio, timeout=1", on_asyncio(aio_timeout, OURS), (OURS,)),
        Program("0.15 aio", on_asyncio(aio, OLD), (OLD,)),
        Program("0.15 aio, timeout=1", on_asyncio(aio_timeout, OLD), (OLD,)),
        Program("asyncio streams", on_asyncio(streams)),
        Program(UVLOOP_PROTOCOL, on_uvloop(protocol), (UVLOOP,)),
        Program("ours aio on uvloop, timeout=1", on_uvloop(aio_timeout, OURS), (OURS, UVLOOP)),
        Program("0.15 aio on uvloop, timeout=1", on_uvloop(aio_timeout, OLD), (OLD, UVLOOP)),
    ),
    about_goals="what a call adds to its floor, as a share of what 0.15 adds to the same floor",
    goals=(
        share("sio, timeout=1", "ours sio, timeout=1", RAW, "0.15 sio, timeout=1", 1 / 33),
        share("sio", "ours sio", RAW, "0.15 sio", 1 / 30),
        share("aio, timeout=1", "ours aio, timeout=1", PROTOCOL, "0.15 aio, timeout=1", 1 / 15),
        share("aio", "ours aio", PROTOCOL, "0.15 aio", None),
        share(
            "aio on uvloop, timeout=1",
            "ours aio on uvloop, timeout=1",
            UVLOOP_PROTOCOL,
            "0.15 aio on uvloop, timeout=1",
            1 / 6,
        ),
    ),
    baseline=RAW,
    rounds=15,
    size=200,
    quick_size=100,
)
