"""Connecting: how an object comes by a link, again and again."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from ._base import Base
from ._dial import Address, Race, resolve
from ._link import Link
from ._rules import Expired, earliest, given_up
from ._turns import Bell, Scope
from .common import (
    Attempts,
    ConnectionTimeoutError,
    configure_socket,
    keep_alive_options,
    log,
)


class Connector(Base):
    """Makes links: one at a time, each greeted before anybody may use it."""

    connection_counter: int

    async def _healthy_link(
        self, ticket: Any, attempts: Attempts, sends: bool, deadline: float | None, closings: int
    ) -> Link:
        """Return the link, connecting if there is none; one that has ended serves a plain read once more (A8)."""
        link = self._link
        if link is not None and not link.dropped:
            return link
        if not self.auto_reconnect:
            raise self._not_open()
        return await self._connect(ticket, attempts, deadline, closings, may_end=not sends)

    async def _connect(
        self,
        ticket: Any,
        attempts: Attempts,
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
                return await self._dial(ticket, attempts, bell, deadline, closings, may_end)
            finally:
                self._close_bell(bell)
        finally:
            if ticket in self.queues.connects:
                self.queues.connects.remove(ticket)
                ticket.wake()  # the next one needn't wait for the end of this call

    async def _dial(
        self, ticket: Any, attempts: Attempts, bell: Bell, deadline: float | None, closings: int, may_end: bool
    ) -> Link:
        """Attempt to connect as often as the retry policy and the deadline allow (contract R5, T2)."""
        while True:
            limit = self.connection_timeout
            attempt_deadline = earliest(deadline, None if limit is None else self._now() + limit)
            try:
                link = attempts.link = await self._attempt(ticket, bell, attempt_deadline, closings, may_end)
                return link
            except (OSError, Expired) as exc:
                self._check_open(closings)
                error = self._connect_error(exc, attempts.error)
            await self._back_off(attempts, error, deadline, closings)

    async def _back_off(self, attempts: Attempts, error: OSError, deadline: float | None, closings: int) -> None:
        """Wait until the next attempt is due, or raise the error of the last one if there may be no other."""
        attempts.error = error
        attempts.failures += 1
        log.debug("%s: connection attempt %d failed: %s", self._peer, attempts.failures, error)
        if not self.retry.allows(attempts.failures):
            raise error
        if deadline is not None and self._now() >= deadline:
            raise error if isinstance(error, ConnectionTimeoutError) else self._connect_error(Expired(), error)
        await self._sleep(self.retry.pause(attempts.failures, self._random()), deadline, closings)

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
        addresses = await self._addresses(deadline, closings)
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
            self._drop(link, given_up(exc, "connecting"))
            raise
        finally:
            self._new_link = None
        self.connection_counter += 1
        log.debug("%s: link %d is up", self._peer, self.connection_counter)
        return link

    async def _addresses(self, deadline: float | None, closings: int) -> list[Address]:
        try:
            return self._lookup(self.host, self.port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            pass  # a name
        bell = self._new_bell()
        try:
            self._check_open(closings)  # a close() before that rang no bell
            addresses = await resolve(self._lookup, self.host, self.port, bell, deadline)
        finally:
            self._close_bell(bell)
        self._check_open(closings)
        assert addresses is not None
        return addresses

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
                await self._call_back(callback, bell, deadline)
            except Expired:
                raise
            except Exception:
                if not link.notice():
                    log.exception("%s: on_connection_made failed: %r", self._peer, callback)
        if deadline is not None and self._now() >= deadline:
            raise Expired
