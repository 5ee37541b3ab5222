"""A storm: users who share objects and do what comes to their minds, while the far end suffers every fault there is.

Two instruments, because two things can't be told apart on one. ``Parrot`` answers each request with its own text, so
that a reply to the wrong caller shows. It never says anything late or unasked that a client can't see before its next
request: bytes that are still under way then would pass for the answer, and no client could know (contract Q4). So
``Duplicate`` and ``Prefix`` come in one piece with the reply, whole lines only, and only for requests of one line,
whose leftovers the next request finds; for these alone a reply is ``Late``, as it would come after those of the other
lines. A caller may get such a ``PREFIX`` in place of its reply, and a plain read what
was left over; nobody may ever get another request's reply.

``Crier`` takes no requests and cries numbered notes, also half ones before a link ends: what is read from it must be
whole notes, each at most once an object, in order for each reader, never one half joined to another.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections.abc import Callable
from itertools import count, islice
from typing import Any

from simulator import Cut, Delay, Drip, Duplicate, Fault, Instrument, Late, Prefix, Reset, Silence, Split
from sockio.common import LimitOverrunError, LinkError, Retry
from tests.chaos.journal import Journal, Unit, was_unsent
from tests.flavours import BOUND, Flavour, Script, Sock

PREFIX = b"nobody asked for this\n"
NOTE = re.compile(rb"<\d{8}>\n")
NOTE_SIZE = 11
#: Seconds that a call may last beyond its timeout, on the busiest machine.
GRACE = 20.0

Action = Callable[[], None]


class Parrot:
    """Answers ``ECHO? text`` with the text, and every other message with silence."""

    def execute(self, message: bytes) -> bytes | None:
        """Execute one message."""
        head, _, text = message.partition(b" ")
        return text if head == b"ECHO?" else None


class User:
    """Somebody who uses an object, one action after the other.

    Args:
        flavour: of the object
        sock: the object
        journal: where to write down what was asked for
        seed: of the actions
    """

    def __init__(self, flavour: Flavour, sock: Sock, journal: Journal, seed: str) -> None:
        self.flavour = flavour
        self.sock = sock
        self.journal = journal
        self.random = random.Random(seed)

    def actions(self) -> list[tuple[int, Action]]:
        """What this user may do, each with its weight."""
        return [(2, self.close), (2, self.open), (4, self.look)]

    def live(self, steps: int) -> None:
        """Do that many actions."""
        weights, actions = zip(*self.actions(), strict=True)
        for action in self.random.choices(actions, weights, k=steps):
            action()

    def call(self, name: str, *args: Any, **options: Any) -> tuple[Any, BaseException | None]:
        """Do a call with a timeout by chance, cancelled by chance; return its result, or its error."""
        timeout = self.random.choice((0.0, 0.02, 0.05, 0.2, 0.5))
        patience = self.random.uniform(0, 0.05) if self.flavour.cancels and self.random.random() < 0.15 else None
        began = time.monotonic()
        running = self.sock.start(name, *args, timeout=timeout, **options)
        if patience is not None:
            time.sleep(patience)
            running.cancel()
        try:
            return running.result(BOUND), None
        except asyncio.CancelledError as exc:
            assert patience is not None, "a call was cancelled that nobody had cancelled"
            return None, exc
        except OSError as exc:
            check_error(exc, self.sock)
            return None, exc
        finally:
            assert time.monotonic() - began < timeout + GRACE, f"{name} took much longer than its {timeout} s"

    def close(self) -> None:
        self.sock.close()

    def open(self) -> None:
        self.call("open")

    def look(self) -> None:
        assert self.sock.in_waiting() >= 0
        assert self.sock.connected() in (True, False)
        assert self.sock.at_eof() in (True, False)
        assert str(self.sock.port) in repr(self.sock.raw)


class Asker(User):
    """A user of ``Parrot``."""

    def actions(self) -> list[tuple[int, Action]]:
        ours: list[tuple[int, Action]] = [
            (30, self.ask),
            (5, self.ask_again),
            (8, self.ask_together),
            (8, self.ask_for_lines),
            (8, self.transact),
            (10, self.say),
            (1, self.flood),
            (8, self.overhear),
            (2, self.reset),
        ]
        return super().actions() + ours

    def ask(self) -> None:
        unit = self.journal.unit(b"ECHO?", b"one")
        self.request(unit, "write_readline", joined(unit))

    def ask_again(self) -> None:
        unit = self.journal.unit(b"ECHO?", b"one", repeatable=True)
        self.request(unit, "write_readline", joined(unit), idempotent=True)

    def ask_together(self) -> None:
        units = [self.journal.unit(b"ECHO?", b"one") for _ in range(self.random.randrange(2, 6))]
        calls = [self.sock.start("write_readline", joined(unit)) for unit in units]
        for unit, call in zip(units, calls, strict=True):
            try:
                check_reply(unit, call.result(BOUND))
            except OSError as exc:
                check_error(exc, self.sock)
                unit.unsent = was_unsent(exc)

    def ask_for_lines(self) -> None:
        unit = self.journal.unit(b"ECHO?", b"many", self.random.randrange(2, 5))
        if self.random.random() < 0.5:
            self.request(unit, "writelines_readlines", [command + b"\n" for command in unit.commands])
        else:
            self.request(unit, "write_readlines", joined(unit), len(unit.commands))

    def request(self, unit: Unit, name: str, *args: Any, **options: Any) -> None:
        reply, error = self.call(name, *args, **options)
        unit.unsent = was_unsent(error)
        if error is None:
            check_reply(unit, *(reply if isinstance(reply, list) else [reply]))

    def transact(self) -> None:
        unit = self.journal.unit(b"ECHO?", b"many", self.random.randrange(1, 4))

        def body() -> Script:
            for command in unit.commands:
                reply = yield self.sock.raw.write_readline(command + b"\n", timeout=0.2)
                assert reply == reply_to(command)
            unit.replied = True

        running = self.flavour.start(self.sock.transaction, body)
        try:
            running.result(BOUND)
        except OSError as exc:
            check_error(exc, self.sock)

    def say(self) -> None:
        unit = self.journal.unit(b"SAY", b"some", self.random.randrange(1, 3))
        _, error = self.call("writelines", [command + b"\n" for command in unit.commands])
        unit.unsent = was_unsent(error)

    def flood(self) -> None:
        unit = self.journal.unit(b"SAY", b"flood", 80, tail=b"." * 60_000)
        _, error = self.call("write", joined(unit))
        unit.unsent = was_unsent(error)

    def overhear(self) -> None:
        line, error = self.call("readline")
        if error is None:
            assert line == PREFIX or re.fullmatch(rb"one-\d+-0\n", line), f"a plain read got {line!r}"

    def reset(self) -> None:
        self.sock.reset_input_buffer()


class Listener(User):
    """A user of ``Crier``.

    Args:
        heard: the notes that the object's users have read
    """

    def __init__(self, flavour: Flavour, sock: Sock, journal: Journal, seed: str, heard: list[bytes]) -> None:
        super().__init__(flavour, sock, journal, seed)
        self.heard = heard
        self.last = b""

    def actions(self) -> list[tuple[int, Action]]:
        ours: list[tuple[int, Action]] = [
            (10, lambda: self.read("readline")),
            (5, lambda: self.read("readuntil", b"\n")),
            (5, lambda: self.read("readexactly", NOTE_SIZE)),
            (5, lambda: self.read("readexactly", 2 * NOTE_SIZE)),
            (5, lambda: self.read("readlines", 2)),
            (15, lambda: self.follow(self.sock.line_stream)),
            (5, lambda: self.follow(self.sock.block_stream, NOTE_SIZE)),
            (5, lambda: self.follow(self.sock.block_stream, b"\n")),
            (10, self.say),
        ]
        return super().actions() + ours

    def read(self, name: str, *args: Any) -> None:
        result, error = self.call(name, *args)
        if error is None:
            self.hear(b"".join(result) if isinstance(result, list) else result)

    def follow(self, stream: Callable[..., Any], *args: Any) -> None:
        reconnect = self.random.random() < 0.5
        lines = stream(*args, timeout=self.random.choice((0.02, 0.1)), reconnect=reconnect)
        try:
            for line in islice(lines, self.random.randrange(1, 20)):
                self.hear(line)
        except OSError as exc:
            check_error(exc, self.sock)

    def hear(self, text: bytes) -> None:
        notes = NOTE.findall(text)
        assert b"".join(notes) == text, f"not whole notes: {text!r}"
        for note in notes:
            assert note > self.last, f"{note!r} came after {self.last!r}"
            self.last = note
        self.heard.extend(notes)

    def say(self) -> None:
        unit = self.journal.unit(b"SAY", b"some", self.random.randrange(1, 3))
        _, error = self.call("writelines", [command + b"\n" for command in unit.commands])
        unit.unsent = was_unsent(error)


class Weather:
    """What the far ends suffer, until all is over.

    Args:
        parrot, crier: the instruments
        seed: of the faults
    """

    def __init__(self, parrot: Instrument, crier: Instrument, seed: str) -> None:
        self.parrot = parrot
        self.crier = crier
        self.random = random.Random(seed)
        self._notes = count()

    def rage(self, over: threading.Event) -> None:
        """Strike, again and again."""
        while not over.wait(self.random.uniform(0, 0.02)):
            for _ in range(self.random.randrange(10)):
                self.crier.send(self.note())
            choice = self.random.random()
            if choice < 0.5:
                self.order()
            elif choice < 0.75:
                self.strike(self.random.choice((self.parrot, self.crier)), over)
            elif choice < 0.8:
                self.crier.send(self.note()[: self.random.randrange(1, NOTE_SIZE)])
                self.random.choice((self.crier.drop, self.crier.reset))()

    def note(self) -> bytes:
        return b"<%08d>\n" % next(self._notes)

    def order(self) -> None:
        some = self.random.randrange(12)
        pause = self.random.uniform(0, 0.15)
        if self.random.random() < 0.3:
            anomaly: Fault = self.random.choice((Duplicate(), Prefix(PREFIX), Late(pause)))
            self.parrot.inject(anomaly, command=b"ECHO? one")
        else:
            faults: list[Fault] = [Cut(some), Reset(some), Split(some), Drip(pause / 30), Delay(pause), Silence()]
            self.parrot.inject(self.random.choice(faults))

    def strike(self, instrument: Instrument, over: threading.Event) -> None:
        pause = self.random.uniform(0, 0.1)
        strike = self.random.choice(("drop", "reset", "restart", "refuse", "stop", "turn away", "pause"))
        if strike in ("drop", "reset", "restart"):
            getattr(instrument, strike)()
        elif strike == "turn away":
            turn_away = self.random.choice((instrument.drop_on_accept, instrument.reset_on_accept))
            turn_away(self.random.randrange(1, 3))
        else:
            begin, end = {
                "refuse": (instrument.refuse, instrument.accept),
                "stop": (instrument.stop, instrument.start),
                "pause": (instrument.pause_reading, instrument.resume_reading),
            }[strike]
            begin()
            over.wait(pause)
            end()


def some_object(flavour: Flavour, instrument: Instrument, chance: random.Random, **options: Any) -> Sock:
    """Make an object with options by chance."""
    return flavour.tcp(
        instrument.host,
        instrument.port,
        timeout=0.5,
        auto_reconnect=chance.random() < 0.8,
        connection_timeout=chance.choice((None, 0.2)),
        retry=chance.choice((None, Retry(attempts=3, delay=0.01), Retry(attempts=None, delay=0.01))),
        **options,
    )


def greet(sock: Sock, journal: Journal) -> Script:
    """What ``on_connection_made`` does: a request on the same object."""
    unit = journal.unit(b"ECHO?", b"hello")
    reply = yield sock.raw.write_readline(joined(unit))
    check_reply(unit, reply)


def joined(unit: Unit) -> bytes:
    """Return the unit as one request."""
    return b"".join(command + b"\n" for command in unit.commands)


def reply_to(command: bytes) -> bytes:
    """Return what ``Parrot`` answers."""
    return command.partition(b" ")[2] + b"\n"


def check_reply(unit: Unit, *lines: bytes) -> None:
    """Note that the unit was answered; the lines must be its own, or what a fault sent in place of one line."""
    unit.replied = True
    if lines != (PREFIX,):
        assert list(lines) == [reply_to(command) for command in unit.commands], f"{unit} got {lines}"


def check_error(error: OSError, sock: Sock) -> None:
    """A call may fail only in the ways that the contract knows (X1), and says who and what (X2)."""
    assert not isinstance(error, LimitOverrunError)
    assert isinstance(error, LinkError) or error.errno is not None
    assert isinstance(error, (ConnectionError, TimeoutError)), f"{error!r}"
    assert f"{sock.host}:{sock.port}" in str(error), f"{error!r}"
