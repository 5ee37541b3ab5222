"""What a call does: the only statement of the semantics, for every flavour.

A call is: a deadline, a turn, a link fit for it, the request out, the reply in. The rules (may this call start at once?
is this link fit for a request? what becomes of the link after this failure?) are plain functions; ``Core._perform``, a
coroutine, arranges the waiting around them. A flavour says only how its library waits:

- ``Link``: more bytes have come, the bytes are out, hang up (``_link``);
- ``Bell`` and ``Ticket``: something rings, a place in a queue is over (``_turns``);
- ``Core``: its clock, resolver and randomness, and how it runs callbacks.

The async flavours are ``AsyncTCP`` with these. The blocking one drives the same coroutines with a single
``send(None)``, because nothing in it ever suspends.

Two marks make every failure safe, also one that strikes between two statements, like Ctrl-C: a link is marked
``writing`` and ``receiving`` around what must not stop halfway, and whoever finds such a mark at its turn drops it.
"""

from __future__ import annotations

import math
import os
import random
import socket
import sys
import time
import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any, ClassVar

from ._dial import Address, Race, earliest, lookup, resolve
from ._link import Link
from ._rules import UNSET, Take, Timeout, anything, checked_separator, checked_size, seconds, terminator, to_end
from ._turns import Bell, Expired, Queues, Scope, current_scope
from .common import (
    DEFAULT_LIMIT,
    DFT_KEEP_ALIVE,
    IPTOS_LOWDELAY,
    ConnectionClosedError,
    ConnectionEOFError,
    ConnectionLostError,
    ConnectionTimeoutError,
    LinkError,
    Retry,
    checked_port,
    configure_socket,
    keep_alive_options,
    log,
)

Callback = Callable[..., Any] | None
_INFINITE = math.inf


class Core(ABC):
    """A TCP object, but for the flavour's way of waiting.

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

    _link_class: ClassVar[type[Link]]
    _bell_class: ClassVar[type[Bell]]
    _link: Link | None = None

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
        if not isinstance(host, str):
            raise TypeError(f"host must be a name or an address, not {host!r}")
        if not host:
            raise ValueError("host must not be empty")
        if retry is not None and not isinstance(retry, Retry):
            raise TypeError(f"retry must be a sockio.common.Retry, not {retry!r}")
        if stale_input not in ("discard", "keep"):
            raise ValueError(f"stale_input must be 'discard' or 'keep', not {stale_input!r}")
        for callback in (on_connection_made, on_connection_lost, on_eof_received):
            if callback is not None and not callable(callback):
                raise TypeError(f"a connection event callback must be callable, not {callback!r}")
        if tos is not None and checked_size(tos, "tos") > 255:
            raise ValueError(f"tos must be at most 255, not {tos}")
        for limit, name in ((timeout, "timeout"), (connection_timeout, "connection_timeout")):
            if limit is not None:
                seconds(limit, name)
        self.host = host
        self.port = checked_port(port)
        self.eol = checked_separator(eol)
        self.auto_reconnect = auto_reconnect
        self.on_connection_made = on_connection_made
        self.on_connection_lost = on_connection_lost
        self.on_eof_received = on_eof_received
        self.buffer_size = checked_size(buffer_size, "buffer_size", 1)
        self.no_delay = no_delay
        self.tos = tos
        self.connection_timeout = connection_timeout
        self.timeout = timeout
        self.keep_alive = keep_alive
        self.retry = retry or Retry()
        self.stale_input = stale_input
        self.connection_counter = 0
        self.waits = 0
        keep_alive_options(keep_alive)
        self._new_link: Link | None = None
        self._closings = 0
        self.queues = Queues()
        self._bells: list[Bell] = []
        self._scopes: list[Scope] = []
        self._log = log.getChild(f"TCP({host}:{port})")
        _objects.add(self)

    # What the flavour says, beside its Link and its Bell.

    #: Tells what a link can't outlive, and what it may only be used in: the running event loop. None: threads.
    _world: Callable[[], object] | None = None

    @staticmethod
    def _random() -> float:
        return random.random()

    _now = staticmethod(time.monotonic)
    _lookup = staticmethod(lookup)

    @abstractmethod
    async def _new_link_on(self, sock: socket.socket) -> Link:
        """Return a link on a connected socket."""

    async def _finish_callback(self, result: Any, bell: Bell, deadline: float | None) -> None:
        """Wait for what ``on_connection_made`` returned, if it can be waited for; a ring or the deadline cancel it."""

    @abstractmethod
    def _start_callback(self, link: Link, context: Context, callback: Callable[..., Any], *args: object) -> None:
        """Run a callback about that link soon, in that context, where it can do no harm."""

    def _incomplete(self, name: str, error: ConnectionEOFError, wanted: Any) -> ConnectionEOFError:
        """Return the error for an exact read that the end of the link cut off."""
        return error

    # The plain methods.

    def connected(self) -> bool:
        """Whether there is a link whose end this host has not received; asks the operating system."""
        link = self._visible_link()
        return link is not None and not link.notice()

    is_open = property(connected)

    def at_eof(self) -> bool:
        """Whether the link has ended and nothing of what it brought is left to read."""
        link = self._visible_link()
        return link is not None and link.notice() and not link.waiting()

    def in_waiting(self) -> int:
        """Return how many bytes can be read without waiting."""
        link = self._visible_link()
        return 0 if link is None else link.waiting()

    def __repr__(self) -> str:
        link = self._link
        state = "closed" if link is None else "ended" if link.ended else "connected"
        return f"<{type(self).__module__}.{type(self).__name__} {self.host}:{self.port} {state}>"

    def __del__(self) -> None:
        link = self._link
        if link is not None:
            forgotten, name = not link.ended, repr(self)
            link.hang_up()
            if forgotten:
                warnings.warn(f"unclosed {name}", ResourceWarning, stacklevel=2, source=self)

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

    # The rules of a call.

    def _deadline(self, timeout: Timeout) -> float | None:
        """When a call with that timeout must be over; 0.0 if it mustn't wait at all."""
        if timeout is UNSET:
            timeout = self.timeout
        if timeout is None:
            return None
        try:
            if 0 < timeout < _INFINITE:
                return self._now() + timeout
        except TypeError:
            pass
        number = float(seconds(timeout))
        return 0.0 if number <= 0 else None if number == _INFINITE else self._now() + number

    def _eol(self, eol: bytes | None) -> bytes:
        if eol is None:
            eol = self.eol
        return eol if type(eol) is bytes and eol else checked_separator(eol)

    def _straight(self, ticket: Any) -> Link | None:
        """Return the link, both turns taken, if a request can go out at once: nobody to wait for, nothing to mend."""
        link = self._link
        if (
            link is None
            or not link.idle
            or self._scopes
            or (self._world is not None and link.world is not self._world())
        ):
            return None
        reads, writes = self.queues.reads, self.queues.writes
        if reads or writes:
            return None
        reads.append(ticket)
        writes.append(ticket)
        if reads[0] is ticket and writes[0] is ticket:
            link.reader = link.writer = ticket
            if link.idle and not link.poller.poll(0):  # type: ignore[redundant-expr]  # another thread may have struck
                link.idle = False
                return link
        self._leave(self, ticket, link)
        return None

    def _fits(self, link: Link, free: bool, reads: bool, sends: bool, eol: bytes | None) -> bool:
        """Whether the call whose turn has come may go on on this link; False: it needs another one.

        Args:
            link: the one that there is
            free: the call isn't bound to this link
            reads, sends: what the call does
            eol: what ends a whole message that may be discarded; None: nothing may

        Raises:
            LinkError: it can't have another one
        """
        if not link.dropped and ((sends and link.writing) or (reads and link.receiving)):
            link.drop(ConnectionClosedError("a call was torn off in the middle"))
        if link.closed or (link.void and not free):
            raise link.error()
        if free and link is not self._link:
            return False  # it was lost while the call waited
        if not sends:
            return True
        if not link.notice() and eol is not None:
            self._look(link, eol)
        if not link.ended:
            return True
        if not free:
            raise link.error()
        if not self.auto_reconnect:
            error = link.error()
            link.drop(None)
            raise error
        link.retire()
        return False

    def _look(self, link: Link, eol: bytes) -> None:
        """Look once at what arrived before the request goes out: it can't be the reply (contract Q4)."""
        buffer = link.buffer
        while len(buffer) <= self.buffer_size and link.receive():
            pass
        if link.ended or not len(buffer) or self.stale_input == "keep":
            return
        stale = buffer.take_all()
        if stale.endswith(eol) and len(stale) <= self.buffer_size:
            self._log.warning("discarded %d bytes that nobody had asked for: %.80r", len(stale), stale)
        else:
            self._log.warning("%d bytes of an unfinished message are in the way: %.80r", len(stale), stale)
            link.drop(ConnectionClosedError("an unfinished message was left over"))

    def _unmet(self, link: Link, take: Take) -> Any:
        """Return what a call gets whose reply isn't complete, and that has no more to wait for.

        Raises:
            LinkError: the link has ended
        """
        buffer = link.buffer
        if take is anything:
            while len(buffer) <= self.buffer_size and link.receive():
                pass
            if len(buffer) or not link.drained:
                return buffer.take_all()
        clean = link.cause is None and not link.closed
        partial = buffer.take_all()
        if take is to_end and partial and clean:
            link.drop(None)
            return partial
        raise link.error(partial)

    def _failed(
        self, exc: BaseException, name: str, link: Link | None, request: bytes | None, wanted: Any
    ) -> BaseException:
        """Return what a failed call raises, after deciding what becomes of the link.

        A link on which a request was begun is dropped whatever the failure (contract A2), and so is one that has ended;
        a plain read that gives up leaves it alone (A7).
        """
        sent = link is not None and request is not None and link.writing and link.sent
        where = f"{name} on {self.host}:{self.port}"
        error: BaseException = exc
        if link is not None and isinstance(exc, OSError) and not isinstance(exc, LinkError):
            link.drained = True
            link.end(exc)
            error = link.error()
        elif isinstance(exc, Expired):
            error = ConnectionTimeoutError("its time is up: raise timeout, or check that the instrument answers")
        elif isinstance(exc, OSError) and not isinstance(exc, LinkError):  # from the connection attempt
            error = type(exc)(exc.errno, f"{where}: {exc.strerror}")
            error.request_sent = False  # type: ignore[attr-defined]
        if isinstance(error, LinkError):
            if type(error) is ConnectionEOFError:
                error = self._incomplete(name, error, wanted)
            error.request_sent = sent
            error.args = (f"{where}: {error}{self._advice(error)}",)
            if error is not exc and error.__cause__ is None:
                error.__cause__ = exc if isinstance(exc, OSError) else exc.__cause__
        if link is not None and (
            (request is not None and link.writing)
            or (isinstance(error, LinkError) and not isinstance(error, ConnectionTimeoutError))
        ):
            link.drop(given_up(error, name))
        return error

    def _advice(self, error: LinkError) -> str:
        """Return the end of a message: what there was of the reply, and what to do."""
        found = f" after {error.partial[:60]!r} (see .partial)" if error.partial else ""
        if isinstance(error, (ConnectionEOFError, ConnectionLostError)):
            return found + (
                ": the next call connects again" if self.auto_reconnect else ": call open() to connect again"
            )
        return found

    # The waiting of a call.

    async def _perform(
        self,
        ticket: Any,
        name: str,
        request: bytes | None,
        take: Take | None,
        wanted: Any,
        deadline: float | None,
        idempotent: bool = False,
        bound: Binding | None = None,
    ) -> Any:
        """Do a call: send ``request`` if there is one, then wait until ``take(buffer, wanted)`` has the reply.

        Args:
            ticket: the call's place in the queues
            name: of the call, for messages
            request: what to send
            take: framing of the reply; None: there is none
            wanted: its argument
            deadline: when to give up
            idempotent: whether the request may be sent again after a loss (contract R4)
            bound: keeps the link of the first step of a stream for the next ones
        """
        closings = self._closings
        around = self._scope() or self
        if isinstance(around, Scope):
            deadline = earliest(deadline, around.deadline)
        failures = 0
        sent = False
        while True:
            link: Link | None = None
            try:
                if failures > 1:
                    await self._sleep(self.retry.pause(failures - 1, self._random()), deadline, closings)
                if deadline == 0.0 and request is not None:
                    raise Expired
                sends, reads = request is not None, take is not None
                eol = terminator(take, wanted, self.eol) if sends and reads else None
                link = await self._fit_link(around, ticket, sends, reads, eol, deadline, closings, bound)
                return await self._exchange(link, request, take, wanted, deadline)
            except BaseException as exc:
                error = self._failed(exc, name, link, request, wanted)
                sent = sent or getattr(error, "request_sent", False)
                failures += 1
                if not idempotent or around is not self or not self._may_resend(error, failures):
                    if sent:
                        error.request_sent = True  # type: ignore[attr-defined]
                    raise error from error.__cause__
            finally:
                self._leave(around, ticket, link)

    def _may_resend(self, error: BaseException, failures: int) -> bool:
        """Whether an idempotent request that met this error may go out on a new link (contract R4)."""
        lost = isinstance(error, (ConnectionEOFError, ConnectionLostError))
        return lost and self.auto_reconnect and failures <= (self.retry.attempts or failures)

    async def _exchange(
        self, link: Link, request: bytes | None, take: Take | None, wanted: Any, deadline: float | None
    ) -> Any:
        link.idle = False
        if request is not None:
            sent = link.begin(request)
            if sent < len(request):
                await link.flush(request, sent, deadline)
        reply = None if take is None else await self._reply(link, take, wanted, deadline)
        if request is not None and take is not None:
            link.settle()
        elif request is not None:
            link.writing = link.sent = False
        return reply

    async def _reply(self, link: Link, take: Take, wanted: Any, deadline: float | None) -> Any:
        """Wait for the reply to be complete."""
        while (reply := take(link.buffer, wanted)) is None:
            if (link.drained or take is anything) and (reply := self._unmet(link, take)) is not None:
                break
            self.waits += 1
            await link.more(deadline)
        if link.paused and len(link.buffer) < link.buffer.limit:
            link.resume()
        return reply

    async def _fit_link(
        self,
        around: Core | Scope,
        ticket: Any,
        sends: bool,
        reads: bool,
        eol: bytes | None,
        deadline: float | None,
        closings: int,
        bound: Binding | None = None,
    ) -> Link:
        """Wait for the call's turn, and for a link that is fit for it.

        Args:
            around: where turns are taken
            sends, reads: which turns are needed
            eol: what ends a whole message that may be discarded; None: nothing may
        """
        self._enter_world()
        link: Link | None = None
        free = False
        while True:
            if reads:
                await self._turn(around, "reads", ticket, deadline, closings)
            if sends:
                await self._turn(around, "writes", ticket, deadline, closings)
            self._check_open(closings)
            if link is None:
                if isinstance(around, Scope):
                    link = around.link
                elif bound is not None and bound.link is not None:
                    link = bound.link
                else:
                    free = True
                    link = await self._healthy_link(ticket, sends, deadline, closings)
                continue  # calls that on_connection_made began, and that are still under way, go first
            try:
                link.serve(ticket, reads, sends)
                if self._fits(link, free, reads, sends, eol):
                    if bound is not None:
                        bound.link = link
                    return link
            except BaseException:
                link.leave(ticket)
                raise
            link.leave(ticket)
            link = None

    def _enter_world(self) -> None:
        """Begin anew if the event loop is another one: the old one has ended, and whatever was waiting there."""
        world = None if self._world is None else self._world()
        if self.queues.world is not world:
            self.queues = Queues(world)

    async def _turn(self, around: Core | Scope, side: str, ticket: Any, deadline: float | None, closings: int) -> None:
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
                await ahead.wait(deadline)
                self._check_open(closings)

    def _check_open(self, closings: int) -> None:
        if self._closings != closings:
            raise ConnectionClosedError("the object was closed meanwhile: check who called close()")

    def _leave(self, around: Core | Scope, ticket: Any, link: Link | None) -> None:
        """Give the turns back, and the link."""
        for queue in (around.queues.reads, around.queues.writes):
            while ticket in queue:
                queue.remove(ticket)
        if link is not None:
            link.leave(ticket)

    def _scope(self) -> Scope | None:
        """Return the transaction or ``on_connection_made`` of this object that the caller is inside of."""
        for scope in tuple(self._scopes):
            if scope.over and scope in self._scopes:
                self._scopes.remove(scope)  # Ctrl-C struck on the way out of it
        scope_of_caller = current_scope.get()
        while scope_of_caller is not None and (scope_of_caller.core is not self or scope_of_caller.over):
            scope_of_caller = scope_of_caller.outer
        return scope_of_caller

    def _visible_link(self) -> Link | None:
        scope = self._scope()
        return self._link if scope is None else scope.link

    # Connecting.

    async def _healthy_link(self, ticket: Any, sends: bool, deadline: float | None, closings: int) -> Link:
        """Return the link, connecting if there is none; one that has ended serves a plain read once more (A8)."""
        link = self._link
        if link is not None and self._world is not None and link.world is not self._world():
            link.drop(None)
            link = None
        if link is not None and not link.dropped:
            return link
        if not self.auto_reconnect:
            raise ConnectionClosedError("the object is not open: call open()")
        return await self._connect(ticket, deadline, closings, may_end=not sends)

    async def _connect(
        self,
        ticket: Any,
        deadline: float | None,
        closings: int,
        must_be_new: bool = False,
        may_end: bool = False,
    ) -> Link:
        """Return a healthy link, made by whoever comes first through the gate (contract C4).

        Args:
            must_be_new: raise if there is one already
            may_end: a new link that ended at once will do as well, if it brought something to read
        """
        try:
            await self._turn(self, "connects", ticket, deadline, closings)
            link = self._link
            if link is not None and not link.notice():
                if must_be_new:
                    raise self._already_open()
                return link
            if link is not None:
                link.retire()
            bell = self._new_bell()
            try:
                return await self._dial(ticket, bell, deadline, closings, may_end)
            finally:
                self._close_bell(bell)
        finally:
            if ticket in self.queues.connects:
                self.queues.connects.remove(ticket)
                ticket.wake()  # the next one needn't wait for the end of this call

    async def _dial(self, ticket: Any, bell: Bell, deadline: float | None, closings: int, may_end: bool) -> Link:
        """Attempt to connect as often as the retry policy and the deadline allow (contract R5, T2)."""
        failures = 0
        error: OSError | None = None
        while True:
            limit = self.connection_timeout
            attempt_deadline = earliest(deadline, None if limit is None else self._now() + limit)
            try:
                return await self._attempt(ticket, bell, attempt_deadline, closings, may_end)
            except (OSError, Expired) as exc:
                self._check_open(closings)
                error = self._connect_error(exc, error)
            failures += 1
            self._log.debug("connection attempt %d failed: %s", failures, error)
            if not self.retry.allows(failures):
                raise error
            if deadline is not None and self._now() >= deadline:
                raise error if isinstance(error, ConnectionTimeoutError) else self._connect_error(Expired(), error)
            pause = self.retry.pause(failures, self._random())
            await bell.wait(earliest(deadline, self._now() + pause))
            self._check_open(closings)

    def _connect_error(self, exc: OSError | Expired, previous: OSError | None) -> OSError:
        """Return the error of an attempt; the one before is the cause of a timeout."""
        if isinstance(exc, LinkError):
            return exc
        if isinstance(exc, Expired):
            error = ConnectionTimeoutError(
                "no connection in time: check the address and that the instrument is on, or raise the timeout"
            )
            error.__cause__ = previous
            return error
        text = f"{exc.strerror or exc}: check the address and that the instrument is on"
        return type(exc)(exc.errno, text)

    async def _sleep(self, pause: float, deadline: float | None, closings: int) -> None:
        bell = self._new_bell()
        try:
            self._check_open(closings)  # a close() before that rang no bell
            await bell.wait(earliest(deadline, self._now() + pause))
        finally:
            self._close_bell(bell)
        self._check_open(closings)

    def _new_bell(self) -> Bell:
        """Return a bell that ``close()`` rings."""
        bell = self._bell_class()
        self._bells.append(bell)
        return bell

    def _close_bell(self, bell: Bell) -> None:
        self._bells.remove(bell)
        bell.close()

    async def _attempt(self, ticket: Any, bell: Bell, deadline: float | None, closings: int, may_end: bool) -> Link:
        self._check_open(closings)
        if deadline is not None and self._now() >= deadline:
            raise Expired
        addresses = await resolve(self._lookup, self.host, self.port, bell, deadline)
        self._check_open(closings)
        assert addresses is not None
        link = await self._new_link_on(await self._connected_socket(addresses, bell, deadline, closings))
        self._new_link = link
        try:
            self._check_open(closings)
            if self.on_connection_made is not None:
                await self._greet(ticket, link, self.on_connection_made, bell, deadline)
                self._check_open(closings)
                may_end = False
            if link.notice() and not (may_end and link.waiting()):
                link.retire()
                raise link.error(link.buffer.take_all())
            self._link = link
            self._check_open(closings)
        except BaseException as exc:
            link.drop(given_up(exc, "connecting"))
            raise
        finally:
            self._new_link = None
        self.connection_counter += 1
        self._log.debug("link %d is up", self.connection_counter)
        return link

    async def _connected_socket(
        self, addresses: list[Address], bell: Bell, deadline: float | None, closings: int
    ) -> socket.socket:
        keep_alive = keep_alive_options(self.keep_alive)
        race = Race(addresses, lambda sock: configure_socket(sock, self.no_delay, self.tos, keep_alive))
        try:
            while (sock := race.step(self._now())) is None:
                if deadline is not None and self._now() >= deadline:
                    raise Expired
                await bell.wait(earliest(deadline, race.next_start), race.connecting)
                self._check_open(closings)
            return sock
        finally:
            race.close()

    async def _greet(
        self, ticket: Any, link: Link, callback: Callable[..., Any], bell: Bell, deadline: float | None
    ) -> None:
        """Run ``on_connection_made`` before anybody else may use the link (contract E1, E2)."""
        with self._inside(Scope(self, link, self, ticket, deadline)):
            try:
                await self._finish_callback(callback(), bell, deadline)
            except Expired:
                raise
            except Exception:
                if not link.notice():
                    self._log.exception("on_connection_made failed: %r", callback)
        if deadline is not None and self._now() >= deadline:
            raise Expired

    async def _begin(self, around: Core | Scope, ticket: Any, timeout: Timeout) -> Link:
        """Wait for both turns of a transaction, and a link fit for it."""
        try:
            deadline = self._deadline(timeout)
            return await self._fit_link(around, ticket, True, True, self.eol, deadline, self._closings)
        except BaseException as exc:
            self._leave(around, ticket, None)
            error = self._failed(exc, "transaction", None, None, None)
            raise error from error.__cause__

    @contextmanager
    def _exclusively(self, around: Core | Scope, ticket: Any, link: Link) -> Generator[None]:
        """Be inside a transaction (contract A6)."""
        try:
            with self._inside(Scope(self, link, around, ticket)):
                yield
        finally:
            self._leave(around, ticket, link)

    @contextmanager
    def _inside(self, scope: Scope) -> Generator[None]:
        self._scopes.append(scope)
        try:
            with scope:
                yield
        finally:
            while scope in self._scopes:
                self._scopes.remove(scope)

    def _already_open(self) -> ConnectionClosedError:
        return ConnectionClosedError("the object is already open: close() it first, or just use it")

    async def _open(self, ticket: Any, timeout: Timeout, must_be_new: bool = True) -> None:
        deadline = None if timeout is UNSET else self._deadline(timeout)
        try:
            if self._scope() is not None:
                raise self._already_open()
            self._enter_world()
            await self._connect(ticket, deadline, self._closings, must_be_new)
        except BaseException as exc:
            error = self._failed(exc, "open", None, None, None)
            raise error from error.__cause__

    # Ends.

    def _close(self) -> None:
        """End the link, and wake everybody (contract C2)."""
        self._closings += 1
        links = [link for link in (self._link, self._new_link) if link is not None]
        for link in links:
            link.closed = True
            link.drop(None)
        for bell in tuple(self._bells):
            bell.ring_from_thread()
        places: list[Core | Scope] = [self, *self._scopes]
        for place in places:
            place.queues.wake()

    def _link_ended(self, link: Link, cause: BaseException | None, eof: bool) -> None:
        """Tell the callbacks that a link has ended (contract E3)."""
        self._log.debug("link ended: %s", cause or ("closed by the peer" if eof else "closed"))
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


class Binding:
    """What keeps the steps of a stream on one link."""

    link: Link | None = None


def given_up(exc: BaseException, name: str) -> Exception:
    """Return the cause of the loss of a link that a call drops because of ``exc``."""
    if isinstance(exc, Exception) and not isinstance(exc, Expired):
        return exc
    reason = "its time was up" if isinstance(exc, Expired) else type(exc).__name__
    return ConnectionClosedError(f"{name} was given up in the middle: {reason}")


_objects: weakref.WeakSet[Core] = weakref.WeakSet()


def _forget_links() -> None:
    for core in list(_objects):
        core._after_fork()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_links)
