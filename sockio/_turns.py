"""Turns: who may use a link now.

A queue is a plain list of tickets, first come first served; adding and removing are atomic, so threads can share one.
A call's turn has come when its ticket is the first; until then it waits for the ticket before its own, and removes that
one if it is over. So nobody has to hand a turn on: a call that was cancelled, or torn by Ctrl-C, holds nobody up.

An object has two queues: who reads, and who writes; a request-reply call goes through both, in that order. They outlive
links: a call connects, if need be, when its turn has come, and nobody is overtaken because a link was lost. Calls made
inside a transaction or an ``on_connection_made`` queue in a scope of their own instead (else a callback would wait for
the call that waits for the callback). The scope is found by context variable, so that it holds in the tasks that are
started inside; those of its calls that are still under way when it ends go on at the head of the queues outside.
"""

from __future__ import annotations

import socket
from _thread import LockType, allocate_lock
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from ._rules import Expired, earliest

if TYPE_CHECKING:
    from ._base import Base
    from ._link import Link


class Ticket:
    """A call's place in the queues, held by ``with ticket.lock:``. Everybody behind it may go on once it is over.

    Unlike Python code, the two ends of that can't be torn by ``KeyboardInterrupt``: whatever ends a call, its lock is
    released, and that is what makes the ticket over. The rest, ``finish``, wakes those who wait for it.
    """

    bells: list[Bell] | None = None

    def __init__(self) -> None:
        self.lock: LockType = allocate_lock()

    @property
    def over(self) -> bool:
        """Whether the call is over, in whatever way."""
        return not self.lock.locked()

    def finish(self) -> None:
        """Tell those who wait that the call is over."""
        if self.bells:
            self.wake()

    def wake(self) -> None:
        """Let those who wait for this ticket look again."""
        for bell in tuple(self.bells or ()):
            bell.ring()

    async def wait(self, bell_class: type[Bell], deadline: float | None, check: Callable[[], None]) -> None:
        """Wait until the ticket is over, or for a ``wake``, or not so long.

        Args:
            bell_class: what to wait on
            deadline: when to give up
            check: raises if what somebody rings for has happened already, before there was a bell

        Raises:
            Expired: the deadline passed first
        """
        bell = bell_class()
        bells: list[Bell] = self.__dict__.setdefault("bells", [])
        bells.append(bell)
        try:
            check()
            if not self.over and not await bell.wait(deadline):
                raise Expired
        finally:
            bells.remove(bell)


@contextmanager
def held() -> Generator[Ticket]:
    """Be the call, or the block, that the ticket is for."""
    ticket = Ticket()
    try:
        with ticket.lock:
            yield ticket
    finally:
        ticket.finish()


class Bell(ABC):
    """Something to wait for: the flavour's own kind of event."""

    @abstractmethod
    def ring(self) -> None:
        """Let the waiter go on. Called where the waiter lives."""

    @abstractmethod
    def ring_from_thread(self) -> None:
        """Let the waiter go on. Called from any thread, also after the waiter's world has ended."""

    @abstractmethod
    async def wait(self, deadline: float | None, connecting: Sequence[socket.socket] = ()) -> bool:
        """Wait for a ring, for one of the sockets to end connecting, or for the deadline: False."""

    def close(self) -> None:
        """Give back what the bell holds."""


class CurrentScope(Protocol):
    """Where it is noted which scope the caller is inside of; tasks that are started inside inherit it."""

    def get(self) -> Scope | None:
        """Return the innermost scope."""

    def set(self, value: Scope | None, /) -> object:
        """Enter a scope, or leave it for the one around it."""


current_scope: ContextVar[Scope | None] = ContextVar("sockio.scope", default=None)


class Queues:
    """Who waits for a turn, or has it, in one world (an event loop, or all threads)."""

    def __init__(self, world: object = None) -> None:
        self.world = world
        self.reads: list[Any] = []
        self.writes: list[Any] = []
        self.connects: list[Any] = []

    def wake(self) -> None:
        """Let everybody who waits look again. Called from any thread."""
        for ticket in (*self.reads, *self.writes, *self.connects):
            for bell in tuple(ticket.bells or ()):
                bell.ring_from_thread()


class Scope:
    """Where the calls inside a transaction, or an ``on_connection_made``, take their turns, and the link they are for.

    Args:
        core: the object
        link: what the calls inside go to, and nowhere else
        around: holds the queues outside
        ticket: of the call that the scope belongs to, and is over with
        deadline: of all calls inside, if not that of the scope around it
    """

    _left = False

    def __init__(
        self, core: Base, link: Link, around: Base | Scope, ticket: Any, deadline: float | None = None
    ) -> None:
        self.core = core
        self.link = link
        self.deadline: float | None = within(around, deadline)
        self._ticket = ticket
        self.queues: Queues = Queues()
        outer = core._current_scope.get()
        while outer is not None and outer.over:  # left behind by an interrupt
            outer = outer.outer
        self.outer: Scope | None = outer
        self._around = around

    @property
    def over(self) -> bool:
        """Whether the scope counts no more."""
        return self._left or bool(self._ticket.over)

    def __enter__(self) -> None:
        self.core._current_scope.set(self)

    def __exit__(self, *exc_info: object) -> None:
        self._left = True
        if self.core._current_scope.get() is self:  # not always the innermost one is left first
            self.core._current_scope.set(self.outer)
        inside, self.queues = self.queues, self._around.queues
        self.queues.reads[:0] = inside.reads
        self.queues.writes[:0] = inside.writes


def within(around: Base | Scope, deadline: float | None) -> float | None:
    """Return when a call with that deadline must be over that is made there."""
    return earliest(deadline, around.deadline) if isinstance(around, Scope) else deadline
