"""Simulators that the packages ship, and one way of driving a client in blocking code and in asyncio."""

from __future__ import annotations

import asyncio
import inspect
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

import pytest

from tests.flavours import BOUND

HOST = "127.0.0.1"


class Simulator:
    """An instrument of sinstruments on a TCP port, which it keeps when it restarts."""

    def __init__(self, package: str, kind: str, **options: Any) -> None:
        self._device = {"class": kind, "package": f"{package}.simulator", "name": "simulated", **options}
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen."""
        transport = {"type": "tcp", "url": [HOST, self.port]}
        server_context = import_module("sinstruments.pytest").server_context
        self._context = server_context({"devices": [{**self._device, "transports": [transport]}]})
        self._context.start()
        self._transport = self._context.server.devices["simulated"].transports[0]
        self.port = self._transport.address[1]

    def stop(self) -> None:
        """End every link, and listen no more."""
        ended = threading.Event()
        self._transport.loop.run_callback_threadsafe(self._end_links, ended)
        assert ended.wait(BOUND)
        self._context.stop()

    def _end_links(self, ended: threading.Event) -> None:
        """Hang up; on gevent's own thread, where nobody else is closing them."""
        for link in self._transport.connections.values():
            with suppress(OSError):  # the other end was faster
                link.shutdown(socket.SHUT_RDWR)
        ended.set()

    def restart(self) -> None:
        """As when it is switched off and on again."""
        self.stop()
        self.start()

    @property
    def url(self) -> str:
        """Where it is, for connio."""
        return f"tcp://{HOST}:{self.port}"


@pytest.fixture
def simulator() -> Iterator[Callable[..., Simulator]]:
    """Start simulators: ``simulator(package, class, ...)``."""
    started: list[Simulator] = []

    def start(*args: str, **options: Any) -> Simulator:
        started.append(Simulator(*args, **options))
        return started[-1]

    yield start
    for simulator in started:
        simulator.stop()


class Blocking:
    """Calls return when they are done."""

    concurrency = "sync"

    def __call__(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call, and return the result."""
        return function(*args, **options)

    def end(self) -> None:
        """Nothing is left."""


class Awaiting:
    """Calls are awaited, on a loop that runs only meanwhile."""

    concurrency = "async"

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def __call__(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call, await if need be, and return the result."""

        async def call() -> Any:
            result = function(*args, **options)
            return await result if inspect.isawaitable(result) else result

        return self._loop.run_until_complete(call())

    def end(self) -> None:
        """Close the loop."""
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()


@pytest.fixture(params=[Awaiting, Blocking], ids=["async", "sync"])
def call(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Both ways in turn: ``call(device.idn)``, and ``call.concurrency`` for connio."""
    call = request.param()
    yield call
    call.end()
