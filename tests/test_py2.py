"""Corners of ``sockio.py2`` that no test of the contract meets by itself."""

from __future__ import annotations

import errno
import math
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import sockio._wire
import sockio.py2
from simulator import Instrument
from simulator.faults import Cut
from sockio.common import ConnectionClosedError, ConnectionEOFError, ConnectionLostError
from tests.flavours import BOUND, Py2, Sock, eventually
from tests.peers import failing


@pytest.fixture
def flavour() -> Iterator[Py2]:
    """The flavour, in this process."""
    flavour = Py2()
    with flavour:
        yield flavour


@pytest.fixture
def sock(flavour: Py2, instrument: Instrument) -> Sock:
    """An open object."""
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    return sock


def test_what_arrived_is_forgotten_unless_somebody_uses_the_object(sock: Sock, instrument: Instrument) -> None:
    instrument.send(b"old\n" * 1000)
    eventually(lambda: sock.in_waiting() == 4000)
    sock.reset_input_buffer()
    assert sock.in_waiting() == 0
    reading = sock.start("readlines", 2)
    instrument.send(b"one\n")
    eventually(lambda: len(sock.raw._link.buffer) == 4)
    sock.reset_input_buffer()
    instrument.send(b"two\n")
    assert reading.result() == [b"one\n", b"two\n"]


def test_a_callback_may_forget_what_arrived_but_not_open_the_object(flavour: Py2, instrument: Instrument) -> None:
    errors: list[str] = []

    def greet() -> None:
        instrument.send(b"welcome\n")
        eventually(lambda: tcp.raw.in_waiting() == 8)
        tcp.raw.reset_input_buffer()
        assert tcp.raw.in_waiting() == 0
        with pytest.raises(ConnectionClosedError) as caught:
            tcp.raw.open()
        errors.append(str(caught.value))

    tcp = flavour.tcp(instrument.host, instrument.port, on_connection_made=greet)
    assert tcp.write_readline(b"*OPC?\n") == b"1\n"
    assert "already open" in errors[0]


@pytest.mark.parametrize("mark", ["writing", "receiving"])
def test_a_call_that_was_torn_off_in_the_middle_costs_the_link(sock: Sock, instrument: Instrument, mark: str) -> None:
    setattr(sock.raw._link, mark, True)
    sock.raw._link.idle = False
    assert sock.write_readline(b"*OPC?\n") == b"1\n"
    assert instrument.ledger.links == [1, 2]


def test_a_link_that_another_thread_is_closing_serves_no_call(sock: Sock) -> None:
    sock.raw._link.closed = True
    with pytest.raises(ConnectionClosedError, match="meanwhile"):
        sock.readline()


def test_a_straight_request_whose_link_breaks(sock: Sock) -> None:
    sock.write_readline(b"*OPC?\n")
    sock.raw._link.send = failing(errno.ENETDOWN)
    with pytest.raises(ConnectionLostError):
        sock.write_readline(b"*OPC?\n")


@pytest.mark.parametrize("where", ["lookup", "Race"])
def test_an_object_that_is_closed_while_it_connects(
    flavour: Py2, instrument: Instrument, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    real = getattr(sockio.py2, where)

    def closing(*args: Any) -> Any:
        sock.raw.close()
        return real(*args)

    monkeypatch.setattr(sockio.py2, where, closing)
    with pytest.raises(ConnectionClosedError, match="meanwhile"):
        sock.open()
    assert not sock.connected()


def test_a_close_that_comes_before_there_is_a_bell_to_ring_ends_the_connecting(
    flavour: Py2, instrument: Instrument
) -> None:
    instrument.hang()
    sock = flavour.tcp(instrument.host, instrument.port)
    raw = sock.raw
    new_bell = raw._new_bell

    def close_first() -> Any:
        raw._new_bell = new_bell
        raw.close()
        return new_bell()

    raw._new_bell = close_first
    assert isinstance(sock.start("open").error(), ConnectionClosedError)


def test_a_link_that_another_thread_has_closed_has_ended(sock: Sock) -> None:
    link = sock.raw._link
    link._close()
    assert not sock.connected()
    assert link.cause is None
    with pytest.raises(OSError, match="Bad file"):
        link.send(b"x")


def test_a_wait_that_ended_for_nothing_goes_on() -> None:
    answers: list[list[int]] = [[], [], [1]]
    assert sockio.py2._wait(lambda _: answers.pop(0), None)
    assert answers == []


def test_a_ticket_that_another_thread_removes_first_is_no_matter(sock: Sock) -> None:
    class Faster(list[Any]):
        def remove(self, value: Any) -> None:
            super().remove(value)
            raise ValueError

    sock.raw._queue = Faster([sockio.py2._Ticket()])
    assert sock.raw._first() is None


def test_a_request_that_is_overtaken_at_the_start_waits_for_its_turn(sock: Sock) -> None:
    sock.write_readline(b"*OPC?\n")
    torn = sockio.py2._Ticket()

    class Overtaken(list[Any]):
        def append(self, value: Any) -> None:
            if not self:
                super().append(torn)
            super().append(value)

        def __bool__(self) -> bool:
            return False

    sock.raw._queue = Overtaken()
    assert sock.write_readline(b"ECHO? a\n", timeout=BOUND) == b"a,1\n"


def test_two_threads_that_begin_anew_in_a_child_do_so_once(sock: Sock) -> None:
    raw = sock.raw
    link, raw._pid = raw._link, -1
    with sockio.py2._forking:
        second = threading.Thread(target=raw.connected)
        second.start()
        raw._pid = os.getpid()
    second.join(BOUND)
    assert raw._link is link


def test_a_buffer_of_more_than_sixteen_chunks_is_closed_all_the_same(
    sock: Sock, instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockio._wire, "CHUNK", 10)
    instrument.send(b"x" * 1000)
    eventually(lambda: sock.in_waiting() == 1000)
    sock.close()
    assert not sock.connected()


def test_a_callback_that_writes_on_a_link_that_has_ended_is_told(flavour: Py2, instrument: Instrument) -> None:
    errors: list[BaseException] = []

    def greet() -> None:
        instrument.drop()
        eventually(lambda: not tcp.raw.connected())
        with pytest.raises(ConnectionEOFError) as caught:
            tcp.raw.write_readline(b"*IDN?\n")
        errors.append(caught.value)

    tcp = flavour.tcp(instrument.host, instrument.port, on_connection_made=greet)
    with pytest.raises(ConnectionEOFError):
        tcp.open()
    assert "write_readline" in str(errors[0])
    assert instrument.ledger.commands == []


def test_a_straight_request_whose_reply_is_cut_off(sock: Sock, instrument: Instrument) -> None:
    sock.write_readline(b"*OPC?\n")
    instrument.inject(Cut(2))
    with pytest.raises(ConnectionEOFError) as caught:
        sock.write_readline(b"*IDN?\n")
    assert caught.value.partial == b"SO"


def test_a_straight_request_hands_the_turn_on(sock: Sock, instrument: Instrument) -> None:
    sock.write_readline(b"*OPC?\n")
    first = sock.start("write_readline", b"DELAY? 0.1\n")
    instrument.ledger.wait(lambda ledger: ledger.count(b"DELAY? 0.1"))
    second = sock.start("write_readline", b"ECHO? a\n", timeout=BOUND)
    assert first.result() == b"0.1\n"
    assert second.result() == b"a,1\n"


def test_an_indefinite_block_that_came_before_the_end_of_the_link(sock: Sock, instrument: Instrument) -> None:
    instrument.send(b"#0abc\n")
    eventually(lambda: sock.in_waiting() == 6)
    instrument.drop()
    eventually(lambda: not sock.connected())
    sock.raw._link.receive()
    sock.raw._link.receive()
    assert sock.readblock() == b"abc"


def test_an_object_that_is_closed_as_its_link_comes_up(
    flavour: Py2, instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    tcp = flavour.tcp(instrument.host, instrument.port)

    def closing(_: Any) -> bool:
        tcp.raw._closings += 1
        return False

    with monkeypatch.context() as patch:
        patch.setattr(sockio.py2._Link, "notice", closing)
        with pytest.raises(ConnectionClosedError, match="meanwhile"):
            tcp.open()
    assert not tcp.connected()


def test_a_bell_tells_of_sockets_too() -> None:
    bell = sockio.py2._Bell()
    one, other = socket.socketpair()
    with one, other:
        assert bell.wait(None, [one])
    bell.close()


def test_a_stream_is_its_own_iterator(sock: Sock, instrument: Instrument) -> None:
    instrument.send(b"one\ntwo\n")
    instrument.drop()
    assert list(sockio.py2.LineStream(sock.raw)) == [b"one\n", b"two\n"]


def test_a_wait_that_may_last_for_ever_is_told_milliseconds_that_fit() -> None:
    waits: list[int | None] = []

    def poll(milliseconds: int | None) -> bool:
        waits.append(milliseconds)
        return len(waits) == 2

    assert sockio.py2._wait(poll, math.inf)
    assert waits == [1, 2**30]
