"""What the users of a storm asked for and got, and whether that agrees with what the instrument executed."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import count

from simulator import Entry, Ledger
from sockio.common import LinkError


@dataclass
class Unit:
    """The commands of one call, or of one transaction: to be executed in one go, on one link, at most once.

    Attributes:
        commands: in order
        repeatable: sent with ``idempotent=True``
        replied: a reply to each has come
        unsent: its call failed, and said that no byte of it had left
    """

    commands: list[bytes]
    repeatable: bool = False
    replied: bool = False
    unsent: bool = False


class Journal:
    """Every unit of one storm; safe to share between threads."""

    def __init__(self) -> None:
        self._numbers = count()
        self._adding = threading.Lock()
        self._units: list[Unit] = []

    def unit(self, head: bytes, kind: bytes, size: int = 1, tail: bytes = b"", repeatable: bool = False) -> Unit:
        """Make a unit of ``size`` commands that exist only once: ``HEAD kind-number-index tail``."""
        with self._adding:
            number = next(self._numbers)
            commands = [b"%s %s-%d-%d%s" % (head, kind, number, index, tail) for index in range(size)]
            self._units.append(Unit(commands, repeatable))
            return self._units[-1]

    def check(self, ledger: Ledger) -> None:
        """Compare with what happened at the far end, once everything is over there.

        Raises:
            AssertionError: something was executed twice, or torn apart, or not at all though a reply came
        """
        by_link: dict[int | None, list[bytes]] = {}
        places: dict[bytes, list[tuple[Entry, int]]] = {}
        for entry in ledger.entries:
            if entry.event == "command":
                order = by_link.setdefault(entry.link, [])
                places.setdefault(entry.command, []).append((entry, len(order)))
                order.append(entry.command)
        for unit in self._units:
            executed = [place for command in unit.commands for place in places.get(command, [])]
            if unit.unsent:
                assert not executed, f"nothing had left, said the error of {unit}"
            if unit.repeatable:
                assert executed or not unit.replied, f"never executed: {unit}"
                continue
            names = [entry.command for entry, _ in executed]
            assert names == unit.commands[: len(names)], f"executed {names} of {unit}"
            assert len(names) == len(unit.commands) or not unit.replied, f"executed only {names} of {unit}"
            if executed:
                first, start = executed[0]
                assert by_link[first.link][start : start + len(names)] == names, f"not in one go on one link: {unit}"


def was_unsent(error: BaseException | None) -> bool:
    """Whether a call failed with the word that nothing of its request had left."""
    return isinstance(error, LinkError) and not error.request_sent
