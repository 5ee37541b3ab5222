"""The faults that strike at once: links that end, ports that refuse, servers that do not read."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from simulator import Cut, Instrument, Prefix, background
from simulator.faults import EndOfLink
from simulator.multimeter import IDENTITY

from .conftest import Client

Connect = Callable[[Instrument], Client]


def test_drop_ends_every_link_with_fin(dmm: Instrument, connect: Connect) -> None:
    clients = [connect(dmm) for _ in range(3)]
    dmm.drop()
    assert [client.read() for client in clients] == [b"", b"", b""]
    assert dmm.ledger.links == [1, 2, 3]
    assert dmm.ledger.open_links == []


def test_drop_is_a_fin_even_with_unread_input(dmm: Instrument, client: Client) -> None:
    assert client.ask(b"*OPC?") == b"1\n"
    dmm.pause_reading()
    client.send(b"*IDN?\n" * 1000)
    dmm.drop()
    assert client.read() == b""


def test_reset_resets_every_link(dmm: Instrument, connect: Connect) -> None:
    clients = [connect(dmm) for _ in range(3)]
    dmm.reset()
    assert [client.read_until_reset() for client in clients] == [b"", b"", b""]


def test_a_link_that_was_dropped_leaves_room_for_the_next(dmm: Instrument, connect: Connect) -> None:
    for _ in range(50):
        client = connect(dmm)
        dmm.drop()
        assert client.read() == b""
    assert connect(dmm).ask(b"*OPC?") == b"1\n"


def test_dropping_ends_a_command_that_takes_its_time(dmm: Instrument, client: Client) -> None:
    client.send(b"DELAY? 86400\n")
    dmm.ledger.wait(lambda ledger: len(ledger.commands) == 1)
    dmm.drop()
    assert client.read() == b""


def test_a_link_ends_once(dmm: Instrument, client: Client) -> None:
    async def end_twice() -> None:
        (link,) = dmm._links
        link.end(EndOfLink("first"))
        link.end(EndOfLink("second", reset=True))

    assert client.ask(b"*OPC?") == b"1\n"
    background.run(end_twice())
    assert client.read() == b""
    dmm.ledger.wait(lambda ledger: [entry.detail for entry in ledger.entries if entry.event == "closed"] == ["first"])


def test_send_puts_unsolicited_bytes_on_every_link(dmm: Instrument, connect: Connect) -> None:
    clients = [connect(dmm) for _ in range(3)]
    dmm.send(b"hello\n")
    assert [client.readline() for client in clients] == 3 * [b"hello\n"]
    with pytest.raises(TypeError, match="data must be bytes, not 'hello'"):
        dmm.send("hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_send_to_a_link_that_ends_meanwhile_returns(dmm: Instrument, client: Client) -> None:
    client.send(b"RAW? 1e12\n")
    dmm.ledger.wait(lambda ledger: len(ledger.commands) == 1)
    sending = threading.Thread(target=dmm.send, args=(b"hello\n",))
    sending.start()
    dmm.ledger.wait(lambda ledger: any(entry.detail.startswith("send") for entry in ledger.entries))
    dmm.drop()
    sending.join(5)
    assert not sending.is_alive()


def test_send_to_a_link_that_is_ending_sends_nothing(dmm: Instrument, client: Client) -> None:
    async def end_and_send() -> None:
        for link in dmm._links:
            link.end(EndOfLink("end"))
        await dmm._send(b"hello\n")

    assert client.ask(b"*OPC?") == b"1\n"
    background.run(end_and_send())
    assert client.read() == b""


def test_send_to_a_client_that_has_gone_ends_the_link(dmm: Instrument, client: Client) -> None:
    dmm.pause_reading()
    dmm.send(b"hello\n")
    assert client.readline() == b"hello\n"
    dmm.send(b"unread\n")
    client.close()
    dmm.send(b"hello\n")
    dmm.send(b"hello\n")
    dmm.ledger.wait(lambda ledger: ledger.open_links == [])
    (closed,) = [entry for entry in dmm.ledger.entries if entry.event == "closed"]
    assert closed.detail.startswith("lost: ")


def test_send_gives_up_on_a_peer_that_takes_no_bytes(
    dmm: Instrument, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.send(b"RAW? 1e12\n")
    dmm.ledger.wait(lambda ledger: len(ledger.commands) == 1)
    with monkeypatch.context() as patch:
        patch.setattr(background, "PATIENCE", 0.05)
        with pytest.raises(TimeoutError, match="a peer takes no bytes"):
            dmm.send(b"hello\n")


def test_refuse_and_accept(dmm: Instrument, connect: Connect, client: Client) -> None:
    port = dmm.port
    for _ in range(3):
        dmm.refuse()
        with pytest.raises(ConnectionRefusedError):
            connect(dmm)
        assert client.ask(b"*OPC?") == b"1\n"
        dmm.accept()
        assert connect(dmm).ask(b"*OPC?") == b"1\n"
    assert dmm.port == port


def test_hanging_connections_time_out_and_links_stay(dmm: Instrument, connect: Connect, client: Client) -> None:
    for _ in range(2):
        dmm.hang()
        with pytest.raises(TimeoutError):
            socket.create_connection((dmm.host, dmm.port), timeout=0.2)
        dmm.hang()
        assert client.ask(b"*OPC?") == b"1\n"
        dmm.accept()
        assert connect(dmm).ask(b"*OPC?") == b"1\n"
    assert dmm.ledger.links == [1, 2, 3]


def test_a_connection_that_hangs_gets_in_after_accept(dmm: Instrument) -> None:
    dmm.hang()
    with socket.socket() as waiting:
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):
            waiting.connect((dmm.host, dmm.port))
        dmm.accept()
        dmm.ledger.wait(lambda ledger: len(ledger.links) == 1)


def test_refusing_and_hanging_replace_each_other(dmm: Instrument, connect: Connect) -> None:
    dmm.refuse()
    dmm.hang()
    with pytest.raises(TimeoutError):
        socket.create_connection((dmm.host, dmm.port), timeout=0.2)
    dmm.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(dmm)
    dmm.heal()
    assert connect(dmm).ask(b"*OPC?") == b"1\n"


@pytest.mark.parametrize("state", [Instrument.refuse, Instrument.hang])
def test_an_instrument_in_any_state_stops_and_starts(
    dmm: Instrument, connect: Connect, client: Client, state: Callable[[Instrument], None]
) -> None:
    state(dmm)
    dmm.drop()
    assert client.read() == b""
    dmm.stop()
    with pytest.raises(ConnectionRefusedError):
        connect(dmm)
    dmm.start()
    assert connect(dmm).ask(b"*OPC?") == b"1\n"


@pytest.mark.parametrize("state", [Instrument.refuse, Instrument.hang, Instrument.accept])
def test_a_stopped_instrument_has_no_port_to_change(state: Callable[[Instrument], None]) -> None:
    with pytest.raises(RuntimeError, match=r"dmm\.\w+\(\): the instrument is stopped, start\(\) it first"):
        state(Instrument())


def test_other_faults_may_strike_a_stopped_instrument(connect: Connect) -> None:
    instrument = Instrument()
    for strike in (instrument.drop, instrument.reset, instrument.heal, instrument.pause_reading):
        strike()
    instrument.send(b"hello")
    with instrument:
        client = connect(instrument)
        client.send(b"*OPC?\n")
        instrument.heal()
        assert client.readline() == b"1\n"


def test_a_server_that_never_reads_blocks_its_clients_until_it_resumes(dmm: Instrument, client: Client) -> None:
    assert client.ask(b"*OPC?") == b"1\n"
    dmm.pause_reading()
    client.socket.settimeout(0.3)
    line = b"OUTPUT " + 1000 * b"x" + b"\n"
    sent = 0
    with suppress(TimeoutError):
        while True:
            sent += client.socket.send(line[sent % len(line) :])
    assert dmm.ledger.commands == [b"*OPC?"]
    client.socket.settimeout(10)
    dmm.resume_reading()
    client.send(line[sent % len(line) :])
    assert client.ask(b"*IDN?") == IDENTITY + b"\n"
    assert dmm.ledger.commands[-1] == b"*IDN?"


def test_links_made_while_the_server_does_not_read_are_left_silent(dmm: Instrument, connect: Connect) -> None:
    dmm.pause_reading()
    client = connect(dmm)
    client.send(b"*IDN?\n")
    client.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.socket.recv(1)
    assert dmm.ledger.commands == []


def test_links_end_as_soon_as_they_are_accepted(dmm: Instrument, connect: Connect) -> None:
    dmm.drop_on_accept(2)
    dmm.reset_on_accept()
    assert connect(dmm).read() == b""
    assert connect(dmm).read() == b""
    with pytest.raises(ConnectionResetError):  # which may come before the connection is reported as made
        connect(dmm).socket.recv(1)
    assert connect(dmm).ask(b"*OPC?") == b"1\n"
    closed = [entry.detail for entry in dmm.ledger.entries if entry.event == "closed"]
    assert closed == ["drop_on_accept()", "drop_on_accept()", "reset_on_accept()"]
    with pytest.raises(ValueError, match="count must be a whole number, 1 or more, not 0"):
        dmm.drop_on_accept(0)


def test_a_link_that_is_made_already_is_not_turned_away(dmm: Instrument, connect: Connect) -> None:
    for _ in range(20):
        before = connect(dmm)
        dmm.drop_on_accept()
        assert connect(dmm).read() == b""
        assert before.ask(b"*OPC?") == b"1\n"


def test_heal_undoes_everything(dmm: Instrument, connect: Connect) -> None:
    dmm.inject(Cut(0), count=10)
    dmm.inject(Prefix(b"a"), command=b"*OPC?")
    dmm.drop_on_accept(5)
    dmm.pause_reading()
    dmm.refuse()
    dmm.heal()
    client = connect(dmm)
    assert client.ask(b"*OPC?") == b"1\n"
    dmm.heal()
    assert client.ask(b"*OPC?") == b"1\n"


def test_every_fault_is_on_record(dmm: Instrument) -> None:
    dmm.drop()
    dmm.reset()
    dmm.send(b"x")
    dmm.refuse()
    dmm.hang()
    dmm.accept()
    dmm.pause_reading()
    dmm.resume_reading()
    dmm.drop_on_accept()
    dmm.reset_on_accept(2)
    dmm.heal()
    assert [entry.detail for entry in dmm.ledger.entries if entry.event == "fault"] == [
        "drop()",
        "reset()",
        "send(b'x')",
        "refuse()",
        "hang()",
        "accept()",
        "pause_reading()",
        "resume_reading()",
        "drop_on_accept(), 1 times",
        "reset_on_accept(), 2 times",
        "heal()",
    ]


def test_teardown_is_prompt_whatever_the_links_are_doing(connect: Connect) -> None:
    with Instrument() as instrument:
        for message in (b"DELAY? 86400", b"RAW? 1e12", b"*IDN?;*IDN?;half a message"):
            connect(instrument).send(message + b"\n")
        instrument.ledger.wait(lambda ledger: len(ledger.commands) == 3)
        instrument.pause_reading()
        connect(instrument).send(b"*OPC?\n")
        instrument.hang()
        started = time.monotonic()
    assert time.monotonic() - started < 10
    assert instrument.ledger.open_links == []
