"""Chapter T of the contract: time."""

from __future__ import annotations

import asyncio
import math
import pickle
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest

from simulator import Instrument
from simulator.faults import Cut, Drip, Silence
from sockio.common import ConnectionClosedError, ConnectionTimeoutError, LinkError, Retry
from tests.calls import callers
from tests.clauses import clause, flavours
from tests.flavours import BOUND, AsyncFlavour, Flavour, Futures, Py2, Py2On27, Running, Script, Sio, Sock, eventually
from tests.peers import Names, Peer, received

ECHO = b"ECHO? a\n"
#: For calls that must come to an end by themselves, but for a defect.
GENEROUS = 30.0
#: The calls, each with arguments that make it wait for a reply or for bytes that don't come.
QUERIES: list[tuple[str, tuple[Any, ...]]] = [
    ("write_read", (ECHO, 100)),
    ("write_readline", (ECHO,)),
    ("write_readlines", (ECHO, 1)),
    ("writelines_readlines", ([ECHO],)),
]
READS: list[tuple[str, tuple[Any, ...]]] = [
    ("read", (100,)),
    ("readline", ()),
    ("readlines", (2,)),
    ("readexactly", (100,)),
    ("readuntil", (b"\n",)),
]
WRITES: list[tuple[str, tuple[Any, ...]]] = [("write", (ECHO,)), ("writelines", ([ECHO],))]


def each(calls: list[tuple[str, tuple[Any, ...]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("name", "args"), calls, ids=[name for name, _ in calls])


@contextmanager
def times_out(sent: bool = False) -> Generator[None]:
    """Check that what is inside times out by itself, and whether it says that it had sent anything."""
    began = time.monotonic()
    with pytest.raises(ConnectionTimeoutError) as caught:
        yield
    elapsed = time.monotonic() - began
    print(f"timed out after {elapsed:.3f} s")
    assert elapsed < 20
    assert caught.value.request_sent is sent


def blocked(sock: Sock, instrument: Instrument) -> Running:
    """Keep the turn for as long as the test takes."""
    running = sock.start("write_readline", b"DELAY? 600\n", timeout=None)
    instrument.ledger.wait(lambda ledger: ledger.count(b"DELAY? 600"))
    return running


# -- T1


@clause("T1")
@each(QUERIES)
def test_the_deadline_covers_the_wait_for_a_reply(
    flavour: Flavour, instrument: Instrument, name: str, args: tuple[Any, ...]
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    instrument.inject(Silence())
    with times_out(sent=True):
        getattr(sock, name)(*args, timeout=0.05)


@clause("T1")
@each(READS)
def test_the_deadline_covers_a_plain_read(
    flavour: Flavour, instrument: Instrument, name: str, args: tuple[Any, ...]
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    with times_out():
        getattr(sock, name)(*args, timeout=0.05)


@clause("T1")
@each(QUERIES[1:3] + READS[:3] + WRITES)
def test_the_deadline_covers_the_wait_for_the_turn(
    flavour: Flavour, instrument: Instrument, name: str, args: tuple[Any, ...]
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    first = blocked(sock, instrument)
    with times_out():
        getattr(sock, name)(*args, timeout=0.05)
    assert not first.done()
    assert instrument.ledger.commands == [b"DELAY? 600"]


@clause("T1", "F6")
def test_the_deadline_covers_resolving(flavour: Flavour, instrument: Instrument, names: Names) -> None:
    names["dmm.test"] = [(instrument.host, instrument.port)]
    names.answering.clear()
    sock = flavour.tcp("dmm.test", instrument.port)
    for call in (sock.write_readline, sock.write):
        with times_out():
            call(ECHO, timeout=0.05)
    with times_out():
        sock.open(timeout=0.05)
    names.answering.set()
    assert sock.write_readline(ECHO, timeout=GENEROUS) == b"a,1\n"


@clause("T1")
@each([*QUERIES[:2], *READS[:2], *WRITES, ("open", ())])
def test_the_deadline_covers_connecting(
    flavour: Flavour, instrument: Instrument, name: str, args: tuple[Any, ...]
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    instrument.hang()
    with times_out():
        getattr(sock, name)(*args, timeout=0.05)


@clause("T1")
def test_the_deadline_covers_the_wait_for_somebody_who_connects(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    instrument.hang()
    first = sock.start("write", ECHO)
    eventually(lambda: callers(sock) == 1)
    with times_out():
        sock.write_readline(ECHO, timeout=0.05)
    assert not first.done()
    sock.close()
    assert isinstance(first.error(), ConnectionClosedError)


@clause("T1")
@pytest.mark.parametrize("delay", [0.01, 1000.0])
def test_the_deadline_covers_retrying(flavour: Flavour, instrument: Instrument, delay: float) -> None:
    retry = Retry(None, delay=delay, factor=1, max_delay=delay)
    sock = flavour.tcp(instrument.host, instrument.port, retry=retry)
    instrument.refuse()
    with times_out():
        sock.write_readline(ECHO, timeout=0.1)
    with times_out():
        sock.open(timeout=0.1)


@clause("T1")
def test_the_deadline_covers_the_pause_before_an_idempotent_request_is_sent_again(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, retry=Retry(None, delay=1000, max_delay=1000))
    sock.open()
    instrument.inject(Cut(0), count=5)
    with times_out(sent=True):
        sock.write_readline(ECHO, timeout=0.1, idempotent=True)


@clause("T1")
@pytest.mark.parametrize("name", ["write", "write_readline"])
def test_the_deadline_covers_sending(flavour: Flavour, peer: Peer, name: str) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    peer.accept()
    with times_out(sent=True):
        getattr(sock, name)(bytes(2**25), timeout=0.1)


@clause("T1")
@each(QUERIES[1:])
def test_a_peer_that_drips_a_byte_at_a_time_cannot_stretch_the_deadline(
    flavour: Flavour, instrument: Instrument, name: str, args: tuple[Any, ...]
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    line = b"ECHO? " + b"x" * 3000 + b"\n"
    args = ([line],) if name == "writelines_readlines" else (line, *args[1:])
    sock.open()
    instrument.inject(Drip(0.01))  # half a minute in all
    with times_out(sent=True):
        getattr(sock, name)(*args, timeout=0.2)


@clause("T1", "A7")
def test_a_peer_that_drips_cannot_stretch_the_deadline_of_a_plain_read(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    instrument.inject(Drip(0.01))
    sock.write(b"ECHO? " + b"x" * 3000 + b"\n")
    with times_out():
        sock.readline(timeout=0.2)
    assert sock.connected()
    eventually(lambda: sock.in_waiting() > 0)


@clause("T1", "A7")
def test_a_peer_that_never_stops_sending_cannot_stretch_the_deadline(flavour: Flavour, peer: Peer) -> None:
    if isinstance(flavour, Py2On27):
        pytest.skip("its link is in another process")
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    other_end = peer.accept()
    link = sock.raw._link
    arrived = link.arrived

    def arriving(chunk: bytes) -> None:
        arrived(chunk)
        other_end.sendall(b"x")  # it is there before anybody looks

    link.arrived = arriving
    other_end.sendall(b"x")
    with times_out():
        sock.read(timeout=0.1)
    assert sock.connected()


@clause("T1", "T2")
@pytest.mark.parametrize("timeout", [30 * 86400, 1e9, 1e15, math.inf], ids=str)
def test_a_timeout_may_be_very_long(
    flavour: Flavour, instrument: Instrument, peer: Peer, names: Names, timeout: float
) -> None:
    names["dmm.test"] = [(instrument.host, instrument.port)]
    sock = flavour.tcp("dmm.test", instrument.port, timeout=timeout, connection_timeout=timeout)
    for _ in range(2):
        assert sock.write_readline(b"DELAY? 0.01\n") == b"0.01\n"
    sock.write(ECHO)
    assert sock.readline() == b"a,1\n"
    waiting = [sock.start("write_readline", ECHO) for _ in range(3)]
    assert sorted(call.result() for call in waiting) == [b"a,2\n", b"a,3\n", b"a,4\n"]
    other = flavour.tcp(peer.host, peer.port, timeout=timeout)
    large = other.start("write", bytes(2**25))
    received(peer.accept(), 2**25)
    large.result()


@clause("T1")
@pytest.mark.parametrize("variant", [pytest.param(each, marks=flavours(each.name)) for each in (Sio, Futures, Py2)])
def test_when_time_is_up_no_more_is_sent(variant: type[Flavour], peer: Peer) -> None:
    with variant() as flavour:
        sock = flavour.tcp(peer.host, peer.port)
        sock.open()
        give_up = time.monotonic() + BOUND

        def send(_: object) -> int:
            assert time.monotonic() < give_up
            return 1

        sock.raw._link.send = send
        with times_out(sent=True):
            sock.write(bytes(2**28), timeout=0.1)


@clause("T1")
def test_the_deadline_covers_a_step_of_a_stream(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    stream = flavour.module.LineStream(sock.raw, timeout=0.05)
    for _ in range(2):
        with times_out():
            flavour.call(flavour.step, stream)
    sock.raw.timeout = 0.05
    with times_out():
        flavour.call(flavour.step, flavour.call(flavour.stream_of, sock.raw))


@clause("T1", "E1")
def test_the_deadline_covers_a_callback_that_uses_the_object(flavour: Flavour, instrument: Instrument) -> None:
    def greet() -> Script:
        yield sock.raw.write_readline(b"DELAY? 600\n", timeout=None)

    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=flavour.callback(greet))
    with times_out():
        sock.write_readline(ECHO, timeout=0.4)
    assert instrument.ledger.commands == [b"DELAY? 600"]


@clause("T1", "E1")
def test_the_deadline_covers_a_transaction_in_a_callback(flavour: Flavour, instrument: Instrument) -> None:
    if not flavour.applies("A6"):
        pytest.skip("this flavour has no transactions")

    def body() -> Script:
        yield sock.raw.write_readline(b"DELAY? 600\n", timeout=None)

    def greet() -> Script:
        yield from sock.transaction(body, timeout=None)

    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=flavour.callback(greet))
    with times_out():
        sock.start("write_readline", ECHO, timeout=0.4).result()
    assert instrument.ledger.commands == [b"DELAY? 600"]


@clause("T1", "E1")
def test_the_deadline_covers_a_callback_that_waits_for_something_else(flavour: Flavour, instrument: Instrument) -> None:
    if not isinstance(flavour, AsyncFlavour):
        pytest.skip("a callback of this flavour blocks")

    def greet() -> Script:
        yield other.raw.write_readline(b"DELAY? 600\n", timeout=None)

    other = flavour.tcp(instrument.host, instrument.port)
    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=flavour.callback(greet))
    with times_out():
        sock.write_readline(ECHO, timeout=0.4)
    assert instrument.ledger.commands == [b"DELAY? 600"]


@clause("T1")
def test_the_deadline_is_checked_after_a_plain_callback(flavour: Flavour, instrument: Instrument) -> None:
    def linger() -> None:
        time.sleep(0.1)

    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=linger)
    with times_out():
        sock.write_readline(ECHO, timeout=0.05)
    assert instrument.ledger.commands == []


@clause("T1")
def test_the_timeout_of_a_call_overrides_that_of_the_object(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=0.05)
    sock.open()
    with times_out(sent=True):
        sock.write_readline(b"DELAY? 600\n")
    for timeout in (None, math.inf, GENEROUS):
        assert sock.write_readline(b"DELAY? 0.1\n", timeout=timeout) == b"0.1\n"
    sock.raw.timeout = None
    assert sock.write_readline(b"DELAY? 0.1\n") == b"0.1\n"
    with times_out(sent=True):
        sock.write_readline(b"DELAY? 600\n", timeout=0.05)


@clause("T1")
def test_a_deadline_that_is_met_leaves_no_trace(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    assert sock.write_readline(ECHO, timeout=0.2) == b"a,1\n"
    assert sock.write_readline(b"DELAY? 0.3\n", timeout=GENEROUS) == b"0.3\n"
    sock.write(b"DELAY? 0.3\n", timeout=0.2)
    assert sock.readline(timeout=None) == b"0.3\n"
    assert instrument.ledger.links == [1]


@clause("T1")
@each([*QUERIES, *READS, *WRITES, ("readbuffer", ()), ("open", ())])
def test_not_a_number_is_no_timeout(flavour: Flavour, instrument: Instrument, name: str, args: tuple[Any, ...]) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    with pytest.raises(ValueError, match="NaN"):
        getattr(sock, name)(*args, timeout=math.nan)
    sock.raw.timeout = math.nan
    if name != "open":
        with pytest.raises(ValueError, match="NaN"):
            getattr(sock, name)(*args)
    assert instrument.ledger.links == []


@clause("T1")
@pytest.mark.parametrize("name", ["timeout", "connection_timeout"])
def test_no_object_is_made_whose_timeout_is_not_a_number(flavour: Flavour, name: str) -> None:
    with pytest.raises(ValueError, match="NaN"):
        flavour.module.TCP("127.0.0.1", 1, **{name: math.nan})


# -- T2


@clause("T2")
@each([("open", ()), ("write", (ECHO,)), ("readline", ()), ("write_readline", (ECHO,))])
def test_an_attempt_to_connect_is_bounded(
    flavour: Flavour, instrument: Instrument, name: str, args: tuple[Any, ...]
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, connection_timeout=0.1)
    instrument.hang()
    with times_out():
        getattr(sock, name)(*args)


@clause("T2", "R5")
def test_each_attempt_has_its_own_bound(flavour: Flavour, instrument: Instrument, names: Names) -> None:
    names["dmm.test"] = [(instrument.host, instrument.port)]
    sock = flavour.tcp(
        "dmm.test", instrument.port, connection_timeout=0.1, retry=Retry(None, delay=0.01), timeout=GENEROUS
    )
    instrument.hang()
    asking = sock.start("write_readline", ECHO)
    eventually(lambda: len(names.lookups) > 2)
    instrument.accept()
    assert asking.result() == b"a,1\n"


@clause("T2", "C7")
def test_an_attempt_covers_all_addresses_of_a_name(flavour: Flavour, instrument: Instrument, names: Names) -> None:
    names["dmm.test"] = 100 * [(instrument.host, instrument.port)]
    sock = flavour.tcp("dmm.test", instrument.port, connection_timeout=0.3)
    instrument.hang()
    with times_out():
        sock.write_readline(ECHO)
    assert names.lookups == ["dmm.test"]


@clause("T2")
def test_an_attempt_covers_the_look_up_of_a_name(flavour: Flavour, instrument: Instrument, names: Names) -> None:
    names["dmm.test"] = [(instrument.host, instrument.port)]
    names.answering.clear()
    sock = flavour.tcp("dmm.test", instrument.port, connection_timeout=0.1)
    with times_out():
        sock.write_readline(ECHO)


@clause("T2")
def test_the_bound_of_an_attempt_bounds_nothing_else(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, connection_timeout=0.1)
    assert sock.write_readline(b"DELAY? 0.3\n") == b"0.3\n"


@clause("T2", "T1")
def test_the_deadline_of_the_call_holds_within_an_attempt(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, connection_timeout=600)
    instrument.hang()
    with times_out():
        sock.write_readline(ECHO, timeout=0.1)


# -- T3


@clause("T3")
def test_a_timeout_is_all_that_callers_may_be_catching(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=0.05)
    caught: list[BaseException] = []

    def catch(call: Callable[[], Any]) -> None:
        with pytest.raises(ConnectionTimeoutError) as info:
            call()
        caught.append(info.value)

    catch(sock.readline)
    catch(lambda: sock.write_readline(b"DELAY? 600\n"))
    sock.close()
    instrument.hang()
    catch(lambda: sock.write(ECHO))
    catch(lambda: sock.open(timeout=0.05))
    for error in caught:
        for kind in (ConnectionError, TimeoutError, asyncio.TimeoutError, OSError, LinkError):
            assert isinstance(error, kind)
        assert flavour.module.ConnectionTimeoutError is type(error)
        assert f"{instrument.host}:{instrument.port}" in str(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


# That the kernel's ETIMEDOUT is a lost link: chapter R, the unplugged devices.


# -- T4


@clause("T4")
@pytest.mark.parametrize("timeout", [0, -1, -math.inf])
@each(QUERIES + WRITES)
def test_without_time_nothing_is_sent(
    flavour: Flavour, instrument: Instrument, name: str, args: tuple[Any, ...], timeout: float
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    for prepare in (lambda: None, sock.open, lambda: sock.write_readline(b"*IDN?\n", timeout=GENEROUS)):
        prepare()
        with times_out():
            getattr(sock, name)(*args, timeout=timeout)
        with times_out():
            getattr(sock, name)(*args, timeout=timeout, idempotent=True)
    assert sock.write_readline(b"*OPC?\n", timeout=GENEROUS) == b"1\n"
    assert instrument.ledger.commands == [b"*IDN?", b"*OPC?"]
    assert instrument.ledger.links == [1]


@clause("T4")
@pytest.mark.parametrize("timeout", [0, -1])
@pytest.mark.parametrize(
    ("name", "args", "reply"),
    [
        ("readline", (), b"one\n"),
        ("readlines", (2,), [b"one\n", b"two\n"]),
        ("readexactly", (5,), b"one\nt"),
        ("readuntil", (b"w",), b"one\ntw"),
        ("read", (6,), b"one\ntw"),
        ("readbuffer", (), b"one\ntwo\nthr"),
    ],
)
def test_without_time_a_plain_read_returns_what_is_there_whole(
    flavour: Flavour, instrument: Instrument, name: str, args: tuple[Any, ...], reply: object, timeout: float
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)

    def script() -> Script:
        yield sock.raw.open()
        instrument.send(b"one\ntwo\nthr")  # the event loop has no chance to see it before the call
        eventually(lambda: sock.raw.in_waiting() == 11)
        return (yield getattr(sock.raw, name)(*args, timeout=timeout))

    assert flavour.start(script).result() == reply
    assert sock.connected()


@clause("T4")
def test_without_time_a_plain_read_returns_what_is_there_in_many_chunks(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    there = bytes(100_000)
    instrument.send(there)
    eventually(lambda: sock.in_waiting() == len(there))
    assert sock.readexactly(len(there), timeout=0) == there


@clause("T4", "A7")
@pytest.mark.parametrize("timeout", [0, -1])
@each(READS)
def test_without_time_a_plain_read_of_less_times_out_and_keeps_it(
    flavour: Flavour, instrument: Instrument, name: str, args: tuple[Any, ...], timeout: float
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    with times_out():
        getattr(sock, name)(*args, timeout=timeout)
    assert instrument.ledger.links == []
    sock.open()
    there = b"" if name == "read" else b"half"
    if there:
        instrument.send(there)
        eventually(lambda: sock.in_waiting() == len(there))
    with times_out():
        getattr(sock, name)(*args, timeout=timeout)
    instrument.send(b" a line\n")
    assert sock.readline(timeout=GENEROUS) == there + b" a line\n"
    assert instrument.ledger.links == [1]


@clause("T4")
def test_without_time_a_step_of_a_stream_returns_what_is_there_whole(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    stream = flavour.module.LineStream(sock.raw, timeout=0)
    with times_out():
        flavour.call(flavour.step, stream)
    instrument.send(b"one\ntwo\nthr")
    eventually(lambda: sock.in_waiting() == 11)
    assert [flavour.call(flavour.step, stream) for _ in range(2)] == [b"one\n", b"two\n"]
    with times_out():
        flavour.call(flavour.step, stream)
    assert sock.connected()


@clause("T4")
@each([*QUERIES, *READS, *WRITES])
def test_without_time_nobody_waits_for_a_turn(
    flavour: Flavour, instrument: Instrument, name: str, args: tuple[Any, ...]
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    first = blocked(sock, instrument)
    with times_out():
        getattr(sock, name)(*args, timeout=0)
    assert not first.done()
    assert instrument.ledger.links == [1]


@clause("T4")
def test_without_time_the_object_sends_nothing_either(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=0)
    sock.open()
    calls: list[Callable[[], Any]] = [lambda: sock.write(ECHO), lambda: sock.write_readline(ECHO), sock.readline]
    for call in calls:
        with times_out():
            call()
    assert sock.write_readline(b"*OPC?\n", timeout=None) == b"1\n"
    assert instrument.ledger.commands == [b"*OPC?"]
