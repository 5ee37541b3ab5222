"""sockio for trio: ``TCP``, whose calls are awaited, in whatever nursery the caller is.

    sock = TCP("192.168.1.73", 5025, timeout=1)
    print(await sock.write_readline(b"*IDN?\\n"))

A call that returns has executed a checkpoint (the steps of a stream: see ``LineStream``). One that was cancelled before
it began sends nothing, and a reply that was taken is handed over. Time is trio's: a clock of ``trio.testing`` rules
deadlines, pauses and retries.

No nursery is needed: deadlines are kept, and event callbacks run, in system tasks.
"""

from __future__ import annotations

import math
import socket
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from inspect import isawaitable
from typing import Any, TypeVar, cast

try:
    import trio
except ImportError as _error:
    raise ImportError('sockio.trio needs trio: pip install "sockio[trio]"') from _error
from trio.lowlevel import checkpoint, checkpoint_if_cancelled, current_trio_token, enable_ki_protection, wait_readable

from . import _async
from ._core import Core
from ._link import DirectLink
from ._link import Link as BaseLink
from ._rules import Expired
from ._threads import watcher
from ._turns import Bell as BaseBell
from .common import ConnectionEOFError, ConnectionTimeoutError, address_of_url, log

__all__ = ["TCP", "BlockStream", "ConnectionEOFError", "ConnectionTimeoutError", "LineStream", "socket_for_url"]


class Keeper:
    """Keeps the deadlines of all links of a run: wakes those who wait for one when their time is up.

    A ``CancelScope`` in every call would do the same, and cost a third of a call. The keeper's one scope is moved only
    when an earlier deadline comes than the one it sleeps to; with equal timeouts that is once a timeout, not a call.
    """

    def __init__(self) -> None:
        self.links: weakref.WeakSet[Link] = weakref.WeakSet()
        self.next_look: float = math.inf
        self._sleep = trio.CancelScope()

    def look_at(self, deadline: float) -> None:
        """Look then, which is earlier than ``next_look``."""
        self.next_look = self._sleep.deadline = deadline

    async def run(self) -> None:
        """Keep the deadlines, to the end of the run."""
        while True:
            with self._sleep:
                await trio.sleep_forever()
            now = trio.current_time()
            self.next_look = min((link.wake_late(now) for link in self.links), default=math.inf)
            self._sleep = trio.CancelScope(deadline=self.next_look)


_keepers: trio.lowlevel.RunVar[Keeper] = trio.lowlevel.RunVar("sockio.keeper")


def _keeper() -> Keeper:
    """Return the keeper of this run."""
    try:
        return _keepers.get()
    except LookupError:
        keeper = Keeper()
        _keepers.set(keeper)
        trio.lowlevel.spawn_system_task(keeper.run, name="sockio keeper of deadlines")
        return keeper


class Link(DirectLink):
    """A link whose bytes are received by the task that waits for them.

    Attributes:
        read_deadline, write_deadline: of those who wait; infinite: nobody does, or for ever
        told: set when the last event callback about this link has started
    """

    told: trio.Event | None = None

    def __init__(self, core: Core, sock: socket.socket) -> None:
        super().__init__(core, sock)
        self._run = current_trio_token()
        self.read_deadline: float = math.inf
        self.write_deadline: float = math.inf
        self._keeper = _keeper()
        self._keeper.links.add(self)

    async def more(self, deadline: float | None) -> None:
        if deadline is not None:
            self.read_deadline = deadline
            if deadline < self._keeper.next_look:
                self._keeper.look_at(deadline)
        try:
            await wait_readable(self.sock)
            self.receive()
        except trio.ClosedResourceError:  # the link was dropped, or somebody is late
            if not self.drained and not self.receive() and deadline is not None and trio.current_time() >= deadline:
                raise Expired from None
        finally:
            self.read_deadline = math.inf

    async def room(self, deadline: float | None) -> None:
        if deadline is not None:
            self.write_deadline = deadline
            if deadline < self._keeper.next_look:
                self._keeper.look_at(deadline)
        try:
            await trio.lowlevel.wait_writable(self.sock)
        except trio.ClosedResourceError:
            if self.dropped:
                raise self.error() from None
            if deadline is not None and trio.current_time() >= deadline:
                raise Expired from None
        finally:
            self.write_deadline = math.inf

    def wake_late(self, now: float) -> float:
        """Wake who waits, if somebody is late; return the next deadline.

        Who isn't late waits again.
        """
        deadlines = self.read_deadline, self.write_deadline
        if min(deadlines) <= now:
            trio.lowlevel.notify_closing(self.sock)
        return min((deadline for deadline in deadlines if deadline > now), default=math.inf)

    def hang_up(self) -> None:
        if _run_of_caller() is not self.world:
            try:
                self._run.run_sync_soon(self._disconnect)
                return
            except trio.RunFinishedError:
                pass
        self._disconnect()

    def _disconnect(self) -> None:
        with suppress(RuntimeError):  # outside of any run nobody waits
            trio.lowlevel.notify_closing(self.sock)
        self.clear_the_way()
        self.sock.close()

    def may_have_ended(self) -> None:
        with suppress(trio.RunFinishedError):
            self._run.run_sync_soon(self.notice)


def _run_of_caller() -> trio.lowlevel.TrioToken | None:
    try:
        return current_trio_token()
    except RuntimeError:
        return None


class Bell(BaseBell):
    """A cancel scope that a ring ends."""

    def __init__(self) -> None:
        self._token = current_trio_token()
        self._waiting = trio.CancelScope()
        self.rung: bool = False

    def ring(self) -> None:
        self.rung = True
        self._waiting.cancel()

    def ring_from_thread(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.ring)

    def until(self, deadline: float | None) -> trio.CancelScope:
        """Return a scope that is cancelled at a ring (then ``rung`` is set), or at the deadline."""
        self.rung = False
        self._waiting = trio.CancelScope(deadline=math.inf if deadline is None else deadline)
        return self._waiting

    async def wait(self, deadline: float | None, connecting: Sequence[socket.socket] = ()) -> bool:
        watches = [trio.CancelScope() for _ in connecting]
        for watch, sock in zip(watches, connecting, strict=True):
            trio.lowlevel.spawn_system_task(self._ring_when_connected, watch, sock, name="sockio connects")
        try:
            with self.until(deadline):
                await trio.sleep_forever()
        finally:
            for watch in watches:
                watch.cancel()
        return self.rung

    async def _ring_when_connected(self, watch: trio.CancelScope, sock: socket.socket) -> None:
        with watch:
            await checkpoint_if_cancelled()  # the socket is closed by now
            await trio.lowlevel.wait_writable(sock)
        if not watch.cancel_called:
            self.ring()


class TCP(_async.AsyncTCP):
    """A TCP object for trio: ``reply = await tcp.write_readline(b"*IDN?\\n")``."""

    _bell_class = Bell
    _world = staticmethod(current_trio_token)
    _runner = "trio.run(...)"
    _now = staticmethod(trio.current_time)
    _before_call = staticmethod(checkpoint_if_cancelled)

    # Ctrl-C strikes between any two statements, but in a function that is protected only where it waits.

    _carry_out = enable_ki_protection(_async.AsyncTCP._carry_out)
    _reset = enable_ki_protection(_async.AsyncTCP._reset)

    @enable_ki_protection
    async def close(self) -> None:
        """Close the link, if any; every caller that waits for something raises ``ConnectionClosedError``."""
        self._close()
        await checkpoint()

    @enable_ki_protection
    async def __aenter__(self: T) -> T:
        self._enter_world()
        await checkpoint()
        return await super().__aenter__()

    def __aiter__(self) -> LineStream:
        return LineStream(self)

    @enable_ki_protection
    async def _open(self, *args: Any, **options: Any) -> None:
        self._enter_world()
        await checkpoint()
        await super()._open(*args, **options)

    @enable_ki_protection
    async def _begin(self, *args: Any, **options: Any) -> BaseLink:
        self._enter_world()
        await checkpoint()
        return await super()._begin(*args, **options)

    async def _perform(self, *args: Any, **options: Any) -> Any:
        waits = self.waits
        result = await super()._perform(*args, **options)
        if self.waits == waits and "bound" not in options:
            await trio.lowlevel.cancel_shielded_checkpoint()
        return result

    async def _new_link_on(self, sock: socket.socket) -> Link:
        link = Link(self, sock)
        watcher().watch(link)
        return link

    async def _call_back(self, callback: Callable[..., Any], bell: BaseBell, deadline: float | None) -> None:
        result = callback()
        if not isawaitable(result):
            return
        closing = cast(Bell, self._new_bell())
        try:
            with closing.until(deadline):
                await result
                return
            if not closing.rung:
                raise Expired
        finally:
            self._close_bell(closing)

    def _start_callback(self, link: BaseLink, context: Context, callback: Callable[..., Any], *args: object) -> None:
        link = cast(Link, link)
        before = link.told
        link.told = started = trio.Event()

        def tell() -> None:
            trio.lowlevel.spawn_system_task(_tell, before, started, callback, args, context=context)

        with suppress(trio.RunFinishedError):  # nobody is left to be told
            (_run_of_caller() or link._run).run_sync_soon(tell)

    async def _checkpoint(self) -> None:
        await checkpoint()


T = TypeVar("T", bound=TCP)


async def _tell(
    before: trio.Event | None, started: trio.Event, callback: Callable[..., Any], args: tuple[object, ...]
) -> None:
    """Run an event callback; those of one link start in the order of their events."""
    try:
        if before is not None:
            await before.wait()
        started.set()
        result = callback(*args)
        if isawaitable(result):
            await result
    except trio.Cancelled:
        raise  # the run is over
    except BaseException as exc:  # a system task that raises ends the run
        split = getattr(exc, "split", None)  # a nursery's: Python 3.10 doesn't know BaseExceptionGroup
        if split is None or split(trio.Cancelled)[1] is not None:
            log.exception("connection event callback failed: %r", callback)


class _Steps(_async._Steps):
    @enable_ki_protection
    async def __anext__(self) -> bytes:
        await checkpoint_if_cancelled()
        return await super().__anext__()


class LineStream(_Steps, _async.LineStream):
    """``async for line in LineStream(tcp, eol)``: the lines that come in on one link, until its end.

    Each step can be cancelled, and then loses no line. Lines that arrived together are handed out without a schedule
    point between them, except every millisecond and every 64 KiB.

    Args:
        tcp: the object to read from
        eol: what ends a line; default: the object's
        reconnect: carry on over a lost link; a line that was cut off is dropped, never joined to the next link's
        timeout: seconds for each line; default: the object's

    Raises (each step):
        ConnectionEOFError: the link ended inside a line, whose bytes are in ``partial``
        ConnectionLostError: the link broke
        ConnectionTimeoutError: no line in time; the stream can go on
    """


class BlockStream(_Steps, _async.BlockStream):
    """``async for block in BlockStream(tcp, limit)``: like ``LineStream``.

    Args:
        limit: bytes a block (int), or what ends one (bytes)
    """


def socket_for_url(url: str, *args: Any, **kwargs: Any) -> TCP:
    """Return a ``TCP`` for a ``tcp://host:port`` URL; the other arguments are ``TCP``'s.

    Raises:
        ValueError: another scheme, no host, no port
    """
    return TCP(*address_of_url(url), *args, **kwargs)
