"""The reactor: a small event loop on a daemon thread, shared by all objects of the futures flavour.

The first step of a call runs in the caller's thread, so a request leaves without a switch of threads. Whenever its
coroutine has to wait, it yields a ``Pause``; from then on it is the reactor's thread that steps it. So a coroutine
never runs in two threads at a time, and nothing that a caller's thread may suffer (Ctrl-C) reaches the reactor.

A pause arms its sockets in epoll once (``EPOLLONESHOT``), which needs no word to the reactor. Deadlines have no heap:
the reactor knows until when it may sleep, is woken only for an earlier deadline, and looks at all pauses only then.
"""

from __future__ import annotations

import math
import select
import selectors
import socket
import threading
import time
from _thread import RLock, allocate_lock
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from ._threads import Callbacks, PerProcess, left_of

T = TypeVar("T")

IN: int = getattr(select, "EPOLLIN", 1)
OUT: int = getattr(select, "EPOLLOUT", 4)
_ONCE: int = getattr(select, "EPOLLONESHOT", 0)


class Cancelled(BaseException):
    """Thrown into the coroutine of a call that was cancelled."""


class Selecting:
    """What the reactor needs of ``select.epoll``, where there is none. Each socket is armed once, but for the first."""

    def __init__(self) -> None:
        self._armed: dict[socket.socket, int] = {}

    def register(self, sock: socket.socket, events: int) -> None:
        """Tell when one of the events happens."""
        self._armed[sock] = events

    modify = register

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait for that many seconds; return the numbers of the sockets to which something happened."""
        alarm = next(iter(self._armed))
        with selectors.DefaultSelector() as selector:
            for sock, events in tuple(self._armed.items()):
                if sock.fileno() < 0:
                    del self._armed[sock]
                    continue
                wanted = selectors.EVENT_READ if events & IN else 0
                selector.register(sock, wanted | (selectors.EVENT_WRITE if events & OUT else 0), sock)
            ready: list[socket.socket] = [key.data for key, _ in selector.select(timeout)]
        for sock in ready:
            if sock is not alarm:
                del self._armed[sock]
        return [(sock.fileno(), 0) for sock in ready]


#: What tells when an armed socket is ready; epoll can be told while it is asked.
new_poller: Callable[[], Any] = getattr(select, "epoll", Selecting)


class Pause:
    """What a coroutine yields: it goes on when one of the sockets is ready, at ``end()``, or at the deadline.

    It is sent whether that was before the deadline.

    Args:
        reactor: steps the coroutine from then on
        deadline: as ``time.monotonic`` counts; ``None``: never
        socks: what to wait for
        events: what of them: ``IN`` or ``OUT``
    """

    __slots__ = ("call", "deadline", "events", "over", "reactor", "socks")

    def __init__(
        self, reactor: Reactor, deadline: float | None, socks: Sequence[socket.socket] = (), events: int = OUT
    ) -> None:
        self.reactor = reactor
        self.deadline = math.inf if deadline is None else deadline
        self.socks = socks
        self.events = events
        self.over = False
        self.call: Call[Any] | None = None

    def end(self) -> None:
        """Let the coroutine go on. Called from any thread, also before the pause has begun."""
        self.over = True
        self.reactor.hurry(self)


class Reactor:
    """Waits for the pauses of all calls, and steps those that can go on."""

    def __init__(self) -> None:
        self._poller = new_poller()
        self._live = not isinstance(self._poller, Selecting)
        self._rope, self._clapper = socket.socketpair()
        self._rope.setblocking(False)
        self._alarm = self._clapper.fileno()
        self._poller.register(self._clapper, IN)
        self._pauses: set[Pause] = set()
        self._armed: dict[int, list[Pause]] = {}
        self._hurried: deque[Callable[[], object]] = deque()
        self._adding = allocate_lock()
        self._until = math.inf
        self._asleep = False
        threading.Thread(target=self._run, name="sockio reactor", daemon=True).start()

    def add(self, pause: Pause, call: Call[Any]) -> None:
        """Step the call when its pause is over."""
        with self._adding:
            # Ctrl-C can't strike in between: the call knows a pause exactly if it was added.
            call.pause = pause
            pause.call = call
            self._pauses.add(pause)
            for sock in pause.socks:
                self._arm(sock, pause)
            early = pause.deadline < self._until
            if early:
                self._until = pause.deadline
        if pause.over:
            self.hurry(pause)
        elif early or not self._live:
            self._wake()

    def hurry(self, pause: Pause) -> None:
        """Step the call of a pause at once; no matter if it was over before. Called from any thread."""
        self.soon(partial(self._resume, pause, True))

    def soon(self, function: Callable[[], object]) -> None:
        """Call a function between two steps. Called from any thread."""
        self._hurried.append(function)
        self._wake()

    def _arm(self, sock: socket.socket, pause: Pause) -> None:
        number = sock.fileno()
        waiting = [other for other in self._armed.get(number, ()) if other in self._pauses]
        waiting.append(pause)
        self._armed[number] = waiting
        events = _ONCE
        for other in waiting:
            events |= other.events
        try:
            self._poller.modify(sock, events)
        except FileNotFoundError:
            self._poller.register(sock, events)
        except (OSError, ValueError):
            pause.over = True  # closed: the call will see

    def _wake(self) -> None:
        if self._asleep:
            try:
                self._rope.send(b"!")
            except BlockingIOError:
                pass  # woken often enough

    def _run(self) -> None:
        while True:
            self._turn()  # what a turn touched isn't kept alive by variables of this function

    def _turn(self) -> None:
        self._asleep = True
        ready = self._poller.poll(0 if self._hurried else left_of(self._until))
        self._asleep = False
        for number, _ in ready:
            if number == self._alarm:
                self._clapper.recv(4096)
            for pause in self._armed.pop(number, ()):
                self._resume(pause, True)
        while self._hurried:
            self._hurried.popleft()()
        if time.monotonic() >= self._until:
            self._expire()

    def _expire(self) -> None:
        with self._adding:
            now = time.monotonic()
            late = [pause for pause in self._pauses if pause.deadline <= now]
            self._until = min((pause.deadline for pause in self._pauses if pause.deadline > now), default=math.inf)
        for pause in late:
            self._resume(pause, False)

    def _resume(self, pause: Pause, in_time: bool) -> None:
        if pause in self._pauses:
            self._pauses.remove(pause)
            call, pause.call = pause.call, None
            pause.socks = ()
            call.step(in_time)  # type: ignore[union-attr]


reactor = PerProcess(Reactor)


class _Condition(RLock):  # type: ignore[misc]  # typeshed calls it final, CPython doesn't
    """What ``Future`` calls its condition. Nobody waits in it, and Ctrl-C can't tear its ``with``, which is C.

    Locked for ever by a caller's thread, it would hold up the reactor.
    """

    def __init__(self) -> None:
        self.sleepers: list[Any] = []

    def notify_all(self) -> None:
        """Wake who waits in ``Call.result``."""
        for sleeper in self.sleepers:
            sleeper.release()
        self.sleepers = []

    def wait(self, timeout: float | None = None) -> None:
        """Do nothing: ``Call`` has waited before."""


class Call(Future[T]):
    """A call under way: what its caller gets.

    Args:
        coroutine: does the call; yields pauses
        callbacks: runs what is to be done afterwards where it can't hold up the reactor
    """

    def __init__(self, coroutine: Coroutine[Pause, Any, T], callbacks: Callbacks) -> None:
        super().__init__()
        self._condition: Any = _Condition()
        self._coroutine = coroutine
        self._context = copy_context()
        self._callbacks = callbacks
        self.pause: Any = None

    def start(self) -> None:
        """Do the first step, in this thread. If Ctrl-C tears it, nothing is left under way."""
        try:
            pause = self._context.run(self._coroutine.send, None)
            pause.reactor.add(pause, self)
        except StopIteration as stop:
            self.set_result(stop.value)
        except Exception as exc:
            self.set_exception(exc)
        except BaseException:
            if self.pause is None:
                self._coroutine.close()
            else:
                self.cancel()
                self.pause.end()
            raise

    def step(self, in_time: bool) -> None:
        """Do the next step, in the reactor's thread; a cancellation comes before it or after it."""
        with self._condition:
            coroutine = self._coroutine
            try:
                if self.cancelled():
                    pause = self._context.run(coroutine.throw, Cancelled())
                else:
                    pause = self._context.run(coroutine.send, in_time)
            except StopIteration as stop:
                finish = partial(self.set_result, stop.value)
            except BaseException as exc:
                finish = partial(self.set_exception, exc)
            else:
                pause.reactor.add(pause, self)
                return
            if not self.set_running_or_notify_cancel():
                return
        finish()

    def cancel(self) -> bool:
        """Cancel the call, unless it is over; a request under way costs the link.

        Returns:
            whether it is cancelled
        """
        if not super().cancel():
            return False
        self.pause.end()
        return True

    def result(self, timeout: float | None = None) -> T:
        """Return the call's result.

        Args:
            timeout: seconds to wait for it; ``None``: no limit

        Ctrl-C cancels the call: else it would stay in the way of the next one.

        Raises:
            concurrent.futures.TimeoutError: it wasn't there in time; the call goes on
            concurrent.futures.CancelledError: the call was cancelled
            Exception: what the call raised
        """
        self._sleep(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the call raised, if anything; see ``result``."""
        self._sleep(timeout)
        return super().exception(0)

    def _sleep(self, timeout: float | None) -> None:
        alarm = allocate_lock()
        alarm.acquire()
        with self._condition:
            if self.done():
                return
            self._condition.sleepers.append(alarm)
        try:
            rung = alarm.acquire(True, -1 if timeout is None else max(0.0, timeout))
        except BaseException:
            self.cancel()
            raise
        if not rung:
            with self._condition:
                self._condition.sleepers = [other for other in self._condition.sleepers if other is not alarm]

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call ``fn(call)`` when the call is over: on a daemon thread of its own, or at once if that is now."""
        super().add_done_callback(fn if self.done() else partial(self._callbacks.start, copy_context(), fn))
