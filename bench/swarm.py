"""A thousand instruments: blocking, one after the other; asyncio, a request in flight to each of them.

Sizes are milliseconds of measuring a process; opening the links is not measured.
"""

from __future__ import annotations

import asyncio
from functools import partial

from bench.client import HOST, REQUEST, Laps, on_asyncio, raw_protocol, raw_socket, sockio_tcp
from bench.group import OLD, OURS, Group, Program, at_least

INSTRUMENTS = 1000
TIMEOUT = 10


def calls_per_second(laps: Laps) -> float:
    return INSTRUMENTS / laps.seconds


def raw(port: int, size: int) -> float:
    socks = [raw_socket(port) for _ in range(INSTRUMENTS)]
    laps = Laps(size)
    for _ in laps:
        for sock in socks:
            sock.send(REQUEST)
            sock.recv(4096)
    return calls_per_second(laps)


def sio(package: str, port: int, size: int) -> float:
    tcp = sockio_tcp("sio", package)
    socks = [tcp(HOST, port) for _ in range(INSTRUMENTS)]
    for sock in socks:
        sock.open()
    laps = Laps(size)
    for _ in laps:
        for sock in socks:
            sock.write_readline(REQUEST, timeout=TIMEOUT)
    return calls_per_second(laps)


async def protocol(port: int, size: int) -> float:
    links = [await raw_protocol(port) for _ in range(INSTRUMENTS)]
    laps = Laps(size)
    for _ in laps:
        await asyncio.gather(*[link.request(REQUEST) for link in links])
    return calls_per_second(laps)


async def aio(package: str, port: int, size: int) -> float:
    tcp = sockio_tcp("aio", package)
    socks = [tcp(HOST, port) for _ in range(INSTRUMENTS)]
    for sock in socks:
        await sock.open()
    laps = Laps(size)
    for _ in laps:
        await asyncio.gather(*[sock.write_readline(REQUEST, timeout=TIMEOUT) for sock in socks])
    return calls_per_second(laps)


RAW = "raw send/recv, in turn"
PROTOCOL = "asyncio BufferedProtocol, gather"

GROUP = Group(
    name="swarm",
    title="1,000 instruments at once",
    unit="calls/s",
    programs=(
        Program(RAW, raw),
        Program("ours sio, in turn", partial(sio, OURS), (OURS,)),
        Program("0.15 sio, in turn", partial(sio, OLD), (OLD,)),
        Program(PROTOCOL, on_asyncio(protocol)),
        Program("ours aio, gather", on_asyncio(aio, OURS), (OURS,)),
        Program("0.15 aio, gather", on_asyncio(aio, OLD), (OLD,)),
    ),
    goals=(
        at_least("sio beside raw send/recv", "ours sio, in turn", RAW, None),
        at_least("aio beside BufferedProtocol", "ours aio, gather", PROTOCOL, None),
    ),
    baseline=RAW,
    rounds=7,
    size=500,
    quick_size=200,
)
