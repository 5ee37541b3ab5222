"""Chapter P of the contract: what ``sockio.py2`` has of its own (the installed wheel: ``tests/packaging``)."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import sockio.py2
from simulator import Instrument
from simulator.faults import Cut
from sockio.common import ConnectionEOFError
from tests.clauses import clause, flavours
from tests.flavours import Py2, Running

READING = b"+1.23459417E+00\n"


def result_of(returned: Any) -> Any:
    return returned.result()


@clause("P2")
@flavours("py2")
def test_what_a_call_returns_answers_result(instrument: Instrument) -> None:
    with sockio.py2.TCP(instrument.host, instrument.port) as sock:
        assert sock.write_readline(b"ECHO? a\n") == sock.write_readline(b"ECHO? a\n").result().replace(b"2", b"1")
        assert sock.write_readlines(b"DATA? 1\n", 1).result() == [READING]
        assert sock.writelines_readlines([b"ECHO? b\n"]).result() == [b"b,3\n"]
        assert sock.write(b"ECHO? c\n") == 8
        assert sock.readline().result() == b"c,4\n"
        assert sock.writelines([b"ECHO? ", b"d\n"]) == 8
        assert sock.readexactly(4).result() == b"d,5\n"
        assert sock.readbuffer().result() == b""
        assert result_of(sock.write(b"*CLS\n")) is None
        assert result_of(sock.close()) is None
        assert result_of(sock.open()) is None


@clause("P2", "S1")
@flavours("py2")
def test_results_are_what_they_would_be_without_it(instrument: Instrument) -> None:
    with sockio.py2.TCP(instrument.host, instrument.port) as sock:
        reply = sock.write_readline(b"*IDN?\n")
        lines = sock.write_readlines(b"DATA? 1\n", 1)
    assert isinstance(reply, bytes)
    assert isinstance(lines, list)
    assert {reply: 1} == {bytes(reply): 1}
    assert lines == [READING]
    assert (reply + b"", lines[0]) == (bytes(reply), READING)


@clause("P2")
@flavours("py2")
def test_errors_raise_at_the_call(instrument: Instrument) -> None:
    instrument.inject(Cut(2))
    with sockio.py2.TCP(instrument.host, instrument.port) as sock, pytest.raises(ConnectionEOFError):
        sock.write_readline(b"*IDN?\n")


@clause("T1")
@flavours("py2")
def test_a_call_has_a_second_unless_somebody_says_otherwise() -> None:
    assert sockio.py2.TCP("127.0.0.1", 1).timeout == 1.0
    assert sockio.py2.TCP("127.0.0.1", 1, 5.0).timeout == 5.0


@clause("A1", "F5")
@flavours("py2")
def test_a_caller_that_was_torn_while_it_waited_holds_nobody_up(instrument: Instrument) -> None:
    with Py2() as flavour:
        sock = flavour.tcp(instrument.host, instrument.port)
        sock.open()
        torn = sockio.py2._Ticket()  # its call has ended, but nobody took it out of the queue
        torn.running = sockio.py2._running(int, torn, ())
        sock.raw._queue.append(torn)
        running: list[Running] = [sock.start("write_readline", b"ECHO? %d\n" % number) for number in range(3)]
        assert sorted(each.result()[:2] for each in running) == [b"0,", b"1,", b"2,"]
        assert sock.raw._queue == []


@clause("C1")
@flavours("py2")
def test_a_url_makes_an_object(instrument: Instrument) -> None:
    with sockio.socket_for_url(instrument.url, concurrency="py2", timeout=5) as sock:
        assert isinstance(sock, sockio.py2.TCP)
        assert sock.timeout == 5
        assert sock.write_readline(b"*OPC?\n") == b"1\n"
    assert sys.modules["sockio.py2"] is sockio.py2
