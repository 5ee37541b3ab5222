"""From one instrument to a thousand: one after the other where calls block, else a request in flight to each of them.

Sizes are milliseconds of measuring a process; opening the links is not measured.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from bench.client import HOST, REQUEST, Laps, on_asyncio, on_curio, on_trio, raw_protocol, raw_socket, sockio_tcp
from bench.group import CURIO, OLD, OURS, TRIO, Goal, Group, Program

COUNTS = (1, 1000)
TIMEOUT = 10


def raw(count: int, port: int, size: int) -> float:
    socks = [raw_socket(port) for _ in range(count)]
    laps = Laps(size)
    for _ in laps:
        for sock in socks:
            sock.send(REQUEST)
            sock.recv(4096)
    return count / laps.seconds


def blocking(flavour: str, package: str, count: int, port: int, size: int) -> float:
    socks = [sockio_tcp(flavour, package)(HOST, port) for _ in range(count)]
    for sock in socks:
        sock.open()
    laps = Laps(size)
    for _ in laps:
        for sock in socks:
            sock.write_readline(REQUEST, timeout=TIMEOUT)
    return count / laps.seconds


def futures(package: str, count: int, port: int, size: int) -> float:
    socks = [sockio_tcp("sio", package)(HOST, port, resolve_futures=False) for _ in range(count)]
    for sock in socks:
        sock.open().result()
    laps = Laps(size)
    for _ in laps:
        for call in [sock.write_readline(REQUEST, timeout=TIMEOUT) for sock in socks]:
            call.result()
    return count / laps.seconds


Calls = Sequence[Callable[[], Awaitable[Any]]]


async def gather_on_asyncio(calls: Calls) -> None:
    await asyncio.gather(*[call() for call in calls])


async def gather_on_trio(calls: Calls) -> None:
    async with importlib.import_module("trio").open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call)


async def gather_on_curio(calls: Calls) -> None:
    async with importlib.import_module("curio").TaskGroup() as group:
        for call in calls:
            await group.spawn(call)


async def protocol(count: int, port: int, size: int) -> float:
    links = [await raw_protocol(port) for _ in range(count)]
    calls = [partial(link.request, REQUEST) for link in links]
    laps = Laps(size)
    for _ in laps:
        await gather_on_asyncio(calls)
    return count / laps.seconds


async def awaited(
    flavour: str, package: str, gather: Callable[[Calls], Awaitable[None]], count: int, port: int, size: int
) -> float:
    socks = [sockio_tcp(flavour, package)(HOST, port) for _ in range(count)]
    for sock in socks:
        await sock.open()
    calls = [partial(sock.write_readline, REQUEST, timeout=TIMEOUT) for sock in socks]
    laps = Laps(size)
    for _ in laps:
        await gather(calls)
    return count / laps.seconds


Run = Callable[[int, int], float]
PROGRAMS: dict[str, tuple[Callable[[int], Run], tuple[str, ...]]] = {
    "raw send/recv": (lambda count: partial(raw, count), ()),
    "ours sio": (lambda count: partial(blocking, "sio", OURS, count), (OURS,)),
    "0.15 sio": (lambda count: partial(blocking, "sio", OLD, count), (OLD,)),
    "ours py2 on this Python": (lambda count: partial(blocking, "py2", OURS, count), (OURS,)),
    "ours futures": (lambda count: partial(futures, OURS, count), (OURS,)),
    "0.15 futures": (lambda count: partial(futures, OLD, count), (OLD,)),
    "asyncio BufferedProtocol": (lambda count: on_asyncio(protocol, count), ()),
    "ours aio": (lambda count: on_asyncio(awaited, "aio", OURS, gather_on_asyncio, count), (OURS,)),
    "0.15 aio": (lambda count: on_asyncio(awaited, "aio", OLD, gather_on_asyncio, count), (OLD,)),
    "ours trio": (lambda count: on_trio(awaited, "trio", OURS, gather_on_trio, count), (OURS, TRIO)),
    "ours curio": (lambda count: on_curio(awaited, "curio", OURS, gather_on_curio, count), (OURS, CURIO)),
}


def name_of(program: str, count: int) -> str:
    return f"{program}, {count:,}"


def growth(program: str) -> Goal:
    """How much of its rate with one object a program keeps with a thousand."""
    one, many = (name_of(program, count) for count in COUNTS)
    return Goal(program, (one, many), lambda f: f[many] / f[one], lambda number: f"x {number:.2f}", None, at_most=False)


GROUP = Group(
    name="swarm",
    title="from one instrument to a thousand",
    unit="calls/s",
    programs=tuple(
        Program(name_of(name, count), run(count), needs) for name, (run, needs) in PROGRAMS.items() for count in COUNTS
    ),
    about_goals="calls per second with 1,000 objects, beside those with one",
    goals=tuple(growth(name) for name in PROGRAMS),
    baseline=name_of("raw send/recv", 1),
    rounds=5,
    size=500,
    quick_size=200,
)
