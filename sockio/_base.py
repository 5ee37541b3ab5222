"""The object itself: its settings, what can be asked of it at any time, its turns, its ends.

How it comes by a link is in ``_connect``, what a call does in ``_core``.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Any, ClassVar, TypedDict

from ._dial import lookup
from ._link import Link
from ._rules import Rules
from ._turns import Bell, CurrentScope, Queues, Scope, current_scope
from .common import (
    DEFAULT_LIMIT,
    DFT_KEEP_ALIVE,
    IPTOS_LOWDELAY,
    Retry,
    check_settings,
    log,
)

Callback = Callable[..., Any] | None


class Options(TypedDict, total=False):
    """The arguments of ``Base`` after host and port, for signatures that pass them on."""

    eol: bytes
    auto_reconnect: bool
    on_connection_made: Callback
    on_connection_lost: Callback
    on_eof_received: Callback
    buffer_size: int
    no_delay: bool
    tos: int | None
    connection_timeout: float | None
    timeout: float | None
    keep_alive: dict[str, int] | bool | None
    retry: Retry | None
    stale_input: str


class Base(Rules, ABC):
    """A TCP object: what it is set to, who uses it, and when it ends."""

    _bell_class: ClassVar[type[Bell]]
    #: What a call waits on for its turn, if not on a bell.
    _hint_class: ClassVar[type[Bell] | None] = None

    def __init__(
        self,
        host: str,
        port: int,
        eol: bytes = b"\n",
        auto_reconnect: bool = True,
        on_connection_made: Callback = None,
        on_connection_lost: Callback = None,
        on_eof_received: Callback = None,
        buffer_size: int = DEFAULT_LIMIT,
        no_delay: bool = True,
        tos: int | None = IPTOS_LOWDELAY,
        connection_timeout: float | None = None,
        timeout: float | None = None,
        keep_alive: dict[str, int] | bool | None = DFT_KEEP_ALIVE,
        *,
        retry: Retry | None = None,
        stale_input: str = "discard",
    ) -> None:
        """Connects to nothing yet: the first use does (or ``open()``, or ``with``).

        Args:
            host: name or address of the instrument
            port: its TCP port, 1 to 65535
            eol: what ends a line, bytes of any length
            auto_reconnect: connect on first use and after a loss; else only ``open()`` and ``with`` do
            on_connection_made: called on every new link before any other request; may use the object
            on_connection_lost: called once per link with the cause (``None`` after ``close()`` and after a clean end)
            on_eof_received: called when the peer has ended the link
            buffer_size: longest line, in bytes, and how much is buffered while nobody reads
            no_delay: switch Nagle's algorithm off
            tos: type of service (IPv6: traffic class); ``None`` leaves it alone
            connection_timeout: seconds for each connection attempt; ``None``: no limit
            timeout: seconds for each whole call, unless the call says otherwise; ``None``: no limit
            keep_alive: a bool, ``None`` (the system's), or a dict with any of ``active``, ``idle`` and ``interval``
                (seconds), ``retry`` (probes)
            retry: how connecting is retried; default: one attempt
            stale_input: what the ``write_read*`` calls do with input that arrived before they send:
                ``"discard"`` or ``"keep"``

        Raises:
            TypeError, ValueError: an argument of a wrong type or value
        """
        self._link: Link | None = None
        self.host = host
        self.port = port
        self.eol = eol
        self.auto_reconnect = auto_reconnect
        self.on_connection_made = on_connection_made
        self.on_connection_lost = on_connection_lost
        self.on_eof_received = on_eof_received
        self.buffer_size = buffer_size
        self.no_delay = no_delay
        self.tos = tos
        self.connection_timeout = connection_timeout
        self.timeout = timeout
        self.keep_alive = keep_alive
        self.retry: Retry = retry  # type: ignore[assignment]  # completed below
        self.stale_input = stale_input
        self.connection_counter: int = 0
        self.waits: int = 0  # for bytes, in all calls: a stream tells from it whether the others had their turn
        check_settings(self, (on_connection_made, on_connection_lost, on_eof_received))
        self._new_link: Link | None = None
        self._closings = 0
        self.queues: Queues = Queues()
        self._spare: list[Any] = []  # tickets: making a lock costs more than taking one
        self._bells: list[Bell] = []
        self._scopes: list[Scope] = []
        # Static methods, where a call finds them fastest.
        self._clock: Callable[[], float] = self._now
        self._here: Callable[[], object] | None = self._world
        _objects.add(self)

    # What the flavour says, beside its Link and its Bell.

    #: Where it is noted which scope the caller is inside of.
    _current_scope: ClassVar[CurrentScope] = current_scope
    #: Tells what a link can't outlive, and what it may only be used in: the running event loop. None: threads.
    _world: Callable[[], object] | None = None
    #: What runs such a world.
    _runner: ClassVar[str] = ""

    _now = staticmethod(time.monotonic)
    _lookup = staticmethod(lookup)

    @abstractmethod
    async def _new_link_on(self, sock: socket.socket) -> Link:
        """Return a link on a connected socket."""

    @abstractmethod
    async def _call_back(self, callback: Callable[..., Any], bell: Bell, deadline: float | None) -> None:
        """Run ``on_connection_made``, and wait for what it returns if that can be waited for.

        A ring of the bell that comes with ``close()``, and the deadline, cancel it.

        Raises:
            Expired: the deadline passed first
        """

    @abstractmethod
    def _start_callback(self, link: Link, context: Context, callback: Callable[..., Any], *args: object) -> None:
        """Run a callback about that link soon, in that context, where it can do no harm."""

    def _reset(self, ticket: Any) -> None:
        """Forget what has arrived, if nobody is reading."""
        link = self._visible_link()
        reads = (self._scope() or self).queues.reads
        if link is None or reads:
            return
        reads.append(ticket)
        if reads[0] is ticket:
            link.forget()
            if link.paused:
                link.resume()
        reads.remove(ticket)

    # Turns and scopes.

    def _enter_world(self) -> None:
        """Begin anew if the event loop is another one: the old one has ended, with its link and all who waited."""
        try:
            world = None if self._world is None else self._world()
        except RuntimeError as exc:
            raise self._out_of_world(exc) from None
        if self.queues.world is not world:
            self.queues = Queues(world)
            if self._link is not None:
                self._drop(self._link, None)

    def _out_of_world(self, exc: RuntimeError) -> RuntimeError:
        return RuntimeError(f"{self!r}: {exc}: use it in {self._runner}, or another flavour of sockio here")

    async def _turn(self, around: Base | Scope, side: str, ticket: Any, deadline: float | None, closings: int) -> None:
        """Wait until the ticket is the first of its queue."""
        while True:
            queue: list[Any] = getattr(around.queues, side)
            if ticket not in queue:
                queue.append(ticket)
            line = tuple(queue)
            if line[0] is ticket:
                return
            ahead = line[line.index(ticket) - 1]
            if ahead.over:
                try:
                    queue.remove(ahead)
                except ValueError:
                    pass  # another thread was faster
            else:
                await ahead.wait(self._hint_class or self._bell_class, deadline, partial(self._check_open, closings))
                self._check_open(closings)

    def _leave(self, around: Base | Scope, ticket: Any, link: Link | None) -> None:
        """Give the turns back, and the link."""
        for queue in (around.queues.reads, around.queues.writes):
            while ticket in queue:
                queue.remove(ticket)
        if link is not None:
            link.leave(ticket)
        ticket.wake()  # the next one needn't wait for the end of this call, which may take another turn

    def _scope(self) -> Scope | None:
        """Return the transaction or ``on_connection_made`` of this object that the caller is inside of."""
        for scope in tuple(self._scopes):
            if scope.over:
                self._forget(scope)  # Ctrl-C struck on the way out of it
        scope_of_caller = self._current_scope.get()
        while scope_of_caller is not None and (scope_of_caller.core is not self or scope_of_caller.over):
            scope_of_caller = scope_of_caller.outer
        return scope_of_caller

    def _visible_link(self) -> Link | None:
        scope = self._scope()
        return self._link if scope is None else scope.link

    @contextmanager
    def _inside(self, scope: Scope) -> Generator[None]:
        self._scopes.append(scope)
        try:
            with scope:
                yield
        finally:
            self._forget(scope)

    def _forget(self, scope: Scope) -> None:
        try:
            self._scopes.remove(scope)
        except ValueError:
            pass  # another thread was faster

    # Ends.

    def _close(self) -> None:
        """End the link, and wake everybody (contract C2)."""
        self._closings += 1
        links = [link for link in (self._link, self._new_link) if link is not None]
        for link in links:
            link.closed = True
            self._drop(link, None)
        for bell in tuple(self._bells):
            bell.ring_from_thread()
        places: list[Base | Scope] = [self, *self._scopes]
        for place in places:
            place.queues.wake()

    def _link_ended(self, link: Link, cause: BaseException | None, eof: bool) -> None:
        """Tell the callbacks that a link has ended (contract E3)."""
        log.debug("%s: link ended: %s", self._peer, cause or ("closed by the peer" if eof else "closed"))
        events: list[tuple[Callback, tuple[object, ...]]] = []
        if eof:
            events.append((self.on_eof_received, ()))
        events.append((self.on_connection_lost, (cause,)))
        for callback, args in events:
            if callback is not None:
                context = copy_context()
                context.run(current_scope.set, None)
                self._start_callback(link, context, callback, *args)

    def _after_fork(self) -> None:
        """Begin anew in a child process; the links are the parent's (contract F3)."""
        for link in (self._link, self._new_link):
            if link is not None:
                link.abandon()
        self._link = self._new_link = None
        self.queues = Queues()
        self._bells = []
        self._scopes = []


_objects: weakref.WeakSet[Base] = weakref.WeakSet()


def _forget_links() -> None:
    for tcp in list(_objects):
        tcp._after_fork()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_links)
