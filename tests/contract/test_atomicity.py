"""Chapter A of the contract: atomicity."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from simulator import Instrument
from simulator.faults import Cut, Delay, Drip, Fault, Late, Reset, Silence, Split
from sockio.common import (
    ConnectionClosedError,
    ConnectionEOFError,
    ConnectionLostError,
    ConnectionTimeoutError,
    LinkError,
)
from tests.calls import callers
from tests.clauses import clause, flavours
from tests.flavours import FLAVOURS, Aio, EndOfStream, Flavour, Running, Script, Sock, eventually
from tests.peers import Held, Names, Peer, received

#: For calls that must come to an end by themselves, but for a defect.
GENEROUS = 30.0


def busy(sock: Sock, instrument: Instrument) -> Running:
    """Start a request, and wait until the instrument has executed it."""
    running = sock.start("write_readline", b"DELAY? 0\n")
    executed(instrument, b"DELAY? 0")
    return running


def executed(instrument: Instrument, command: bytes) -> None:
    """Wait until the instrument has executed a command."""
    instrument.ledger.wait(lambda ledger: ledger.count(command))


def queue_up(sock: Sock, *requests: bytes, timeout: float | None = GENEROUS) -> list[Running]:
    """Start requests one after another, each when the one before stands in the queue."""
    started: list[Running] = []
    for request in requests:
        length = callers(sock)
        started.append(sock.start("write_readline", request + b"\n", timeout=timeout))
        eventually(lambda length=length: callers(sock) > length)  # type: ignore[misc]
    return started


def slow_name(names: Names, instrument: Instrument) -> str:
    """Return a name of the instrument that is not resolved before ``names.answering`` is set."""
    names["dmm.test"] = [(instrument.host, instrument.port)]
    names.answering.clear()
    return "dmm.test"


def give_up(flavour: Flavour, sock: Sock, how: str, name: str, *args: Any, until: Callable[[], object]) -> None:
    """Start a call, and let it time out, or cancel it when ``until()`` is true."""
    if how == "timeout":
        with pytest.raises(ConnectionTimeoutError):
            getattr(sock, name)(*args, timeout=0.05)
        return
    if not flavour.cancels:
        pytest.skip("this flavour has no cancellation")
    running = sock.start(name, *args)
    eventually(until)
    running.cancel()
    assert isinstance(running.error(), asyncio.CancelledError)


def is_reading(sock: Sock) -> bool:
    """Whether a call has its turn to read, and found less than it needs."""
    link = sock.raw._link
    return link is not None and callers(sock) > 0 and not link.idle


each_way_to_give_up = pytest.mark.parametrize("how", ["timeout", "cancel"])


# -- A1


@clause("A1")
@pytest.mark.parametrize("seed", range(2))
def test_everybody_gets_the_reply_to_the_own_request_under_any_fault(
    flavour: Flavour, instrument: Instrument, seed: int
) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    sock = flavour.tcp(instrument.host, instrument.port)
    faults: list[Callable[[], Fault]] = [
        lambda: Split(chance.randrange(6)),
        lambda: Delay(chance.random() / 50),
        lambda: Drip(0.001),
        lambda: Late(chance.random() / 50),
        lambda: Cut(chance.randrange(6)),
        lambda: Reset(chance.randrange(6)),
        Silence,
    ]
    for _ in range(40):
        instrument.inject(chance.choice(faults)())

    def user(name: int) -> Script:
        for number in range(6):
            token = b"%d.%d" % (name, number)
            try:
                reply = yield sock.raw.write_readline(b"ECHO? " + token + b"\n", timeout=0.1)
            except LinkError:
                continue
            assert reply.startswith(token + b",")
            assert reply.endswith(b"\n")

    users = [flavour.start(user, name) for name in range(10)]
    for running in users:
        running.result()
    commands = instrument.ledger.commands
    assert len(commands) == len(set(commands))
    instrument.heal()
    assert sock.write_readline(b"ECHO? after all\n", timeout=GENEROUS).startswith(b"after all,")


@clause("A1")
def test_requests_are_served_in_the_order_of_their_arrival(
    flavour: Flavour, instrument: Instrument, held: Held
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    first = busy(sock, instrument)
    requests = [b"ECHO? %d" % number for number in range(20)]
    waiting = queue_up(sock, *requests)
    held.go()
    for number, running in enumerate(waiting):
        assert running.result() == b"%d,%d\n" % (number, number + 1)
    assert first.result() == b"0\n"
    assert instrument.ledger.commands[1:] == requests


@clause("A1")
def test_the_owner_of_the_turn_does_not_overtake_those_who_wait(
    flavour: Flavour, instrument: Instrument, held: Held
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()

    def owner() -> Script:
        yield sock.raw.write_readline(b"DELAY? 0\n")
        for number in range(5):
            yield sock.raw.write_readline(b"ECHO? owner %d\n" % number)

    owning = flavour.start(owner)
    executed(instrument, b"DELAY? 0")
    waiting = queue_up(sock, b"ECHO? a", b"ECHO? b")
    held.go()
    owning.result()
    assert [running.result() for running in waiting] == [b"a,1\n", b"b,2\n"]
    assert instrument.ledger.commands[1:4] == [b"ECHO? a", b"ECHO? b", b"ECHO? owner 0"]


@clause("A1")
def test_those_who_wait_for_the_same_connection_are_served_in_the_order_of_their_arrival(
    flavour: Flavour, instrument: Instrument, names: Names
) -> None:
    sock = flavour.tcp(slow_name(names, instrument), instrument.port)
    asking: list[Running] = []
    requests = [b"ECHO? %d" % number for number in range(8)]
    for length, request in enumerate(requests, start=1):
        asking.append(sock.start("write_readline", request + b"\n", timeout=GENEROUS))
        eventually(lambda length=length: callers(sock) == length)  # type: ignore[misc]
    names.answering.set()
    for running in asking:
        running.result()
    assert instrument.ledger.commands == requests
    assert instrument.ledger.links == [1]


@clause("A1", "C4")
def test_a_call_joins_an_open_that_is_under_way(flavour: Flavour, instrument: Instrument, names: Names) -> None:
    sock = flavour.tcp(slow_name(names, instrument), instrument.port)
    opening = sock.start("open")
    eventually(lambda: callers(sock) == 1)
    asking = sock.start("write_readline", b"ECHO? a\n", timeout=GENEROUS)
    eventually(lambda: callers(sock) == 2)
    names.answering.set()
    opening.result()
    assert asking.result() == b"a,1\n"
    assert instrument.ledger.links == [1]


@clause("A1")
def test_nobody_is_overtaken_because_the_object_was_connecting(
    flavour: Flavour, instrument: Instrument, names: Names, held: Held
) -> None:
    sock = flavour.tcp(slow_name(names, instrument), instrument.port)
    asking: list[Running] = []
    for length, request in enumerate([b"DELAY? 0\n", b"ECHO? a\n", b"ECHO? b\n"], start=1):
        asking.append(sock.start("write_readline", request, timeout=GENEROUS))
        eventually(lambda length=length: callers(sock) == length)  # type: ignore[misc]
    names.answering.set()
    executed(instrument, b"DELAY? 0")
    asking += queue_up(sock, b"ECHO? late")
    held.go()
    for running in asking:
        running.result()
    assert instrument.ledger.commands[1:] == [b"ECHO? a", b"ECHO? b", b"ECHO? late"]


@clause("A1")
def test_nobody_is_overtaken_because_the_link_was_lost(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    cut, held = Held(Cut(0)), Held()
    instrument.inject(cut)
    instrument.inject(held)
    first = busy(sock, instrument)
    waiting = queue_up(sock, b"ECHO? a", b"ECHO? b", b"ECHO? c")
    cut.go()
    assert isinstance(first.error(), ConnectionEOFError)
    executed(instrument, b"ECHO? a")
    waiting += queue_up(sock, b"ECHO? late")
    held.go()
    for running in waiting:
        running.result()
    assert instrument.ledger.commands[1:] == [b"ECHO? a", b"ECHO? b", b"ECHO? c", b"ECHO? late"]
    assert instrument.ledger.links == [1, 2]


@clause("A1", "R4")
def test_nobody_is_overtaken_because_an_idempotent_request_is_sent_again(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port, timeout=GENEROUS)
    asking = [sock.start("write_readline", b"a\n", idempotent=True)]
    cut_off = peer.accept()
    assert received(cut_off, 2) == b"a\n"
    asking += queue_up(sock, b"b", b"c")
    cut_off.close()
    other_end = peer.accept()
    for request, running in zip((b"a\n", b"b\n", b"c\n"), asking, strict=True):
        assert received(other_end, 2) == request
        other_end.sendall(request)
        assert running.result() == request


# -- A2


@clause("A2")
@each_way_to_give_up
@pytest.mark.parametrize("stale_input", ["discard", "keep"])
def test_a_late_reply_is_never_taken_for_the_answer_to_a_later_request(
    flavour: Flavour, instrument: Instrument, how: str, stale_input: str
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, stale_input=stale_input)
    sock.open()
    instrument.inject(Late(0.2))
    give_up(
        flavour, sock, how, "write_readline", b"ECHO? old\n", until=lambda: instrument.ledger.count(b"ECHO? old") == 1
    )
    for _ in range(30):
        assert sock.write_readline(b"ECHO? new\n", timeout=GENEROUS).startswith(b"new,")
    assert instrument.ledger.links == [1, 2]
    instrument.ledger.wait(lambda ledger: ledger.open_links == [2])


@clause("A2")
@each_way_to_give_up
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("write_read", (b"ECHO? old\n",)),
        ("write_readlines", (b"ECHO? old\n", 2)),
        ("writelines_readlines", ([b"ECHO? old\n"], 2)),
    ],
)
def test_half_a_reply_is_never_taken_for_the_answer_to_a_later_request(
    flavour: Flavour, instrument: Instrument, how: str, name: str, args: tuple[Any, ...]
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    give_up(flavour, sock, how, name, *args, until=lambda: sock.raw._link.waiting())
    assert not sock.connected()
    assert sock.write_readline(b"ECHO? new\n", timeout=GENEROUS).startswith(b"new,")
    assert instrument.ledger.links == [1, 2]


@clause("A2", "R3")
@each_way_to_give_up
def test_half_a_request_is_never_completed_by_a_later_one(flavour: Flavour, peer: Peer, how: str) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    link = peer.accept()
    give_up(flavour, sock, how, "write", bytes(2**25), until=lambda: sock.raw._link.writing)
    asking = sock.start("write_readline", b"ECHO? new\n", timeout=GENEROUS)
    second = peer.accept()
    assert received(second, 10) == b"ECHO? new\n"
    second.sendall(b"new,1\n")
    assert asking.result() == b"new,1\n"
    assert link.fileno() > 0


# -- A3


@clause("A3")
@each_way_to_give_up
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("write_readline", (b"ECHO? never\n",)),
        ("write", (b"ECHO? never\n",)),
        ("readline", ()),
    ],
)
def test_who_gives_up_waiting_for_a_turn_disturbs_nobody(
    flavour: Flavour, instrument: Instrument, held: Held, how: str, name: str, args: tuple[Any, ...]
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    first = busy(sock, instrument)
    before = queue_up(sock, b"ECHO? before")
    give_up(flavour, sock, how, name, *args, until=lambda: callers(sock) >= 3)
    after = queue_up(sock, b"ECHO? after")
    held.go()
    assert first.result() == b"0\n"
    assert before[0].result() == b"before,1\n"
    assert after[0].result() == b"after,2\n"
    assert instrument.ledger.commands == [b"DELAY? 0", b"ECHO? before", b"ECHO? after"]
    assert instrument.ledger.links == [1]


@clause("A3")
def test_who_stands_behind_one_that_gave_up_still_waits(flavour: Flavour, instrument: Instrument, held: Held) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    first = busy(sock, instrument)
    (gone,) = queue_up(sock, b"ECHO? gone", timeout=0.5)
    behind = sock.start("write_readline", b"ECHO? behind\n", timeout=GENEROUS)
    eventually(lambda: callers(sock) == 3 or gone.done())
    assert isinstance(gone.error(), ConnectionTimeoutError)
    assert not behind.done()
    assert not first.done()
    held.go()
    assert first.result() == b"0\n"
    assert behind.result() == b"behind,1\n"
    assert instrument.ledger.commands == [b"DELAY? 0", b"ECHO? behind"]


@clause("A3", "A6")
@each_way_to_give_up
def test_who_gives_up_waiting_for_a_transaction_disturbs_nobody(
    flavour: Flavour, instrument: Instrument, held: Held, how: str
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)

    def body() -> Script:
        yield sock.raw.write_readline(b"DELAY? 0\n")
        return (yield sock.raw.write_readline(b"ECHO? mine\n"))

    inside = flavour.start(sock.transaction, body)
    executed(instrument, b"DELAY? 0")
    give_up(flavour, sock, how, "write_readline", b"ECHO? never\n", until=lambda: callers(sock) == 2)
    held.go()
    assert inside.result() == b"mine,1\n"
    assert instrument.ledger.commands == [b"DELAY? 0", b"ECHO? mine"]
    assert instrument.ledger.links == [1]


@clause("A3", "T1")
@each_way_to_give_up
def test_who_gives_up_connecting_leaves_it_to_those_who_wait(
    flavour: Flavour, instrument: Instrument, names: Names, how: str
) -> None:
    sock = flavour.tcp(slow_name(names, instrument), instrument.port)
    waiting: list[Running] = []

    def joined() -> bool:
        if not waiting and callers(sock) == 1:
            waiting.append(sock.start("write_readline", b"ECHO? a\n", timeout=GENEROUS))
        return callers(sock) == 2

    give_up(flavour, sock, how, "write_readline", b"ECHO? never\n", until=joined)
    names.answering.set()
    if not waiting:
        waiting.append(sock.start("write_readline", b"ECHO? a\n", timeout=GENEROUS))
    assert waiting[0].result() == b"a,1\n"
    assert instrument.ledger.commands == [b"ECHO? a"]


# -- A4


@clause("A4")
def test_replies_that_come_while_the_request_is_still_going_out_wait_for_it(flavour: Flavour, peer: Peer) -> None:
    lines = [b"%099d\n" % number for number in range(8000)]
    asking = flavour.tcp(peer.host, peer.port).start("writelines_readlines", lines)
    other_end = peer.accept()
    for line in lines:
        other_end.sendall(received(other_end, len(line)))
    assert asking.result() == lines


@clause("A4")
@pytest.mark.parametrize("name", ["writelines_readlines", "write_readlines"])
def test_several_lines_are_one_atomic_request(flavour: Flavour, instrument: Instrument, name: str) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    instrument.inject(Split(2, 0.001), count=30)

    def user(who: int) -> Script:
        for number in range(3):
            lines = [b"ECHO? %d.%d.%d\n" % (who, number, line) for line in range(3)]
            if name == "writelines_readlines":
                replies = yield sock.raw.writelines_readlines(lines)
            else:
                replies = yield sock.raw.write_readlines(b"".join(lines), 3)
            assert [reply.split(b",")[0] for reply in replies] == [line[6:-1] for line in lines]

    for running in [flavour.start(user, number) for number in range(6)]:
        running.result()
    commands = instrument.ledger.commands
    assert len(commands) == 54
    for begin in range(0, len(commands), 3):
        whose, number, _ = commands[begin].split(b".")
        assert commands[begin : begin + 3] == [b"%s.%s.%d" % (whose, number, line) for line in range(3)]


@clause("A4", "L4")
def test_several_written_lines_are_one_atomic_request(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)

    def user(who: int) -> Script:
        yield sock.raw.writelines([b"ECHO? %d.%d\n" % (who, line) for line in range(5)])

    for running in [flavour.start(user, number) for number in range(6)]:
        running.result()
    instrument.ledger.wait(lambda ledger: len(ledger.commands) == 30)
    commands = instrument.ledger.commands
    for begin in range(0, 30, 5):
        whose = commands[begin].split(b".")[0]
        assert commands[begin : begin + 5] == [b"%s.%d" % (whose, line) for line in range(5)]


@clause("A4", "A2")
def test_several_replies_come_all_or_none(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    instrument.inject(Silence(), command=b"ECHO? second")
    with pytest.raises(ConnectionTimeoutError):
        sock.writelines_readlines([b"ECHO? first\n", b"ECHO? second\n"], timeout=0.1)
    assert sock.write_readline(b"ECHO? third\n", timeout=GENEROUS).startswith(b"third,")


# -- A5


@clause("A5")
@pytest.mark.parametrize("reading", ["readline", "read", "readlines", "stream"])
def test_a_write_goes_through_while_somebody_reads(flavour: Flavour, instrument: Instrument, reading: str) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    if reading == "stream":
        stream = sock.flavour.call(flavour.stream_of, sock.raw)
        reader = flavour.start(flavour.step, stream)
    else:
        reader = sock.start(reading, *{"read": (100,), "readlines": (1,)}.get(reading, ()))
    eventually(lambda: is_reading(sock))
    assert not reader.done()
    sock.write(b"ECHO? a\n", timeout=GENEROUS)
    assert reader.result() in (b"a,1\n", [b"a,1\n"])
    assert instrument.ledger.links == [1]


@clause("A5")
def test_many_writes_go_through_while_somebody_reads(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()

    def reader() -> Script:
        return (yield sock.raw.readlines(100, timeout=GENEROUS))

    reading = flavour.start(reader)
    eventually(lambda: is_reading(sock))
    for number in range(100):
        sock.write(b"ECHO? %d\n" % number, timeout=GENEROUS)
    assert reading.result() == [b"%d,%d\n" % (number, number + 1) for number in range(100)]


@clause("A5")
def test_a_write_goes_through_while_the_reader_was_the_one_to_connect(
    flavour: Flavour, instrument: Instrument, names: Names
) -> None:
    sock = flavour.tcp(slow_name(names, instrument), instrument.port)
    reader = sock.start("readline", timeout=GENEROUS)
    eventually(lambda: callers(sock) == 1)
    writer = sock.start("write", b"ECHO? a\n", timeout=GENEROUS)
    eventually(lambda: callers(sock) == 2)
    names.answering.set()
    writer.result()
    assert reader.result() == b"a,1\n"
    assert instrument.ledger.links == [1]


@clause("A5", "A6")
def test_a_write_waits_for_the_end_of_a_transaction(flavour: Flavour, instrument: Instrument, held: Held) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)

    def body() -> Script:
        yield sock.raw.write_readline(b"DELAY? 0\n")
        yield sock.raw.write_readline(b"ECHO? inside\n")

    inside = flavour.start(sock.transaction, body)
    executed(instrument, b"DELAY? 0")
    outside = sock.start("write", b"ECHO? outside\n", timeout=GENEROUS)
    eventually(lambda: callers(sock) == 2)
    held.go()
    inside.result()
    outside.result()
    executed(instrument, b"ECHO? outside")
    assert instrument.ledger.commands[1:] == [b"ECHO? inside", b"ECHO? outside"]


@clause("A5")
@each_way_to_give_up
def test_a_write_that_fails_midway_drops_the_link_under_the_reader(flavour: Flavour, peer: Peer, how: str) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    peer.accept()
    reader = sock.start("readline")
    eventually(lambda: is_reading(sock))
    give_up(flavour, sock, how, "write", bytes(2**25), until=lambda: sock.raw._link.writing)
    assert isinstance(reader.error(), ConnectionLostError)
    assert not reader.error().request_sent  # type: ignore[attr-defined]
    assert not sock.connected()


# -- A6


@clause("A6")
def test_a_transaction_is_exclusive_for_all_kinds_of_calls(
    flavour: Flavour, instrument: Instrument, held: Held
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    ready: list[Any] = []

    def body() -> Script:
        ready.append((yield sock.raw.write_readline(b"DELAY? 0\n")))
        replies: list[bytes] = []
        for number in range(5):
            yield sock.raw.write(b"ECHO? inside %d\n" % number)
            replies.append((yield sock.raw.readline()))
        return replies

    inside = flavour.start(sock.transaction, body)
    executed(instrument, b"DELAY? 0")
    outside = queue_up(sock, b"ECHO? outside 1", b"ECHO? outside 2")
    second = flavour.start(sock.transaction, lambda: iter_of(sock.raw.write_readline(b"ECHO? outside 3\n")))
    eventually(lambda: callers(sock) == 4)
    held.go()
    assert inside.result() == [b"inside %d,%d\n" % (number, number + 1) for number in range(5)]
    assert [running.result() for running in outside] == [b"outside 1,6\n", b"outside 2,7\n"]
    assert second.result() == b"outside 3,8\n"
    assert instrument.ledger.links == [1]


def iter_of(call: Any) -> Script:
    return (yield call)


@clause("A6")
@flavours("aio")
def test_the_tasks_that_a_transaction_starts_are_inside_it(instrument: Instrument, held: Held) -> None:
    with Aio() as flavour:
        sock = flavour.tcp(instrument.host, instrument.port)

        async def inside() -> list[bytes]:
            async with sock.raw.transaction() as same:
                await same.write_readline(b"DELAY? 0\n")
                found = await asyncio.gather(*(same.write_readline(b"ECHO? %d\n" % n) for n in range(5)))
                found.append(await asyncio.wait_for(same.write_readline(b"ECHO? 5\n"), GENEROUS))
                return found

        running = flavour.start(inside)
        executed(instrument, b"DELAY? 0")
        outside = queue_up(sock, b"ECHO? outside")
        held.go()
        assert running.result() == [b"%d,%d\n" % (n, n + 1) for n in range(6)]
        assert outside[0].result() == b"outside,7\n"


@clause("A6")
@flavours("aio")
def test_a_task_that_outlives_its_transaction_is_outside(instrument: Instrument) -> None:
    with Aio() as flavour:
        sock = flavour.tcp(instrument.host, instrument.port)

        async def script() -> bytes:
            over = asyncio.Event()

            async def child() -> bytes:
                await over.wait()
                reply: bytes = await sock.raw.write_readline(b"ECHO? a\n")
                return reply

            async with sock.raw.transaction():
                task = asyncio.create_task(child())
                await sock.raw.write_readline(b"*IDN?\n")
            instrument.drop()
            over.set()
            return await task

        assert flavour.start(script).result() == b"a,1\n"
        assert instrument.ledger.links == [1, 2]


@clause("A6")
def test_transactions_nest_and_leave_other_objects_alone(
    flavour: Flavour, instrument: Instrument, instrument_factory: Callable[[], Instrument]
) -> None:
    other_instrument = instrument_factory()
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    other = flavour.tcp(other_instrument.host, other_instrument.port, timeout=GENEROUS)

    def inner() -> Script:
        yield sock.raw.write_readline(b"ECHO? inner\n")
        return (yield other.raw.write_readline(b"ECHO? other\n"))

    def outer() -> Script:
        reply = yield from sock.transaction(inner)
        assert reply == b"other,1\n"
        other_instrument.drop()
        yield other.raw.write_readline(b"ECHO? other\n")  # its link may be lost inside: it is in no transaction
        return (yield sock.raw.write_readline(b"ECHO? outer\n"))

    eventually_closed = flavour.start(sock.transaction, outer)
    assert eventually_closed.result() == b"outer,2\n"


REST: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("write_readline", (b"ECHO? rest\n",), {}),
    ("write_readline", (b"ECHO? rest\n",), {"idempotent": True}),
    ("write", (b"ECHO? rest\n",), {}),
    ("writelines_readlines", ([b"ECHO? rest\n"],), {}),
    ("readline", (), {}),
    ("read", (1,), {}),
    ("write_readline", (b"ECHO? rest\n",), {}),
]


@clause("A6")
@pytest.mark.parametrize("loss", ["drop", "reset", "cut", "timeout"])
def test_when_the_link_is_lost_inside_a_transaction_the_rest_of_it_raises(
    flavour: Flavour, instrument: Instrument, loss: str
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    errors: list[BaseException] = []

    def body() -> Script:
        yield sock.raw.write_readline(b"ECHO? begin\n")
        if loss in ("drop", "reset"):
            getattr(instrument, loss)()
            eventually(lambda: sock.raw._link is None or sock.raw._link.peer_gone())
        else:
            instrument.inject(Cut(0) if loss == "cut" else Silence())
            try:
                yield sock.raw.write_readline(b"*IDN?\n", timeout=0.1 if loss == "timeout" else GENEROUS)
            except LinkError as error:
                errors.append(error)
        for name, args, options in REST:
            try:
                yield getattr(sock.raw, name)(*args, timeout=GENEROUS, **options)
            except LinkError as error:
                errors.append(error)

    flavour.start(sock.transaction, body).result()
    assert len(errors) == len(REST) + (loss in ("cut", "timeout"))
    assert instrument.ledger.links == [1]
    assert instrument.ledger.count(b"ECHO? rest") == 0
    assert sock.write_readline(b"ECHO? after\n", timeout=GENEROUS) == b"after,2\n"
    assert instrument.ledger.links == [1, 2]


@clause("A6", "C2")
def test_when_the_object_is_closed_inside_a_transaction_the_rest_of_it_raises(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)

    def body() -> Script:
        yield sock.raw.write_readline(b"ECHO? begin\n")
        yield sock.raw.close()
        try:
            yield sock.raw.write_readline(b"ECHO? rest\n", timeout=GENEROUS)
        except ConnectionClosedError:
            return "raised"

    assert flavour.start(sock.transaction, body).result() == "raised"
    assert sock.write_readline(b"ECHO? after\n", timeout=GENEROUS) == b"after,2\n"


@clause("A6")
def test_a_transaction_that_fails_for_reasons_of_its_own_keeps_the_link(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)

    def body() -> Script:
        yield sock.raw.write_readline(b"ECHO? a\n")
        raise KeyError("own")

    assert isinstance(flavour.start(sock.transaction, body).error(), KeyError)
    assert sock.write_readline(b"ECHO? b\n", timeout=GENEROUS) == b"b,2\n"
    assert instrument.ledger.links == [1]


@clause("A6")
def test_transactions_of_several_objects_may_end_in_any_order(flavour: Flavour, instrument: Instrument) -> None:
    first, second = (flavour.tcp(instrument.host, instrument.port) for _ in range(2))

    def script() -> Script:
        managers = [sock.raw.transaction(timeout=GENEROUS) for sock in (first, second)]
        for manager in managers:
            yield flavour.enter(manager)
        yield flavour.leave(managers[0], None)
        reply = yield second.raw.write_readline(b"ECHO? a\n", timeout=GENEROUS)
        yield flavour.leave(managers[1], None)
        return reply, (yield first.raw.write_readline(b"ECHO? b\n", timeout=GENEROUS))

    assert flavour.start(script).result() == (b"a,1\n", b"b,2\n")


@clause("A6", "T1")
def test_a_transaction_waits_for_its_turn_no_longer_than_its_timeout(
    flavour: Flavour, instrument: Instrument, held: Held
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    first = busy(sock, instrument)
    error = flavour.start(sock.transaction, lambda: iter_of(sock.raw.write(b"x\n")), timeout=0.1).error()
    assert isinstance(error, ConnectionTimeoutError)
    assert not error.request_sent
    held.go()
    assert first.result() == b"0\n"


# -- A7


@clause("A7")
@each_way_to_give_up
@pytest.mark.parametrize(
    ("name", "args", "there"),
    [
        ("readline", (), b"half a "),
        ("readlines", (3,), b"one\ntwo\nthr"),
        ("readexactly", (20,), b"half a line"),
        ("readexactly", (2**20,), bytes(2**19)),
        ("readuntil", (b"\r\n",), b"half\na\nline\r"),
        ("read", (-1,), b"all but\nthe end"),
        ("read", (10,), b""),
    ],
)
def test_a_plain_read_that_gives_up_keeps_the_link_and_every_byte(
    flavour: Flavour, instrument: Instrument, how: str, name: str, args: tuple[Any, ...], there: bytes
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    if there:
        instrument.send(there)
    for _ in range(2):
        give_up(flavour, sock, how, name, *args, until=lambda: is_reading(sock) and sock.in_waiting() == len(there))
    assert sock.connected()
    instrument.send(b"rest\r\n")
    rest = there + b"rest\r\n"
    assert sock.readline(timeout=GENEROUS) == rest[: rest.index(b"\n") + 1]
    rest = rest[rest.index(b"\n") + 1 :]
    if rest:
        assert sock.readexactly(len(rest), timeout=GENEROUS) == rest
    assert sock.in_waiting() == 0
    assert instrument.ledger.links == [1]


@clause("A7")
@each_way_to_give_up
@pytest.mark.parametrize("size", [20, 2**20])
def test_an_exact_read_goes_on_where_it_stopped(flavour: Flavour, instrument: Instrument, how: str, size: int) -> None:
    data = random.Random(size).randbytes(size)
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    for begin in range(0, size, size // 4):
        instrument.send(data[begin : begin + size // 4])
        arrived = begin + size // 4
        if arrived < size:
            give_up(
                flavour,
                sock,
                how,
                "readexactly",
                size,
                until=lambda arrived=arrived: is_reading(sock) and sock.in_waiting() == arrived,  # type: ignore[misc]
            )
    assert sock.readexactly(size, timeout=GENEROUS) == data


@clause("A7")
def test_lines_that_some_reads_waited_for_in_vain_are_read_by_others(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    instrument.send(b"one\ntwo\nthree\nfour\nfi")
    for count in (9, 7, 8):
        with pytest.raises(ConnectionTimeoutError):
            sock.readlines(count, timeout=0.05)
    assert sock.readline(timeout=GENEROUS) == b"one\n"
    with pytest.raises(ConnectionTimeoutError):
        sock.readlines(4, timeout=0.05)
    assert sock.readlines(2, timeout=GENEROUS) == [b"two\n", b"three\n"]
    instrument.send(b"ve\n")
    assert sock.readlines(2, timeout=GENEROUS) == [b"four\n", b"five\n"]


@clause("A7")
@each_way_to_give_up
@pytest.mark.parametrize("kind", ["LineStream", "BlockStream"])
def test_a_step_of_a_stream_that_gives_up_keeps_the_link_and_every_byte(
    flavour: Flavour, instrument: Instrument, how: str, kind: str
) -> None:
    if how == "cancel" and not flavour.cancels_steps:
        pytest.skip("the iteration of this flavour blocks")
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    make = getattr(flavour.module, kind)
    arguments = (sock.raw,) if kind == "LineStream" else (sock.raw, 5)
    stream = make(*arguments, timeout=0.05 if how == "timeout" else None)
    instrument.send(b"one1\ntw")
    assert flavour.call(flavour.step, stream) == b"one1\n"
    step = flavour.start(flavour.step, stream)
    if how == "cancel":
        eventually(lambda: is_reading(sock))
        step.cancel()
    assert isinstance(step.error(), ConnectionTimeoutError if how == "timeout" else asyncio.CancelledError)
    instrument.send(b"o2\nthr")
    assert flavour.call(flavour.step, stream) == b"two2\n"
    instrument.send(b"ee")
    assert sock.readexactly(5, timeout=GENEROUS) == b"three"
    assert instrument.ledger.links == [1]


@clause("A7")
@flavours("aio")
@pytest.mark.parametrize("iterations", range(6))
def test_a_step_of_a_stream_loses_no_line_wherever_the_cancellation_strikes(
    instrument: Instrument, iterations: int
) -> None:
    with Aio() as flavour:
        sock = flavour.tcp(instrument.host, instrument.port)
        sock.open()
        lines = [b"%d\n" % number for number in range(20)]
        instrument.send(b"".join(lines))
        eventually(lambda: sock.in_waiting() == sum(map(len, lines)))

        async def script() -> list[bytes]:
            stream = flavour.module.LineStream(sock.raw)
            seen: list[bytes] = []
            while len(seen) < len(lines):
                stream._until = 0.0  # due to let its neighbours run
                step = asyncio.create_task(flavour.step(stream))
                for _ in range(iterations):
                    await asyncio.sleep(0)
                step.cancel()
                try:
                    seen.append(await step)
                except asyncio.CancelledError:
                    seen.append(await flavour.step(stream))
            return seen

        assert flavour.start(script).result() == lines


@clause("A7", "A6")
def test_a_plain_read_that_gives_up_inside_a_transaction_keeps_the_link(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)

    def body() -> Script:
        yield sock.raw.write_readline(b"ECHO? a\n")
        try:
            yield sock.raw.readline(timeout=0.05)
        except ConnectionTimeoutError:
            return (yield sock.raw.write_readline(b"ECHO? b\n"))

    assert flavour.start(sock.transaction, body).result() == b"b,2\n"
    assert instrument.ledger.links == [1]


# -- A8


@clause("A8", "Q1")
@pytest.mark.parametrize("noticed", [False, True], ids=["unnoticed", "noticed"])
@pytest.mark.parametrize(
    ("name", "args", "whole", "partial"),
    [
        ("readline", (), [b"one\n", b"two\n"], b"thr"),
        ("readlines", (2,), [[b"one\n", b"two\n"]], b"thr"),
        ("readexactly", (4,), [b"one\n", b"two\n"], b"thr"),
        ("readuntil", (b"o",), [b"o", b"ne\ntwo"], b"\nthr"),
        ("read", (6,), [b"one\ntw", b"o\nthr"], b""),
        ("read", (-1,), [b"one\ntwo\nthr"], None),
    ],
)
def test_plain_reads_on_an_ended_link_return_what_is_left_then_raise_once(
    flavour: Flavour,
    instrument: Instrument,
    name: str,
    args: tuple[Any, ...],
    whole: list[object],
    partial: bytes | None,
    noticed: bool,
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    instrument.send(b"one\ntwo\nthr")
    instrument.drop()
    if noticed:
        eventually(lambda: not sock.connected())
    for message in whole:
        assert getattr(sock, name)(*args, timeout=GENEROUS) == message
    if partial is not None:
        with pytest.raises(ConnectionEOFError) as caught:
            getattr(sock, name)(*args, timeout=GENEROUS)
        assert caught.value.partial == partial
    assert instrument.ledger.links == [1]
    with pytest.raises(ConnectionTimeoutError):
        getattr(sock, name)(*args, timeout=0.05)  # on a new link, where nothing comes
    assert sock.write_readline(b"ECHO? a\n", timeout=GENEROUS) == b"a,1\n"
    assert instrument.ledger.links == [1, 2]


@clause("A8")
def test_readbuffer_on_an_ended_link_returns_what_is_left_then_raises_once(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    instrument.send(b"one\ntwo\nthr")
    instrument.drop()
    eventually(lambda: not sock.connected())
    assert sock.readbuffer() == b"one\ntwo\nthr"
    with pytest.raises(ConnectionEOFError):
        sock.readbuffer()
    assert instrument.ledger.links == [1]
    assert sock.readbuffer() == b""
    instrument.ledger.wait(lambda ledger: ledger.links == [1, 2])


@clause("A8")
def test_of_several_readers_of_a_link_that_ends_one_is_told(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    sock.open()
    readers: list[Running] = []
    for length in range(1, 4):
        readers.append(sock.start("readline", timeout=1))
        eventually(lambda length=length: callers(sock) == length)  # type: ignore[misc]
    instrument.send(b"for the first\n")
    instrument.drop()
    assert readers[0].result() == b"for the first\n"
    assert isinstance(readers[1].error(), ConnectionEOFError)
    instrument.ledger.wait(lambda ledger: ledger.links == [1, 2])
    instrument.send(b"for the third\n")
    assert readers[2].result() == b"for the third\n"


@clause("A8")
def test_after_a_reset_what_had_arrived_can_still_be_read(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    sock.open()
    instrument.send(b"one\nthr")
    eventually(lambda: sock.in_waiting() == 7)
    instrument.reset()
    eventually(lambda: not sock.connected())
    assert sock.readline() == b"one\n"
    with pytest.raises(ConnectionLostError) as caught:
        sock.readline()
    assert caught.value.partial == b"thr"
    assert sock.write_readline(b"ECHO? a\n") == b"a,1\n"


@clause("A8", "S2")
def test_a_stream_on_an_ended_link_returns_what_is_left_then_ends(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    sock.open()
    instrument.send(b"one\ntwo\n")
    instrument.drop()
    stream = flavour.call(flavour.stream_of, sock.raw)
    assert flavour.call(flavour.step, stream) == b"one\n"
    assert flavour.call(flavour.step, stream) == b"two\n"
    with pytest.raises(EndOfStream):
        flavour.call(flavour.step, stream)
    assert sock.write_readline(b"ECHO? a\n") == b"a,1\n"


@clause("A1")
@flavours("aio")
@pytest.mark.parametrize("variant", [flavour for flavour in FLAVOURS if flavour.name == "aio"])
def test_loops_on_several_threads_do_not_mix_their_replies(variant: type[Aio], instrument: Instrument) -> None:
    async def use(name: bytes) -> None:
        sock = variant.module.TCP(instrument.host, instrument.port)
        for _ in range(100):
            reply = await sock.write_readline(b"ECHO? " + 3000 * name + b"\n", timeout=GENEROUS)
            assert reply.startswith(3000 * name + b",")
        await sock.close()

    with ExitStack() as running:
        loops = [running.enter_context(variant()) for _ in range(6)]
        users = [loop.start(use, b"%d" % number) for number, loop in enumerate(loops)]
        for user in users:
            user.result()
