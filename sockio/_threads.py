"""What threads need to wait for each other, to be told of events, and to survive Ctrl-C."""

from __future__ import annotations

import os
import select
import selectors
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from inspect import iscoroutine
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from ._link import Link
from ._turns import Bell as BaseBell
from .common import log

#: Seconds after which a thread that waits for its turn looks again, should nobody have told it.
NAP = 0.5
#: Seconds that the operating system can be told to wait: its milliseconds are an int.
LONGEST = 2.0**20
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


def left_of(deadline: float | None) -> float | None:
    """Return the seconds left until ``deadline``, not less than 0, and not more than one can wait at a time."""
    return None if deadline is None else min(max(0.0, deadline - time.monotonic()), LONGEST)


class Hint(BaseBell):
    """What a thread sleeps on that waits for its turn.

    It looks now and then: Ctrl-C may strike the caller ahead before that one has rung.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        self._queue.put(None)

    ring_from_thread = ring

    async def wait(self, deadline: float | None, connecting: Sequence[socket.socket] = ()) -> bool:
        left = left_of(deadline)
        try:
            self._queue.get(timeout=NAP if left is None else min(left, NAP))
        except Empty:
            return left is None or left > NAP
        return True


class Bell(BaseBell):
    """A pair of sockets, so that one can wait for a ring and for other sockets together."""

    def __init__(self) -> None:
        self._rope, self._clapper = socket.socketpair()
        self._rope.setblocking(False)
        self._clapper.setblocking(False)

    def ring(self) -> None:
        try:
            self._rope.send(b"!")
        except OSError:
            pass  # rung often enough, or closed

    ring_from_thread = ring

    async def wait(self, deadline: float | None, connecting: Sequence[socket.socket] = ()) -> bool:
        with _Selector() as selector:
            selector.register(self._clapper, selectors.EVENT_READ)
            for sock in connecting:
                selector.register(sock, selectors.EVENT_WRITE)
            ready = [key.fileobj for key, _ in selector.select(left_of(deadline))]
        if self._clapper in ready:
            self._clapper.recv(4096)
        return bool(ready)

    def close(self) -> None:
        self._rope.close()
        self._clapper.close()

    def __del__(self) -> None:
        self.close()  # Ctrl-C may strike before anybody else does


class Watcher:
    """Notices the ends of links that nobody is using (contract E3): one daemon thread for all of them.

    It asks for nothing but the end (``EPOLLRDHUP``, edge-triggered), so a call under way costs it no wake-up. Where
    there is no epoll it looks at every link 20 times a second.
    """

    def __init__(self) -> None:
        self._links: dict[int, weakref.ref[Link]] = {}
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        threading.Thread(target=self._run, name="sockio watcher", daemon=True).start()

    def watch(self, link: Link) -> None:
        """Tell ``link`` when it has ended."""
        number = link.sock.fileno()
        self._links[number] = weakref.ref(link)  # stays until the number is used again
        if self._epoll is not None:  # pragma: no branch - macOS, Windows
            self._epoll.register(number, select.EPOLLRDHUP | select.EPOLLET)

    def _run(self) -> None:
        while True:
            if self._epoll is not None:
                numbers = [number for number, _ in self._epoll.poll()]
            else:  # pragma: no cover - macOS, Windows
                time.sleep(0.05)
                numbers = list(self._links)
            for number in numbers:
                self._look_at(number)

    def _look_at(self, number: int) -> None:
        link = self._links[number]()
        if link is not None:
            link.may_have_ended()


T = TypeVar("T")


class PerProcess(Generic[T]):
    """Something that a process has one of, made when first needed; a child process makes its own."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._parents: list[T | None] = []
        self._begin()
        if sys.platform != "win32":
            os.register_at_fork(after_in_child=self._begin_anew)

    def _begin(self) -> None:
        self._made: T | None = None
        self._making = threading.Lock()

    def _begin_anew(self) -> None:
        self._parents.append(self._made)  # what it holds is the parent's, and must not end here
        self._begin()

    def __call__(self) -> T:
        with self._making:
            if self._made is None:
                self._made = self._make()
            return self._made


watcher = PerProcess(Watcher)


def on_loop(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Run what a coroutine function among the callbacks returned where sockio 0.15 did: an asyncio loop in a thread."""
    from ._eventloop import DefaultEventLoop

    return DefaultEventLoop.run_coroutine(coroutine)


def on_a_thread(function: Callable[[], T]) -> Future[T]:
    """Call a function on a daemon thread of its own."""
    future: Future[T] = Future()
    context = copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(function))
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, name="sockio callback", daemon=True).start()
    return future


class Callbacks:
    """Runs an object's event callbacks, each on a daemon thread of its own: one that blocks holds up nothing.

    They start in the order of their events, as long as each returns within 50 ms.
    """

    def __init__(self) -> None:
        self._last: threading.Thread | None = None
        self._starting = threading.Lock()

    def start(self, context: Context, callback: Callable[..., Any], *args: object) -> None:
        """Run ``callback(*args)`` soon."""

        def run() -> None:
            if before is not None:
                before.join(0.05)
            try:
                result = context.run(callback, *args)
                if iscoroutine(result):
                    context.run(on_loop, result).result()
            except Exception:
                log.exception("connection event callback failed: %r", callback)

        thread = threading.Thread(target=run, name="sockio callback", daemon=True)
        with self._starting:  # another thread joins only what has been started
            before = self._last
            try:
                thread.start()
            except RuntimeError:  # there are too many; whoever noticed the event serves all objects, and must go on
                log.exception("no thread for a connection event callback: %r", callback)
            else:
                self._last = thread
