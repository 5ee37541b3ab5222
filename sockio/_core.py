"""What a call does, in every flavour but ``py2``, which arranges the same rules in its own words.

A call is: a deadline, a turn, a link fit for it, the request out, the reply in. The rules of that (``_rules``: is this
link fit for a request? what becomes of it after this failure?) are plain functions; ``Core._perform``, a coroutine,
arranges the waiting around them. A flavour says only how its library waits:

- ``Link``: more bytes have come, the bytes are out, hang up (``_link``);
- ``Bell`` and ``Ticket``: something rings, a place in a queue is over (``_turns``);
- ``Core``: its clock, resolver and randomness, and how it runs callbacks.

The async flavours are ``AsyncTCP`` with these. The blocking one drives the same coroutines with a single
``send(None)``, because nothing in it ever suspends.

Two marks make every failure safe, also one that strikes between two statements, like Ctrl-C: a link is marked
``writing`` and ``receiving`` around what must not stop halfway, and whoever finds such a mark at its turn drops it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from ._base import Base
from ._buffer import Buffer, Take, anything, terminator
from ._connect import Connector
from ._link import Link
from ._rules import UNSET, Expired, Timeout, earliest
from ._turns import Scope, within
from .common import QUIET, Attempts


class Core(Connector):
    """A TCP object, but for the flavour's way of waiting."""

    waits: int

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

    async def _exchange(
        self, link: Link, request: bytes | None, take: Take | None, wanted: Any, deadline: float | None
    ) -> Any:
        link.idle = False
        if request is not None:
            sent = link.hand_over(request)
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
                torn = (sends and link.writing) or (reads and link.receiving)
                if self._fits(link, free, sends, torn, eol):
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
