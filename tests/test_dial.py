"""Dialling: which address is tried when, what becomes of the others, and how names are resolved."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from simulator import Instrument
from sockio._dial import STAGGER, Address, Race, lookup, resolve
from sockio._rules import Expired, earliest
from sockio._threads import Bell
from sockio.sio import TCP, drive
from tests.flavours import BOUND, eventually

Factory = Callable[..., Instrument]


def address(instrument: Instrument) -> Address:
    """Return what a resolver would tell of an instrument."""
    return socket.AF_INET, (instrument.host, instrument.port)


def nothing(_: socket.socket) -> None:
    """Configure nothing."""


class Runner:
    """Races, closed when the test ends, and the sockets that they return."""

    def __init__(self) -> None:
        self._closables: list[Any] = []

    def race(self, *addresses: Address, configure: Callable[[socket.socket], None] = nothing) -> Race:
        race = Race(list(addresses), configure)
        self._closables.append(race)
        return race

    def winner(self, race: Race, now: float = 0.0) -> socket.socket:
        """Step until there is a connected socket."""
        found: list[socket.socket] = []

        def step() -> bool:
            sock = race.step(now)
            if sock is not None:
                found.append(sock)
            return sock is not None

        eventually(step)
        self._closables += found
        return found[0]

    def close(self) -> None:
        for closable in self._closables:
            closable.close()


@pytest.fixture
def runner() -> Iterator[Runner]:
    runner = Runner()
    yield runner
    runner.close()


@pytest.fixture
def good(instrument_factory: Factory) -> Instrument:
    return instrument_factory()


@pytest.fixture
def black_hole(instrument_factory: Factory) -> Instrument:
    instrument = instrument_factory()
    instrument.hang()
    return instrument


@pytest.fixture
def closed(instrument_factory: Factory) -> Instrument:
    instrument = instrument_factory()
    instrument.refuse()
    return instrument


# earliest


def test_the_earliest_deadline_counts_and_none_never_passes() -> None:
    assert earliest() is None
    assert earliest(None, None) is None
    assert earliest(None, 2.0, 1.0) == 1.0


# Race


def test_the_first_address_that_connects_wins(runner: Runner, good: Instrument, closed: Instrument) -> None:
    race = runner.race(address(good), address(closed))
    assert runner.winner(race).getpeername() == (good.host, good.port)
    assert race.connecting == []


def test_the_next_address_starts_only_when_the_one_before_is_late(
    runner: Runner, good: Instrument, black_hole: Instrument
) -> None:
    race = runner.race(address(black_hole), address(good))
    starts = [race.next_start]
    for now in (100.0, 100.0 + STAGGER / 2):
        assert race.step(now) is None
        assert len(race.connecting) == 1
        starts.append(race.next_start)
    assert runner.winner(race, 100.0 + STAGGER).getpeername() == (good.host, good.port)
    assert [*starts, race.next_start] == [0.0, 100.0 + STAGGER, 100.0 + STAGGER, None]
    assert len(race.connecting) == 1


def test_the_next_address_starts_at_once_when_the_one_before_failed(
    runner: Runner, good: Instrument, closed: Instrument
) -> None:
    race = runner.race(address(closed), address(closed), address(good))
    assert runner.winner(race, 100.0).getpeername() == (good.host, good.port)


def test_when_every_address_failed_the_error_names_the_reasons_once(runner: Runner, closed: Instrument) -> None:
    race = runner.race(address(closed), address(closed))
    with pytest.raises(ConnectionRefusedError) as caught:
        runner.winner(race)
    assert caught.value.errno == errno.ECONNREFUSED
    assert str(caught.value).count("refused") == 1
    assert race.connecting == []


def test_an_address_of_a_family_that_the_host_lacks_is_a_failure_like_another(runner: Runner, good: Instrument) -> None:
    race = runner.race((socket.AF_APPLETALK, (1, 1)), address(good))
    assert runner.winner(race).getpeername() == (good.host, good.port)


def test_an_option_that_the_system_refuses_is_a_failure_like_another(runner: Runner, good: Instrument) -> None:
    made: list[socket.socket] = []

    def configure(sock: socket.socket) -> None:
        made.append(sock)
        raise OSError(errno.EINVAL, "Invalid argument")

    race = runner.race(address(good), configure=configure)
    with pytest.raises(OSError, match="Invalid argument"):
        race.step(0.0)
    assert [sock.fileno() for sock in made] == [-1]


def test_the_sockets_are_configured_before_they_connect(runner: Runner, good: Instrument) -> None:
    connected: list[bool] = []

    def configure(sock: socket.socket) -> None:
        try:
            sock.getpeername()
        except OSError:
            connected.append(False)

    runner.winner(runner.race(address(good), configure=configure))
    assert connected == [False]


def test_giving_up_closes_every_attempt(runner: Runner, black_hole: Instrument) -> None:
    race = runner.race(address(black_hole), address(black_hole))
    race.step(0.0)
    race.step(STAGGER)
    attempts = list(race.connecting)
    assert len(attempts) == 2
    race.close()
    assert [sock.fileno() for sock in attempts] == [-1, -1]


def test_a_socket_that_reached_itself_is_refused(runner: Runner) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        itself = probe.getsockname()

    def configure(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(itself)

    with pytest.raises(ConnectionRefusedError):
        runner.winner(runner.race((socket.AF_INET, itself), configure=configure))


# lookup and resolve


def test_families_alternate_beginning_with_the_systems_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    v4, v6 = socket.AF_INET, socket.AF_INET6

    def getaddrinfo(*_: Any, **__: Any) -> Any:
        return [(family, 1, 6, "", (name, 1)) for family, name in ((v6, "a"), (v6, "b"), (v6, "c"), (v4, "d"))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert lookup("host", 1) == [(v6, ("a", 1)), (v4, ("d", 1)), (v6, ("b", 1)), (v6, ("c", 1))]


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell()
    yield bell
    bell.close()


def test_an_address_is_resolved_without_a_thread(instrument: Instrument, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def find(host: str, port: int, flags: int = 0) -> list[Address]:
        threads.append(threading.current_thread())
        return lookup(host, port, flags)

    tcp = TCP(instrument.host, instrument.port)
    monkeypatch.setattr(tcp, "_lookup", find)
    with tcp:
        pass
    assert threads == [threading.current_thread()]


class Finder:
    """Stands in for ``lookup``: knows one name, on a daemon thread, when the test says so."""

    def __init__(self, answer: list[Address] | BaseException) -> None:
        self.answer = answer
        self.may_answer = threading.Event()
        self.thread: threading.Thread | None = None

    def __call__(self, host: str, port: int, flags: int = 0) -> list[Address]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not an address")
        self.thread = threading.current_thread()
        assert self.may_answer.wait(BOUND)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def test_a_name_is_resolved_on_a_daemon_thread(bell: Bell) -> None:
    finder = Finder([(socket.AF_INET, ("127.0.0.1", 1))])
    finder.may_answer.set()
    assert drive(resolve(finder, "host", 1, bell, time.monotonic() + BOUND)) == finder.answer
    assert finder.thread is not None
    assert finder.thread.daemon
    assert finder.thread is not threading.current_thread()


@pytest.mark.parametrize("error", [socket.gaierror(socket.EAI_AGAIN, "try again"), UnicodeError("label too long")])
def test_the_error_of_the_resolver_is_raised(bell: Bell, error: Exception) -> None:
    finder = Finder(error)
    finder.may_answer.set()
    with pytest.raises(type(error)) as caught:
        drive(resolve(finder, "host", 1, bell, None))
    assert caught.value is error


def test_a_resolver_that_is_late_is_not_waited_for(bell: Bell) -> None:
    finder = Finder([])
    with pytest.raises(Expired):
        drive(resolve(finder, "host", 1, bell, time.monotonic() + 0.02))
    assert finder.thread is not None
    assert finder.thread.is_alive()
    finder.may_answer.set()
    finder.thread.join(BOUND)


def test_a_ring_by_somebody_else_ends_the_wait(bell: Bell) -> None:
    finder = Finder([])
    bell.ring()
    assert drive(resolve(finder, "host", 1, bell, None)) is None
    finder.may_answer.set()
    eventually(lambda: finder.thread is not None)
    assert finder.thread is not None
    finder.thread.join(BOUND)


def test_an_address_that_the_system_refuses_at_once_is_an_error() -> None:
    race = Race([(socket.AF_INET, ("255.255.255.255", 1))], lambda _: None)
    with pytest.raises(OSError, match=r"255\.255\.255\.255"):
        race.step(0.0)
    assert race.connecting == []
