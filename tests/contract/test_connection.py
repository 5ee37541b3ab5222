"""Chapter C of the contract: connection."""

from __future__ import annotations

import errno
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from simulator import Instrument
from simulator.faults import Silence
from sockio.common import ConnectionClosedError, Retry
from tests.calls import CALLS, IDENTITY, READS, callers
from tests.clauses import clause, flavours
from tests.flavours import BOUND, FLAVOURS, AsyncFlavour, Flavour, Py2, Running, Script, Sio, Sock, eventually
from tests.peers import Names, Peer, received, received_to_end

#: Seconds within which a caller that was woken must have returned: nothing else would wake it in that time.
PROMPTLY = 20.0
AN_HOUR = Retry(attempts=None, delay=3600, max_delay=3600)

Factory = Callable[..., Instrument]


def wait_for_links(instrument: Instrument, count: int) -> None:
    """Wait until the instrument has accepted that many."""
    instrument.ledger.wait(lambda ledger: len(ledger.links) == count)


def is_closed(sock: Any) -> bool:
    """Whether a socket has given its descriptor back."""
    try:
        return bool(sock.fileno() == -1)
    except OSError:  # so says Python 2.7
        return True


# C1


@clause("C1")
def test_a_new_object_has_no_link(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    assert (sock.connected(), sock.is_open, sock.at_eof(), sock.in_waiting()) == (False, False, False, 0)
    sock.reset_input_buffer()
    assert instrument.ledger.links == []


@clause("C1")
def test_an_object_connects_on_first_use(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    assert not sock.connected()
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert sock.connected()
    assert sock.is_open
    assert instrument.ledger.links == [1]


@clause("C1")
def test_every_call_connects(flavour: Flavour, instrument: Instrument) -> None:
    for link, (name, args) in enumerate(CALLS.items(), 1):
        sock = flavour.tcp(instrument.host, instrument.port)
        call = sock.start(name, *args, timeout=None)
        wait_for_links(instrument, link)
        if name in READS:
            instrument.send(b"x\n")
        call.result()
        assert sock.connected()
        sock.close()
        instrument.ledger.wait(lambda ledger: not ledger.open_links)


@clause("C1")
def test_iterating_connects(flavour: Flavour, instrument: Instrument) -> None:
    for stream in ("lines", "line_stream"):
        sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=lambda: instrument.send(b"a line\n"))
        assert next(getattr(sock, stream)()) == b"a line\n"
        sock.close()


@clause("C1")
def test_without_auto_reconnect_no_call_connects(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, auto_reconnect=False)
    for name, args in CALLS.items():
        with pytest.raises(ConnectionError, match=r"open\(\)"):
            getattr(sock, name)(*args)
    with pytest.raises(ConnectionError, match=r"open\(\)"):
        next(sock.lines())
    assert not sock.connected()
    assert instrument.ledger.links == []


@clause("C1")
def test_without_auto_reconnect_open_connects(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, auto_reconnect=False)
    sock.open()
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert instrument.ledger.links == [1]


@clause("C1", "C5")
def test_without_auto_reconnect_with_connects(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, auto_reconnect=False)

    def body() -> Script:
        yield flavour.enter(sock.raw)
        reply = yield sock.raw.write_readline(b"*IDN?\n")
        yield flavour.leave(sock.raw, None)
        return reply

    assert flavour.call(body) == IDENTITY
    assert instrument.ledger.links == [1]


@clause("C1")
def test_open_on_an_open_object_raises_and_leaves_it_open(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    with pytest.raises(ConnectionError, match="already open"):
        sock.open()
    assert sock.connected()
    assert sock.connection_counter == 1
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert instrument.ledger.links == [1]


@clause("C1")
@pytest.mark.parametrize("auto_reconnect", [True, False])
@pytest.mark.parametrize("death", ["drop", "reset"])
def test_open_on_an_object_whose_link_has_died_reconnects(
    flavour: Flavour, instrument: Instrument, auto_reconnect: bool, death: str
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, auto_reconnect=auto_reconnect)

    def body() -> Script:
        yield sock.raw.open()
        getattr(instrument, death)()  # and at once, before any event loop could see it:
        yield sock.raw.open()
        return (yield sock.raw.write_readline(b"*IDN?\n"))

    assert flavour.call(body) == IDENTITY
    assert instrument.ledger.links == [1, 2]


# C2


@clause("C2")
def test_close_is_idempotent(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.close()
    sock.close()
    sock.open()
    sock.close()
    sock.close()
    assert not sock.connected()
    instrument.ledger.wait(lambda ledger: not ledger.open_links)
    assert sock.write_readline(b"*IDN?\n") == IDENTITY


@clause("C2")
def test_close_returns_promptly_though_the_peer_does_not_read_and_drops_what_is_unsent(
    flavour: Flavour, peer: Peer
) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    size = 2**26
    writing = sock.start("write", bytes(size))
    other_end = peer.accept()
    assert received(other_end, 1)
    sock.start("close").result(PROMPTLY)
    assert isinstance(writing.error(PROMPTLY), ConnectionClosedError)
    assert len(received_to_end(other_end)) < size - 1


@clause("C2")
@pytest.mark.parametrize("name", [*READS, "write_readline", "write_readlines", "write_read"])
def test_close_wakes_a_caller_that_waits_for_data(flavour: Flavour, instrument: Instrument, name: str) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    instrument.inject(Silence())
    call = sock.start(name, *CALLS[name], timeout=None)
    eventually(lambda: callers(sock) == 1)
    sock.close()
    assert isinstance(call.error(PROMPTLY), ConnectionError)
    instrument.ledger.wait(lambda ledger: not ledger.open_links)


@clause("C2")
def test_close_wakes_a_stream(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    step = flavour.start(flavour.step, flavour.module.LineStream(sock.raw))
    eventually(lambda: callers(sock) == 1)
    sock.close()
    assert isinstance(step.error(PROMPTLY), ConnectionError)


@clause("C2")
def test_close_wakes_callers_that_wait_for_their_turn(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    instrument.inject(Silence())
    first = sock.start("write_readline", b"ECHO? first\n")
    instrument.ledger.wait(lambda ledger: ledger.commands)
    waiting = [sock.start("write_readline", b"ECHO? later\n") for _ in range(3)]
    if flavour.applies("A6"):
        waiting.append(flavour.start(sock.transaction, lambda: iter(())))
    eventually(lambda: callers(sock) == 1 + len(waiting))
    sock.close()
    for call in (first, *waiting):
        assert isinstance(call.error(PROMPTLY), ConnectionError)
    assert sock.write_readline(b"ECHO? after\n") == b"after,2\n"
    assert instrument.ledger.count(b"ECHO? later") == 0


@clause("C2", "A6")
def test_close_wakes_callers_that_wait_for_somebodys_transaction(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    inside = threading.Event()
    instrument.inject(Silence())

    def body() -> Script:
        inside.set()
        yield sock.raw.write_readline(b"ECHO? first\n")

    owner = flavour.start(sock.transaction, body)
    assert inside.wait(BOUND)
    waiting = sock.start("write", b"ECHO? later\n")
    eventually(lambda: callers(sock) == 2)
    instrument.ledger.wait(lambda ledger: ledger.commands)
    sock.close()
    assert isinstance(owner.error(PROMPTLY), ConnectionError)
    assert isinstance(waiting.error(PROMPTLY), ConnectionError)
    assert instrument.ledger.commands == [b"ECHO? first"]


def connecting(sock: Sock) -> Iterator[Running]:
    """Start calls that all wait for a connection, in different ways."""
    for name, args in (("open", ()), ("readline", ()), ("write_readline", (b"*IDN?\n",)), ("write", (b"*RST\n",))):
        yield sock.start(name, *args)


@clause("C2")
@pytest.mark.parametrize(
    "variant",
    [pytest.param(each, marks=flavours(each.name)) for each in FLAVOURS if issubclass(each, AsyncFlavour)],
)
def test_close_in_another_loop_wakes_callers_that_wait_for_somebodys_transaction(
    variant: type[Flavour], instrument: Instrument
) -> None:
    def body() -> Script:
        inside.set()
        yield silent.raw.readline()

    with variant() as flavour, variant() as other:
        sock, silent = (flavour.tcp(instrument.host, instrument.port) for _ in range(2))
        for _ in range(20):  # a ring in the wrong thread is heard now and then
            inside = threading.Event()
            transaction = flavour.start(sock.transaction, body)
            assert inside.wait(BOUND)
            waiting = sock.start("readline")
            eventually(lambda: callers(sock) == 2)
            other.call(sock.raw.close)
            assert isinstance(waiting.error(PROMPTLY), ConnectionClosedError)
            transaction.cancel()


@clause("C2")
def test_close_wakes_callers_that_are_connecting(flavour: Flavour, instrument: Instrument) -> None:
    instrument.hang()
    sock = flavour.tcp(instrument.host, instrument.port)
    calls = list(connecting(sock))
    eventually(lambda: sock.raw._bells and callers(sock) == len(calls))
    sock.close()
    for call in calls:
        assert isinstance(call.error(PROMPTLY), ConnectionError)
    instrument.accept()
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert sock.connection_counter == 1
    instrument.ledger.wait(lambda ledger: len(ledger.open_links) == 1)


@clause("C2")
def test_close_wakes_callers_whose_name_is_being_resolved(
    flavour: Flavour, instrument: Instrument, names: Names
) -> None:
    names["slow.test"] = [(instrument.host, instrument.port)]
    names.answering.clear()
    sock = flavour.tcp("slow.test", instrument.port)
    calls = list(connecting(sock))
    eventually(lambda: names.lookups and callers(sock) == len(calls))
    sock.close()
    for call in calls:
        assert isinstance(call.error(PROMPTLY), ConnectionError)
    assert names.lookups == ["slow.test"]
    names.answering.set()
    assert sock.write_readline(b"*IDN?\n") == IDENTITY


@clause("C2")
def test_close_wakes_callers_that_back_off(flavour: Flavour, instrument: Instrument) -> None:
    instrument.refuse()
    sock = flavour.tcp(instrument.host, instrument.port, retry=AN_HOUR)
    backing_off = threading.Event()

    def random() -> float:
        backing_off.set()
        return 0.0

    sock.raw._random = random  # asked for the jitter of the pause that comes next
    calls = list(connecting(sock))
    assert backing_off.wait(BOUND)
    eventually(lambda: callers(sock) == len(calls))
    sock.close()
    for call in calls:
        assert isinstance(call.error(PROMPTLY), ConnectionError)
    instrument.accept()
    assert sock.write_readline(b"*IDN?\n") == IDENTITY


@clause("C2")
def test_close_wakes_the_caller_whose_idempotent_request_backs_off(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port, retry=AN_HOUR)
    backing_off = threading.Event()

    def random() -> float:
        backing_off.set()
        return 0.0

    sock.raw._random = random
    call = sock.start("write_readline", b"*IDN?\n", idempotent=True)
    for _ in range(2):
        other_end = peer.accept()
        assert received(other_end, 6) == b"*IDN?\n"
        other_end.close()
    assert backing_off.wait(BOUND)
    sock.close()
    assert isinstance(call.error(PROMPTLY), ConnectionError)


@clause("C2")
def test_close_wakes_the_caller_whose_on_connection_made_is_waiting(flavour: Flavour, instrument: Instrument) -> None:
    instrument.inject(Silence())

    def ask() -> Script:
        yield sock.raw.write_readline(b"*IDN?\n")

    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=flavour.callback(ask))
    call = sock.start("write_readline", b"ECHO? x\n")
    instrument.ledger.wait(lambda ledger: ledger.commands)
    sock.close()
    assert isinstance(call.error(PROMPTLY), ConnectionError)
    instrument.ledger.wait(lambda ledger: not ledger.open_links)
    assert instrument.ledger.commands == [b"*IDN?"]
    assert sock.connection_counter == 0


@clause("C2")
def test_the_descriptor_is_closed_once_nobody_uses_it(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    link = sock.raw._link
    call = sock.start("readline")
    eventually(lambda: callers(sock) == 1)
    sock.close()
    call.error(PROMPTLY)
    eventually(lambda: is_closed(link.sock))


@clause("C2")
@pytest.mark.parametrize("variant", [pytest.param(each, marks=flavours(each.name)) for each in (Sio, Py2)])
def test_the_descriptor_is_not_closed_under_another_threads_feet(
    variant: type[Flavour], instrument: Instrument
) -> None:
    in_poll, go_on = threading.Event(), threading.Event()

    class SlowPoller:
        """Returns from ``poll`` only when the test says so."""

        def __init__(self, poller: Any) -> None:
            self._poller = poller

        def poll(self, milliseconds: float | None = None) -> Any:
            if milliseconds == 0:
                return self._poller.poll(0)
            in_poll.set()
            events = self._poller.poll(milliseconds)
            assert go_on.wait(BOUND)
            return events

    with variant() as flavour:
        sock = flavour.tcp(instrument.host, instrument.port)
        sock.open()
        link = sock.raw._link
        link.poller = SlowPoller(link.poller)
        call = sock.start("readline")
        assert in_poll.wait(BOUND)
        number = link.sock.fileno()
        sock.close()
        instrument.ledger.wait(lambda ledger: not ledger.open_links)
        assert link.sock.fileno() == number, "another file could get the number now"
        go_on.set()
        assert isinstance(call.error(PROMPTLY), ConnectionError)
        eventually(lambda: link.sock.fileno() == -1)


# C3


@clause("C3")
def test_after_close_every_call_connects_again(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    for name, args in CALLS.items():
        sock.write_readline(b"*IDN?\n")
        sock.close()
        before = len(instrument.ledger.links)
        call = sock.start(name, *args)
        wait_for_links(instrument, before + 1)
        if name in READS:
            instrument.send(b"x\n")
        call.result()
        sock.close()


@clause("C3")
def test_after_close_without_auto_reconnect_every_call_says_what_to_do(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, auto_reconnect=False)
    sock.open()
    sock.close()
    for name, args in CALLS.items():
        with pytest.raises(ConnectionError, match=r"not open.*call open\(\)"):
            getattr(sock, name)(*args)
    with pytest.raises(ConnectionError, match=r"not open.*call open\(\)"):
        next(sock.lines())
    if flavour.applies("A6"):
        with pytest.raises(ConnectionError, match=r"not open.*call open\(\)"):
            flavour.call(sock.transaction, lambda: iter(()))
    assert (sock.connected(), sock.is_open, sock.at_eof(), sock.in_waiting()) == (False, False, False, 0)
    sock.reset_input_buffer()
    sock.open()
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert instrument.ledger.links == [1, 2]


# C4


@clause("C4")
def test_callers_that_find_the_object_closed_make_one_link(
    flavour: Flavour, instrument: Instrument, names: Names
) -> None:
    names["slow.test"] = [(instrument.host, instrument.port)]
    sock = flavour.tcp("slow.test", instrument.port)
    for round_ in range(1, 4):
        names.answering.clear()
        calls = [sock.start("write_readline", b"ECHO? %d\n" % index) for index in range(5)]
        eventually(lambda: callers(sock) == 5)
        names.answering.set()
        for index, call in enumerate(calls):
            assert call.result().startswith(b"%d," % index)
        assert sock.connection_counter == round_
        assert instrument.ledger.links == list(range(1, round_ + 1))
        sock.close() if round_ == 1 else instrument.drop()


@clause("C4")
def test_two_that_open_at_once_make_one_link_and_one_is_told(
    flavour: Flavour, instrument: Instrument, names: Names
) -> None:
    names["slow.test"] = [(instrument.host, instrument.port)]
    names.answering.clear()
    sock = flavour.tcp("slow.test", instrument.port)
    first = sock.start("open")
    eventually(lambda: names.lookups)
    second = sock.start("open")
    eventually(lambda: callers(sock) == 2)
    names.answering.set()
    first.result()
    assert "already open" in str(second.error())
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert instrument.ledger.links == [1]


@clause("C4")
def test_when_the_first_caller_gives_up_connecting_the_next_goes_on(
    flavour: Flavour, instrument: Instrument, names: Names
) -> None:
    names["slow.test"] = [(instrument.host, instrument.port)]
    names.answering.clear()
    sock = flavour.tcp("slow.test", instrument.port)
    first = sock.start("write_readline", b"*IDN?\n", timeout=0.1)
    eventually(lambda: names.lookups)
    second = sock.start("write_readline", b"*IDN?\n")
    assert isinstance(first.error(), TimeoutError)
    eventually(lambda: len(names.lookups) == 2)
    names.answering.set()
    assert second.result() == IDENTITY
    assert instrument.ledger.links == [1]


# C5


@clause("C5")
def test_with_opens_and_closes(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)

    def body() -> Script:
        entered = yield flavour.enter(sock.raw)
        assert entered is sock.raw
        assert entered.connected()
        yield flavour.leave(sock.raw, None)

    flavour.call(body)
    assert not sock.connected()
    instrument.ledger.wait(lambda ledger: ledger.links == [1] and not ledger.open_links)


@clause("C5")
def test_with_closes_when_its_block_raises_and_lets_the_error_out(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)

    def body() -> Script:
        yield flavour.enter(sock.raw)
        return (yield flavour.leave(sock.raw, KeyError("x")))

    assert not flavour.call(body)
    assert not sock.connected()
    instrument.ledger.wait(lambda ledger: ledger.links == [1] and not ledger.open_links)


@clause("C5")
def test_with_on_an_open_object_keeps_its_link(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()

    def body() -> Script:
        yield flavour.enter(sock.raw)
        reply = yield sock.raw.write_readline(b"*IDN?\n")
        yield flavour.leave(sock.raw, None)
        return reply

    assert flavour.call(body) == IDENTITY
    assert not sock.connected()
    assert instrument.ledger.links == [1]


@clause("C5")
def test_with_on_an_object_whose_link_has_died_reconnects(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, auto_reconnect=False)

    def body() -> Script:
        yield sock.raw.open()
        instrument.drop()
        yield flavour.enter(sock.raw)
        reply = yield sock.raw.write_readline(b"*IDN?\n")
        yield flavour.leave(sock.raw, None)
        return reply

    assert flavour.call(body) == IDENTITY
    assert instrument.ledger.links == [1, 2]


@clause("C5")
def test_with_while_another_caller_connects_keeps_the_one_link(
    flavour: Flavour, instrument: Instrument, names: Names
) -> None:
    names["slow.test"] = [(instrument.host, instrument.port)]
    names.answering.clear()
    sock = flavour.tcp("slow.test", instrument.port)
    call = sock.start("write_readline", b"*IDN?\n")
    eventually(lambda: names.lookups)
    entering = flavour.start(lambda: flavour.enter(sock.raw))
    eventually(lambda: callers(sock) == 2)
    names.answering.set()
    assert call.result() == IDENTITY
    assert entering.result() is sock.raw
    assert instrument.ledger.links == [1]


# C6


@clause("C6")
def test_connection_counter_counts_links_made_and_nothing_else(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    assert sock.connection_counter == 0
    instrument.refuse()
    with pytest.raises(ConnectionRefusedError):
        sock.open()
    assert sock.connection_counter == 0
    instrument.accept()
    sock.write_readline(b"*IDN?\n")
    sock.write_readline(b"*IDN?\n")
    assert sock.connection_counter == 1
    instrument.drop()
    assert sock.connection_counter == 1
    sock.write_readline(b"*IDN?\n")
    assert sock.connection_counter == 2
    sock.close()
    sock.open()
    assert sock.connection_counter == 3
    instrument.ledger.wait(lambda ledger: ledger.links == [1, 2, 3])


# C7


@clause("C7")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_addresses_and_names_work(flavour: Flavour, instrument_factory: Factory, host: str) -> None:
    instrument = instrument_factory(host=host)
    sock = flavour.tcp(host, instrument.port)
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    by_url = flavour.call(flavour.module.socket_for_url, instrument.url)
    assert flavour.call(by_url.write_readline, b"*IDN?\n") == IDENTITY
    flavour.call(by_url.close)
    assert (by_url.host, by_url.port) == (host, instrument.port)


@clause("C7")
def test_a_black_holed_first_address_costs_a_fraction_of_a_second(
    flavour: Flavour, instrument_factory: Factory, names: Names
) -> None:
    black_hole, good = instrument_factory(), instrument_factory()
    black_hole.hang()
    names["two.test"] = [(black_hole.host, black_hole.port), (good.host, good.port)]
    sock = flavour.tcp("two.test", good.port)
    assert sock.write_readline(b"*IDN?\n", timeout=PROMPTLY) == IDENTITY
    assert good.ledger.links == [1]


@clause("C7")
def test_all_addresses_are_tried_when_several_are_black_holes(
    flavour: Flavour, instrument_factory: Factory, names: Names
) -> None:
    black_hole, closed, good = instrument_factory(), instrument_factory(), instrument_factory()
    black_hole.hang()
    closed.refuse()
    addresses = [(black_hole.host, black_hole.port), (closed.host, closed.port), (good.host, good.port)]
    names["three.test"] = addresses
    sock = flavour.tcp("three.test", good.port, connection_timeout=PROMPTLY)
    assert sock.write_readline(b"*IDN?\n") == IDENTITY


@clause("C7")
@pytest.mark.parametrize("first", ["::1", "127.0.0.1"])
def test_both_families_are_tried(flavour: Flavour, instrument: Instrument, names: Names, first: str) -> None:
    names["both.test"] = sorted([("::1", instrument.port), ("127.0.0.1", instrument.port)], key=lambda a: a[0] != first)
    sock = flavour.tcp("both.test", instrument.port)
    assert sock.write_readline(b"*IDN?\n") == IDENTITY


@clause("C7")
def test_the_address_that_answers_first_is_the_only_link(
    flavour: Flavour, instrument_factory: Factory, names: Names
) -> None:
    first, second = instrument_factory(), instrument_factory()
    names["two.test"] = [(first.host, first.port), (second.host, second.port)]
    sock = flavour.tcp("two.test", first.port)
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert (first.ledger.links, second.ledger.links) == ([1], [])


@clause("C7")
def test_when_no_address_answers_the_error_is_the_systems(
    flavour: Flavour, instrument_factory: Factory, names: Names
) -> None:
    one, two = instrument_factory(), instrument_factory()
    one.refuse()
    two.refuse()
    names["none.test"] = [(one.host, one.port), (two.host, two.port)]
    sock = flavour.tcp("none.test", one.port)
    with pytest.raises(ConnectionRefusedError) as caught:
        sock.open()
    assert caught.value.errno == errno.ECONNREFUSED


@clause("C7")
def test_a_name_that_does_not_exist_is_an_os_error(flavour: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(flavour.imported("socket"), "getaddrinfo", getaddrinfo)
    sock = flavour.tcp("nowhere.test", 5025)
    with pytest.raises(socket.gaierror, match=r"nowhere\.test:5025.*not known"):
        sock.open()


@clause("C7")
@pytest.mark.parametrize("host", ["instrument..test", 64 * "x" + ".test"])
def test_a_name_that_cannot_exist_is_a_clear_error(flavour: Flavour, host: str) -> None:
    with pytest.raises(ValueError, match=f"host '{re.escape(host)}' can't be a name: "):
        flavour.tcp(host, 5025).open()


@clause("C7")
def test_a_url_without_a_port_is_a_clear_error(flavour: Flavour) -> None:
    for url in ("tcp://instrument.test", "tcp://[::1]", "tcp://instrument.test:"):
        with pytest.raises(ValueError, match=r"no port.*tcp://host:port"):
            flavour.module.socket_for_url(url)
