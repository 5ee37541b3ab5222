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
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from ._base import Base
from ._buffer import Buffer
from ._connect import Connector
from ._link import Link, given_up
from ._rules import UNSET, Take, Timeout, anything, checked_separator, seconds, terminator, to_end
from ._turns import Expired, Scope, earliest, within
from .common import (
    AGES,
    QUIET,
    Attempts,
    ConnectionClosedError,
    ConnectionEOFError,
    ConnectionLostError,
    ConnectionTimeoutError,
    LinkError,
    log,
)

_INFINITE = math.inf


class Core(Connector):
    """A TCP object, but for the flavour's way of waiting."""

    waits: int

    # The rules of a call.

    def _deadline(self, timeout: Timeout) -> float | None:
        """When a call with that timeout must be over; 0.0 if it mustn't wait at all."""
        if timeout is UNSET:
            timeout = self.timeout
        if timeout is None:
            return None
        try:
            if 0 < timeout < AGES:
                return self._clock() + timeout
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
        if link is None or not link.idle or self._scopes:
            return None
        if self._here is not None and link.world is not self._here():
            return None
        queues = self.queues
        reads = queues.reads
        writes = queues.writes
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
            log.warning("%s: discarded %d bytes that nobody had asked for: %.80r", self._peer, len(stale), stale)
        else:
            log.warning("%s: %d bytes of an unfinished message are in the way: %.80r", self._peer, len(stale), stale)
            text = "an unfinished message was left over (on_connection_made can read what comes first on a link)"
            link.drop(ConnectionClosedError(text))

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
        where = f"{name} on {self._peer}"
        error: BaseException = exc
        if link is not None and isinstance(exc, OSError) and not isinstance(exc, LinkError):
            link.drained = True
            if isinstance(exc, BrokenPipeError):
                link.notice()  # this one only says that it is broken, not why
            link.end(exc)
            error = link.error()
        elif isinstance(exc, Expired):
            error = ConnectionTimeoutError("its time is up: raise timeout, or check that the instrument answers")
        elif isinstance(exc, OSError) and not isinstance(exc, LinkError):  # from the connection attempt
            error = type(exc)(exc.errno, f"{where}: {exc.strerror}")
            error.request_sent = False  # type: ignore[attr-defined]
        if isinstance(error, LinkError):
            if type(error) is ConnectionEOFError and name in ("readexactly", "readuntil", "BlockStream"):
                error = self._incomplete(error, wanted if isinstance(wanted, int) else None)
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
        deadline = within(around, deadline)
        failures = 0
        sent = False
        try:
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
                    if link is not None:
                        link.leave(ticket)
        finally:
            self._leave(around, ticket, None)

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
        """Wait for the reply to be complete; what comes after the deadline is too late, even if it never stops."""
        in_time: int | None = None
        while (reply := take(link.buffer, wanted)) is None:
            if (
                take is Buffer.take_block
                and (reply := await self._indefinite_block(link, wanted, deadline)) is not None
            ):
                break
            if (link.drained or take is anything) and (reply := self._unmet(link, take)) is not None:
                break
            if deadline is not None and deadline <= self._now():
                if in_time is None:
                    in_time = link.waiting()
                elif len(link.buffer) >= in_time:
                    raise Expired
            self.waits += 1
            await link.more(deadline)
        if link.paused and len(link.buffer) < link.buffer.limit:
            link.resume()
        return reply

    async def _indefinite_block(self, link: Link, eol: bytes, deadline: float | None) -> bytes | None:
        """Return the data of a block of indefinite length whose terminator nothing follows (contract Q5)."""
        buffer = link.buffer
        while buffer.may_be_block(eol) and not link.void:
            size = len(buffer)
            quiet = self._now() + QUIET
            try:
                while len(buffer) == size and not link.drained:
                    await link.more(earliest(deadline, quiet))
            except Expired:
                if deadline and deadline < quiet:  # without any time (0.0) what is there counts
                    raise
            if len(buffer) == size and not link.void:
                return buffer.take_all()[2 : -len(eol)]
        return None

    async def _fit_link(
        self,
        around: Base | Scope,
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
        attempts = Attempts()
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
                    link = await self._healthy_link(ticket, attempts, sends, deadline, closings)
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
            if link is attempts.link:  # made for this very call: a failed attempt (contract R5)
                await self._back_off(attempts, link.error(), deadline, closings)
            link = None

    # Beside the calls that move data.

    async def _open(self, ticket: Any, timeout: Timeout, must_be_new: bool = True) -> None:
        deadline = None if timeout is UNSET else self._deadline(timeout)
        try:
            if self._scope() is not None:
                raise self._already_open()
            self._enter_world()
            await self._connect(ticket, Attempts(), deadline, self._closings, must_be_new)
        except BaseException as exc:
            error = self._failed(exc, "open", None, None, None)
            raise error from error.__cause__

    async def _begin(self, around: Base | Scope, ticket: Any, timeout: Timeout) -> Link:
        """Wait for both turns of a transaction, and a link fit for it."""
        try:
            deadline = within(around, self._deadline(timeout))
            return await self._fit_link(around, ticket, True, True, self.eol, deadline, self._closings)
        except BaseException as exc:
            self._leave(around, ticket, None)
            error = self._failed(exc, "transaction", None, None, None)
            raise error from error.__cause__

    @contextmanager
    def _exclusively(self, around: Base | Scope, ticket: Any, link: Link) -> Generator[None]:
        """Be inside a transaction (contract A6)."""
        try:
            with self._inside(Scope(self, link, around, ticket)):
                yield
        finally:
            self._leave(around, ticket, link)


class Binding:
    """What keeps the steps of a stream on one link."""

    link: Link | None = None
