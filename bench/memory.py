"""User-space memory of one object that is open and has been used. Sizes are numbers of objects.

RSS is what the operating system sees, tracemalloc what Python allocated: the difference is the allocators' waste and
what C extensions hold. What the kernel keeps for a socket is in neither.
"""

from __future__ import annotations

import gc
import os
import tracemalloc
from functools import partial
from pathlib import Path

from bench.client import HOST, REQUEST, on_asyncio, on_curio, on_trio, raw_protocol, raw_socket, sockio_tcp
from bench.group import CURIO, OLD, OURS, TRIO, Group, Program, at_most

WARM_UP = 100
RSS = "RSS"
TRACEMALLOC = "tracemalloc"
STATM = Path("/proc/self/statm")


class Gauge:
    """Put in every object opened; after the warm-up the gauge starts, `per_object` is what each one added since."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._objects: list[object] = []
        self._start = 0
        if kind == TRACEMALLOC:
            tracemalloc.start()

    def _bytes(self) -> int:
        gc.collect()
        if self._kind == TRACEMALLOC:
            return tracemalloc.get_traced_memory()[0]
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def add(self, item: object) -> None:
        self._objects.append(item)
        if len(self._objects) == WARM_UP:
            self._start = self._bytes()

    @property
    def per_object(self) -> float:
        return (self._bytes() - self._start) / (len(self._objects) - WARM_UP) / 1024


def raw(kind: str, port: int, size: int) -> float:
    gauge = Gauge(kind)
    for _ in range(WARM_UP + size):
        sock = raw_socket(port)
        sock.send(REQUEST)
        sock.recv(4096)
        gauge.add(sock)
    return gauge.per_object


async def protocol(kind: str, port: int, size: int) -> float:
    gauge = Gauge(kind)
    for _ in range(WARM_UP + size):
        link = await raw_protocol(port)
        await link.request(REQUEST)
        gauge.add(link)
    return gauge.per_object


def blocking(flavour: str, package: str, kind: str, port: int, size: int) -> float:
    gauge = Gauge(kind)
    tcp = sockio_tcp(flavour, package)
    for _ in range(WARM_UP + size):
        sock = tcp(HOST, port)
        sock.write_readline(REQUEST, timeout=1)
        gauge.add(sock)
    return gauge.per_object


def futures(kind: str, port: int, size: int) -> float:
    gauge = Gauge(kind)
    tcp = sockio_tcp("sio", OURS)
    for _ in range(WARM_UP + size):
        sock = tcp(HOST, port, resolve_futures=False)
        sock.write_readline(REQUEST, timeout=1).result()
        gauge.add(sock)
    return gauge.per_object


async def awaited(flavour: str, package: str, kind: str, port: int, size: int) -> float:
    gauge = Gauge(kind)
    tcp = sockio_tcp(flavour, package)
    for _ in range(WARM_UP + size):
        sock = tcp(HOST, port)
        await sock.write_readline(REQUEST, timeout=1)
        gauge.add(sock)
    return gauge.per_object


def programs(kind: str) -> tuple[Program, ...]:
    return (
        Program(f"plain socket, {kind}", partial(raw, kind)),
        Program(f"ours sio, {kind}", partial(blocking, "sio", OURS, kind), (OURS,)),
        Program(f"0.15 sio, {kind}", partial(blocking, "sio", OLD, kind), (OLD,)),
        Program(f"ours py2 on this Python, {kind}", partial(blocking, "py2", OURS, kind), (OURS,)),
        Program(f"ours futures, {kind}", partial(futures, kind), (OURS,)),
        Program(f"asyncio BufferedProtocol, {kind}", on_asyncio(protocol, kind)),
        Program(f"ours aio, {kind}", on_asyncio(awaited, "aio", OURS, kind), (OURS,)),
        Program(f"0.15 aio, {kind}", on_asyncio(awaited, "aio", OLD, kind), (OLD,)),
        Program(f"ours trio, {kind}", on_trio(awaited, "trio", OURS, kind), (OURS, TRIO)),
        Program(f"ours curio, {kind}", on_curio(awaited, "curio", OURS, kind), (OURS, CURIO)),
    )


GROUP = Group(
    name="memory",
    title="memory of one open object, beyond the kernel's",
    unit="KiB",
    programs=(*(programs(RSS) if STATM.exists() else ()), *programs(TRACEMALLOC)),
    goals=(at_most("aio, RSS", f"ours aio, {RSS}", 12, "KiB"),),
    rounds=5,
    size=1000,
    quick_size=1000,
)
