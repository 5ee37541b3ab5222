"""Every flavour behind one blocking façade, so that a behaviour is written once and runs in each.

A test gets a ``Flavour``. ``flavour.tcp(...)`` makes a ``Sock``: the same methods in every flavour, each blocking, none
for longer than ``BOUND``. ``sock.start("readline")`` and ``flavour.start(...)`` do the same in a task or thread of
their own, and return a ``Running``. What must happen inside one task or thread (callbacks, transactions) is a script:
a generator function that yields each call, ``reply = yield raw.write_readline(b"*IDN?\\n")``; ``flavour.start`` plays
it, and ``flavour.callback`` makes it an event callback.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import importlib
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from types import ModuleType
from typing import Any

#: Seconds that no step of a test takes, on the slowest machine.
BOUND = float(os.environ.get("SOCKIO_BOUND", "60"))

Script = Generator[Any, Any, Any]


def eventually(condition: Callable[[], object], bound: float = BOUND) -> None:
    """Wait until the condition holds, for what nobody announces."""
    give_up = time.monotonic() + bound
    while not condition():
        assert time.monotonic() < give_up, f"not within {bound} s: {inspect.getsource(condition)}"
        time.sleep(0.001)


class EndOfStream(Exception):
    """A stream has ended, in whatever way the flavour says so."""


class Running:
    """A call, or a script, in a task or thread of its own."""

    def __init__(self, future: concurrent.futures.Future[Any], cancel: Callable[[], None] | None = None) -> None:
        self._future = future
        self._cancel = cancel

    def result(self, bound: float = BOUND) -> Any:
        """Return its result, or raise its exception."""
        return self._future.result(bound)

    def error(self, bound: float = BOUND) -> BaseException:
        """Return the exception that it raised."""
        error = self._future.exception(bound)
        assert error is not None, f"it returned {self._future.result()!r}"
        return error

    def done(self) -> bool:
        """Whether it has ended."""
        return self._future.done()

    def cancel(self) -> None:
        """Cancel it, and wait until it has ended."""
        assert self._cancel is not None, "this flavour has no cancellation"
        self._cancel()


class Sock:
    """A ``TCP`` object whose methods all block."""

    def __init__(self, flavour: Flavour, raw: Any) -> None:
        self.flavour = flavour
        self.raw = raw

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.raw, name)
        if not callable(value) or name.startswith("on_"):
            return value
        return lambda *args, **options: self.flavour.call(value, *args, **options)

    @property
    def is_open(self) -> bool:
        """Whether it is connected."""
        return bool(self.flavour.call(lambda: self.raw.is_open))

    def start(self, name: str, *args: Any, **options: Any) -> Running:
        """Start a call in a task or thread of its own."""
        return self.flavour.start(getattr(self.raw, name), *args, **options)

    def lines(self) -> Iterator[bytes]:
        """Iterate over the object itself."""
        return self.flavour.iterate(self.flavour.call(self.flavour.stream_of, self.raw))

    def line_stream(self, *args: Any, **options: Any) -> Iterator[bytes]:
        """Iterate over a ``LineStream``."""
        return self.flavour.iterate(self.flavour.module.LineStream(self.raw, *args, **options))

    def block_stream(self, *args: Any, **options: Any) -> Iterator[bytes]:
        """Iterate over a ``BlockStream``."""
        return self.flavour.iterate(self.flavour.module.BlockStream(self.raw, *args, **options))

    def transaction(self, body: Callable[[], Script], **options: Any) -> Script:
        """Return a script that does ``body`` inside a transaction."""

        def script() -> Script:
            manager = self.raw.transaction(**options)
            yield self.flavour.enter(manager)
            try:
                result = yield from body()
            except BaseException as exc:
                if not (yield self.flavour.leave(manager, exc)):
                    raise
                return None
            yield self.flavour.leave(manager, None)
            return result

        return script()


class Flavour:
    """One way of using sockio.

    Attributes:
        name: its column in the table of ``docs/contract.md``
        variant: its name in test ids
        cancels: whether a call can be cancelled
        cancels_steps: whether a step of a stream can
        cancelled: what that raises inside of it
        module: where its ``TCP`` lives
        callbacks: the events that it tells of
        warns: whether a dropped object warns
    """

    name: str
    variant: str
    cancels: bool
    cancels_steps: bool
    cancelled: type[BaseException] = asyncio.CancelledError
    module: ModuleType
    callbacks: tuple[str, ...] = ("on_connection_made", "on_connection_lost", "on_eof_received")
    warns = True

    def tcp(self, host: str, port: int, **options: Any) -> Sock:
        """Make a ``TCP`` object, closed when the test ends."""
        sock = Sock(self, self.call(self.module.TCP, host, port, **options))
        self._socks.append(sock)
        return sock

    def forget(self, sock: Sock) -> None:
        """Let go of an object: nobody closes it when the test ends."""
        self._socks.remove(sock)

    def __enter__(self) -> Flavour:
        self._socks: list[Sock] = []
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for sock in self._socks:
                sock.close()
        finally:
            self.end()

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Do a call, and return its result."""
        return self.start(function, *args, **options).result()

    def iterate(self, stream: Any) -> Iterator[bytes]:
        """Iterate over a stream, in blocking steps."""
        while True:
            try:
                yield self.call(self.step, stream)
            except EndOfStream:
                return

    def applies(self, clause: str) -> bool:
        """Whether the clause concerns this flavour."""
        from tests.conformance import applicability  # which imports the flavours

        return not applicability()[clause][self.name].startswith("no")

    def callers(self, sock: Sock) -> int:
        """Return how many callers are inside a call of the object, being served or waiting for their turn."""
        queues = sock.raw.queues
        return len({id(ticket) for ticket in (*queues.reads, *queues.writes, *queues.connects)})

    def is_untraced(self, sock: Sock) -> bool:
        """Whether a call uses the very functions that move the bytes, with no wire trace in between."""
        link = sock.raw._link
        return bool(link.send == link.sock.send and link.arrived == link.buffer.feed)

    def allocated(self) -> int:
        """Return how many blocks of memory are in use where the object is, after collecting the garbage."""
        gc.collect()
        return sys.getallocatedblocks()

    def imported(self, name: str) -> Any:
        """Return a module as the interpreter of the object has it."""
        return importlib.import_module(name)

    def returned(self, value: Any) -> Any:
        """Return what a call has returned, in the form that all flavours share."""
        return value

    def reconnect(self, sock: Sock, times: int, closing: bool, ended: threading.Semaphore) -> None:
        """Ask a peer once a link: it releases ``ended`` when that has ended, by itself or because it was closed."""

        def script() -> Script:
            ask, close = sock.raw.write_readline, sock.raw.close
            for _ in range(times):
                assert (yield ask(b"?\n")) == b"!\n"
                if closing:
                    yield close()
                assert ended.acquire(timeout=BOUND)

        self.start(script).result(2 * BOUND)

    def tasks(self) -> int:
        """Return how many tasks there are, its own included; 0 where there are none."""
        return 0

    # What each flavour has its own way of.

    def begin(self) -> None:
        """Get ready for a test."""

    def end(self) -> None:
        """The test is over: nothing may be left running."""

    def start(self, function: Callable[..., Any], *args: Any, **options: Any) -> Running:
        """Start a call, or a script, in a task or thread of its own."""
        raise NotImplementedError

    def callback(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a script or a plain function as an event callback."""
        raise NotImplementedError

    def stream_of(self, raw: Any) -> Any:
        """Return what iterating over the object iterates over."""
        raise NotImplementedError

    def step(self, stream: Any) -> Any:
        """Do a step of a stream, in a script: ``line = yield flavour.step(stream)``."""
        raise NotImplementedError

    def enter(self, manager: Any) -> Any:
        """Enter a context manager, in a script."""
        raise NotImplementedError

    def leave(self, manager: Any, exc: BaseException | None) -> Any:
        """Leave a context manager, in a script."""
        raise NotImplementedError


class AsyncFlavour(Flavour):
    """A flavour whose calls are awaited."""

    cancels = cancels_steps = True

    def callback(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def run(*args: Any) -> Any:
            return await play_async(function, *args)

        return run

    def stream_of(self, raw: Any) -> Any:
        return aiter(raw)

    async def step(self, stream: Any) -> Any:
        try:
            return await anext(stream)
        except StopAsyncIteration:
            raise EndOfStream from None

    def enter(self, manager: Any) -> Any:
        return manager.__aenter__()

    def leave(self, manager: Any, exc: BaseException | None) -> Any:
        return manager.__aexit__(exc and type(exc), exc, exc and exc.__traceback__)


def play(
    function: Callable[..., Any], *args: Any, returned: Callable[[Any], Any] = lambda value: value, **options: Any
) -> Any:
    """Do a blocking call, or play a script of such calls, and return the result."""
    result: Any = function(*args, **options)
    if not isinstance(result, Generator):
        return returned(result)
    value = None
    try:
        while True:
            value = returned(result.send(value))
    except StopIteration as stop:
        return stop.value


async def play_async(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Do a call that is awaited, or play a script of such calls, and return the result."""
    result: Any = function(*args, **options)
    if not isinstance(result, Generator):
        return await result if inspect.isawaitable(result) else result
    step: Callable[[], Any] = lambda: result.send(None)  # noqa: E731
    try:
        while True:
            awaited = step()
            try:
                value = await awaited if inspect.isawaitable(awaited) else awaited
            except BaseException as exc:
                error = exc
                step = lambda: result.throw(error)  # noqa: E731, B023
            else:
                step = lambda: result.send(value)  # noqa: E731, B023
    except StopIteration as stop:
        return stop.value
