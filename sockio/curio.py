"""sockio for curio: ``TCP``, whose calls are awaited.

    sock = TCP("192.168.1.73", 5025, timeout=1)
    print(await sock.write_readline(b"*IDN?\\n"))

A call sends at once on its own non-blocking socket, then waits for the reply with one trap of the kernel. Cancellation
and ``curio.timeout_after`` are the kernel's; the deadlines of calls are kept by an attendant in each kernel.

curio 1.6 is its last release, so what it is made of won't change any more. Of that this module uses: where the running
kernel and task are noted, traps called directly where nothing can be awaited, and ``cancel_func`` of a waiting task.
"""

from __future__ import annotations

import math
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import Context
from inspect import isawaitable
from selectors import EVENT_READ, EVENT_WRITE
from types import coroutine
from typing import Any, cast
from weakref import WeakSet

try:
    from curio import CancelledError, TaskCancelled, TaskError, TaskTimeout, sleep, spawn
    from curio.kernel import Activation, Kernel
    from curio.meta import _locals as _thread
    from curio.task import Task
    from curio.traps import _read_wait, _set_timeout, _unset_timeout, _write_wait
except Exception as _error:
    raise ImportError(
        f"sockio.curio needs curio ({_error}). Its last release, 1.6, works on Python 3.10 and 3.11 only, and this is "
        f'{sys.version_info[0]}.{sys.version_info[1]}. There: pip install "sockio[curio]"'
    ) from _error

from ._async import AsyncTCP, BlockStream, LineStream
from ._core import Core
from ._link import Link as BaseLink
from ._link import SocketLink
from ._rules import Expired
from ._threads import LONGEST, watcher
from ._turns import Bell as BaseBell
from ._turns import Scope
from .common import ConnectionEOFError, ConnectionTimeoutError, address_of_url, log

__all__ = ["TCP", "BlockStream", "ConnectionEOFError", "ConnectionTimeoutError", "LineStream", "socket_for_url"]

_LATE = object()


def _running_kernel() -> Kernel | None:
    return getattr(_thread, "kernel", None)


class _Attendant(Activation):
    """What sockio has one of in each kernel: a daemon task, and what must be known of the other tasks.

    The task ends waits at their deadlines, does what other threads ask for, and starts event callbacks. It sleeps until
    the earliest deadline there was when it last looked, so a call that is answered in time costs it nothing.

    Curio ends a run by cancelling one task after the other, this one too; no task may be new and left over then. A task
    that still uses sockio while it is being cancelled gets an attendant that ends when nobody waits any more.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._traps = kernel._traps
        self._current = self._traps["trap_get_current"].__closure__[0]
        self._scopes: dict[Task | None, Scope] = {}
        self._deadlines: dict[Task, float] = {}
        self._next = math.inf
        self._task: Task | None = None
        self._lasting = self._over = False
        self._jobs: deque[Callable[[], Coroutine[Any, Any, None] | None]] = deque()
        self._callbacks: WeakSet[Task] = WeakSet()
        self._rope, self._clapper = socket.socketpair()
        for end in (self._rope, self._clapper):
            end.setblocking(False)
            kernel._call_at_shutdown(end.close)

    @staticmethod
    def here() -> _Attendant:
        """Return the attendant of the running kernel.

        Raises:
            RuntimeError: there is none
        """
        kernel = _world()
        attendant: _Attendant | None = vars(kernel).get("sockio")
        if attendant is None:
            attendant = vars(kernel)["sockio"] = _Attendant(kernel)
        return attendant

    async def start(self) -> None:
        """Have the task run."""
        self._lasting = self._lasting or not (self._over or self._current.cell_contents.cancelled)
        if self._task is None:
            self._task = await spawn(self._attend, daemon=True)
            self._scopes.pop(self._task, None)

    async def _attend(self) -> None:
        try:
            while self._lasting or self._deadlines:
                await self._pause()
                while self._jobs:
                    work = self._jobs.popleft()()
                    if work is not None:
                        self._callbacks.add(await spawn(work, daemon=True))
                now = time.monotonic()
                if now >= self._next:
                    self._traps["trap_sched_wake"](self, 0)
                    self._next = min((left for left in self._deadlines.values() if left > now), default=math.inf)
        finally:
            self._over = self._over or self._lasting
            self._lasting = False
            self._task = None
            self._next = math.inf
            for task in self._callbacks:
                self.cancel(task)
            if self._deadlines and _running_kernel() is self.kernel:
                await self._rearm(min(self._deadlines.values()))

    async def _pause(self) -> None:
        """Wait for the rope, or for the next deadline."""
        try:
            if self._next < math.inf:
                await _set_timeout(min(self._next, time.monotonic() + LONGEST))
            await _read_wait(self._clapper)
            self._clapper.recv(4096)
            await _unset_timeout(None)
        except TaskTimeout:
            pass

    # Waiting.

    @coroutine
    def wait(self, deadline: float | None, trap: tuple[Any, ...]) -> Generator[Any, Any, bool]:
        """Do a trap that suspends the task; False if it wasn't over at the deadline."""
        if deadline is None:
            outcome = yield trap
        else:
            task = self._current.cell_contents
            try:
                self._deadlines[task] = deadline
                if deadline < self._next:
                    yield from self._rearm(deadline).__await__()
                outcome = yield trap
            finally:
                self._deadlines.pop(task, None)
                if not self._lasting:
                    self._ring()
        if outcome is None:
            return True
        if outcome is _LATE:
            return False
        raise outcome

    async def _rearm(self, deadline: float) -> None:
        self._next = deadline
        await self.start()
        self._ring()

    def _kernel_wake(self, _: int) -> list[Task]:
        """Return the tasks that are late, ready to go on: the kernel asks for them."""
        now = time.monotonic()
        late: list[Task] = []
        for task, deadline in self._deadlines.items():
            if deadline <= now and task.cancel_func is not None:
                task.cancel_func()
                task._trap_result = _LATE
                late.append(task)
        return late

    def wake(self, bell: Bell) -> None:
        """Let the task go on that waits for a bell."""
        if _running_kernel() is self.kernel:
            self._traps["trap_sched_wake"](bell, 1)
        else:
            self.call(bell.ring)

    # Other tasks.

    def cancel(self, task: Task) -> None:
        """Cancel a task, without waiting for its end."""
        if _running_kernel() is self.kernel:
            self._traps["trap_cancel_task"](task)

    async def give_notice(self, task: Task) -> None:
        """Cancel a task, and let it run until it waits again or has ended."""
        if _running_kernel() is self.kernel:
            self.cancel(task)
            await sleep(0)

    def call(self, job: Callable[[], Coroutine[Any, Any, None] | None]) -> None:
        """Have the attendant's task do something soon, and run what it returns in a task. Called from any thread."""
        self._jobs.append(job)
        self._ring()

    def _ring(self) -> None:
        try:
            self._rope.send(b"!")
        except OSError:
            pass  # rung often enough, or the kernel has ended

    def start_callback(self, callback: Callable[..., Any], args: tuple[object, ...]) -> None:
        """Run an event callback in a task of its own, soon. Called from any thread."""

        async def run() -> None:
            try:
                result = callback(*args)
                if isawaitable(result):
                    await result
            except TaskCancelled:
                raise
            except (Exception, CancelledError):
                log.exception("connection event callback failed: %r", callback)

        self.call(lambda: run() if self._lasting else None)

    # Scopes: a task's own, or its parent's when it was started. (Curio's context variables leak between tasks.)

    def scope(self) -> Scope | None:
        """Return the scope that the running task is inside of."""
        return self._scopes.get(self._current.cell_contents)

    def enter(self, scope: Scope | None) -> None:
        """Note the scope that the running task is inside of."""
        task: Task = self._current.cell_contents
        if scope is None:
            self._scopes.pop(task, None)
            return
        self._scopes[task] = scope
        if self not in self.kernel._activations:
            self.kernel._activations.append(self)

    def created(self, task: Task) -> None:
        """Let a new task inherit the scope: the kernel calls this."""
        scope = self.scope()
        if scope is not None:
            self._scopes[task] = scope

    def terminated(self, task: Task) -> None:
        """Forget a task: the kernel calls this."""
        self._scopes.pop(task, None)


class _CurrentScope:
    def get(self) -> Scope | None:
        kernel = _running_kernel()
        attendant: _Attendant | None = None if kernel is None else vars(kernel).get("sockio")
        return None if attendant is None else attendant.scope()

    def set(self, value: Scope | None, /) -> None:
        _Attendant.here().enter(value)


def _world() -> Kernel:
    kernel = _running_kernel()
    if kernel is None:
        raise RuntimeError("no running curio kernel")
    return kernel


class Link(SocketLink):
    """A link whose bytes are received by the task that waits for them."""

    def __init__(self, core: Core, sock: socket.socket) -> None:
        super().__init__(core, sock)
        self._attendant = _Attendant.here()
        self._until_readable = ("trap_io", sock, EVENT_READ, "READ_WAIT")
        self._until_writable = ("trap_io", sock, EVENT_WRITE, "WRITE_WAIT")

    async def more(self, deadline: float | None) -> None:
        in_time = await self._attendant.wait(deadline, self._until_readable)
        if not self.receive() and not in_time and not self.drained:
            raise Expired

    async def room(self, deadline: float | None) -> None:
        if not await self._attendant.wait(deadline, self._until_writable):
            raise Expired


class Bell(BaseBell):
    """One task waits for it, on a scheduling primitive of the kernel."""

    def __init__(self) -> None:
        self._attendant = _Attendant.here()
        self._waiter: Task | None = None

    def ring(self) -> None:
        self._attendant.wake(self)

    ring_from_thread = ring

    async def wait(self, deadline: float | None, connecting: Sequence[socket.socket] = ()) -> bool:
        attendant = self._attendant
        await attendant.start()
        watching = [await spawn(self._watch, sock, daemon=True) for sock in connecting]
        try:
            return await attendant.wait(math.inf if deadline is None else deadline, ("trap_sched_wait", self, "BELL"))
        finally:
            for task in watching:
                attendant.cancel(task)

    async def _watch(self, sock: socket.socket) -> None:
        await _write_wait(sock)
        self.ring()

    # What the kernel calls.

    def _kernel_suspend(self, task: Task) -> Callable[[], object]:
        self._waiter = task
        return lambda: self._kernel_wake(1)

    def _kernel_wake(self, _: int) -> list[Task]:
        waiter, self._waiter = self._waiter, None
        return [] if waiter is None else [waiter]


class TCP(AsyncTCP):
    """A TCP object for curio: ``reply = await tcp.write_readline(b"*IDN?\\n")``."""

    _bell_class = Bell
    _current_scope = _CurrentScope()
    _world = staticmethod(_world)
    _runner = "curio.run(...)"

    async def _new_link_on(self, sock: socket.socket) -> Link:
        link = Link(self, sock)
        await link._attendant.start()
        watcher().watch(link)
        return link

    async def _call_back(self, callback: Callable[..., Any], bell: BaseBell, deadline: float | None) -> None:
        try:
            result = callback()
        except CancelledError as exc:
            raise _uncaught(callback) from exc
        if not isawaitable(result):
            return
        ends: list[BaseException | None] = []

        async def run() -> None:
            try:
                await result
                ends.append(None)
            except (Exception, CancelledError) as exc:
                ends.append(exc)
            bell.ring()

        attendant = _Attendant.here()
        task = await spawn(run, daemon=True)
        closings = self._closings
        try:
            while not ends and self._closings == closings:
                if not await bell.wait(deadline):
                    raise Expired
        finally:
            if not ends:
                await attendant.give_notice(task)
        for end in ends:
            if isinstance(end, CancelledError) and not task.cancelled:
                raise _uncaught(callback) from end
            if end is not None:
                raise end

    def _start_callback(self, link: BaseLink, context: Context, callback: Callable[..., Any], *args: object) -> None:
        attendant = cast(Link, link)._attendant if _running_kernel() is None else _Attendant.here()
        attendant.start_callback(callback, args)

    async def _checkpoint(self) -> None:
        await sleep(0)


def _uncaught(callback: Callable[..., Any]) -> TaskError:
    """Return what a callback has failed with that a cancellation ended, though nobody cancelled its task."""
    return TaskError(f"{callback!r} did not catch a cancellation")


def socket_for_url(url: str, *args: Any, **kwargs: Any) -> TCP:
    """Return a ``TCP`` for a ``tcp://host:port`` URL; the other arguments are ``TCP``'s.

    Raises:
        ValueError: another scheme, no host, no port
    """
    return TCP(*address_of_url(url), *args, **kwargs)
