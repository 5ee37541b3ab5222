"""The faults that a reply suffers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from simulator import (
    Cut,
    Delay,
    Drip,
    Duplicate,
    Fault,
    Instrument,
    Late,
    Prefix,
    Reset,
    Silence,
    Split,
    kernel,
)
from simulator.multimeter import IDENTITY, PATTERN

from .conftest import Client

Connect = Callable[[Instrument], Client]
REPLY = IDENTITY + b"\n"


@pytest.mark.parametrize("after", [0, 1, 5, len(REPLY) - 1, len(REPLY), 1000])
def test_cut_sends_exactly_that_many_bytes_and_fin(client: Client, dmm: Instrument, after: int) -> None:
    dmm.inject(Cut(after))
    client.send(b"*IDN?\n*OPC?\n")
    assert client.read() == REPLY[:after]
    dmm.ledger.wait(lambda ledger: ledger.entries[-1].detail == f"Cut(after={after})")
    assert dmm.ledger.commands == [b"*IDN?"]


@pytest.mark.parametrize("after", [0, 1, 5, len(REPLY), 1000])
def test_reset_delivers_exactly_that_many_bytes_and_rst(client: Client, dmm: Instrument, after: int) -> None:
    dmm.inject(Reset(after))
    client.send(b"*IDN?\n")
    assert client.read_until_reset() == REPLY[:after]
    assert dmm.ledger.commands == [b"*IDN?"]


def test_a_long_reply_is_cut_at_any_byte(client: Client, dmm: Instrument) -> None:
    dmm.inject(Cut(150_001))
    client.send(b"RAW? 1e12\n")
    assert client.read() == (3 * PATTERN)[:150_001]


def test_delay_keeps_the_link_busy(client: Client, dmm: Instrument) -> None:
    dmm.inject(Delay(0.05))
    started = time.monotonic()
    client.send(b"*IDN?\n*OPC?\n")
    assert client.readline() == REPLY
    assert time.monotonic() - started >= 0.05
    assert client.readline() == b"1\n"


def test_unsolicited_bytes_overtake_a_delayed_reply(client: Client, dmm: Instrument) -> None:
    dmm.inject(Delay(86400))
    client.send(b"*IDN?\n")
    dmm.ledger.wait(lambda ledger: ledger.count(b"*IDN?") == 1)
    dmm.send(b"hello\n")
    assert client.readline() == b"hello\n"


def test_late_lets_the_link_go_on(client: Client, dmm: Instrument) -> None:
    dmm.inject(Late(0.2))
    client.send(b"ECHO? a\nECHO? b\n")
    assert client.readline() == b"b,2\n"
    assert client.readline() == b"a,1\n"


def test_a_late_reply_to_a_client_that_has_gone_ends_the_link(client: Client, dmm: Instrument) -> None:
    dmm.inject(Late(0.05), command=b"RAW?")
    client.send(b"RAW? 1e9\nDELAY? 86400\n")
    dmm.ledger.wait(lambda ledger: len(ledger.commands) == 2)
    client.close()
    dmm.ledger.wait(lambda ledger: ledger.open_links == [])
    assert dmm.ledger.entries[-1].detail.startswith("lost: ")


def test_a_late_reply_is_forgotten_with_its_link(client: Client, dmm: Instrument) -> None:
    dmm.inject(Late(86400))
    client.send(b"*IDN?\n")
    dmm.ledger.wait(lambda ledger: ledger.count(b"*IDN?") == 1)
    dmm.drop()
    assert client.read() == b""


def test_silence_never_answers_and_goes_on(client: Client, dmm: Instrument) -> None:
    dmm.inject(Silence())
    client.send(b"ECHO? a\nECHO? b\n")
    assert client.readline() == b"b,2\n"


@pytest.mark.parametrize("at", range(len(REPLY) + 2))
def test_split_sends_two_pieces_that_are_read_apart(client: Client, dmm: Instrument, at: int) -> None:
    dmm.inject(Split(at))
    client.send(b"*IDN?\n")
    pieces = [piece for piece in (REPLY[:at], REPLY[at:]) if piece]
    assert [client.socket.recv(1000) for _ in pieces] == pieces
    assert client.ask(b"*OPC?") == b"1\n"


def test_split_may_pause_instead(client: Client, dmm: Instrument) -> None:
    dmm.inject(Split(3, pause=0.05))
    started = time.monotonic()
    assert client.ask(b"*IDN?") == REPLY
    assert time.monotonic() - started >= 0.05


def test_split_goes_on_when_the_peer_does_not_read(
    client: Client, dmm: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simulator.link.LONGEST_WAIT", 0.05)
    dmm.inject(Split(3))
    client.send(b"*IDN?\n*OPC?\n")
    dmm.ledger.wait(lambda ledger: ledger.count(b"*OPC?") == 1)
    assert client.readline() == REPLY


def test_split_takes_a_moment_where_the_kernel_does_not_tell(
    client: Client, dmm: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "SOCK_DIAG", 99)
    dmm.inject(Split(3))
    assert client.ask(b"*IDN?") == REPLY


def test_nothing_comes_between_the_two_pieces_of_a_split_reply(client: Client, dmm: Instrument) -> None:
    dmm.inject(Split(3, pause=0.1))
    client.send(b"*IDN?\n")
    assert client.socket.recv(1000) == REPLY[:3]
    dmm.send(b"hello\n")
    assert client.readline() == REPLY[3:]
    assert client.readline() == b"hello\n"


def test_drip_sends_byte_by_byte(client: Client, dmm: Instrument) -> None:
    dmm.inject(Drip(0.005))
    started = time.monotonic()
    assert client.ask(b"*IDN?") == REPLY
    assert time.monotonic() - started >= 0.005 * (len(REPLY) - 1)
    assert client.ask(b"*OPC?") == b"1\n"


def test_prefix_sends_unsolicited_bytes_just_before_the_reply(client: Client, dmm: Instrument) -> None:
    dmm.inject(Prefix(b"hello\n"))
    client.send(b"RAW? 100000\n")
    assert client.read(100_006) == b"hello\n" + (2 * PATTERN)[:100_000]


def test_duplicate_sends_the_reply_twice(client: Client, dmm: Instrument) -> None:
    dmm.inject(Duplicate())
    assert client.ask(b"*IDN?") == REPLY
    assert client.readline() == REPLY
    assert dmm.ledger.count(b"*IDN?") == 1


def test_a_fault_applies_to_as_many_replies_as_ordered_then_comes_the_next(client: Client, dmm: Instrument) -> None:
    dmm.inject(Prefix(b"a"), count=2)
    dmm.inject(Prefix(b"b"))
    assert [client.ask(b"*OPC?") for _ in range(4)] == [b"a1\n", b"a1\n", b"b1\n", b"1\n"]


def test_a_fault_waits_for_the_command_that_it_was_ordered_for(client: Client, dmm: Instrument) -> None:
    dmm.inject(Prefix(b"a"), command=b"ECHO?")
    assert client.ask(b"*OPC?") == b"1\n"
    assert client.ask(b"ECHO? x") == b"ax,1\n"
    assert client.ask(b"ECHO? x") == b"x,2\n"


def test_a_command_without_a_reply_uses_up_no_fault(client: Client, dmm: Instrument) -> None:
    dmm.inject(Prefix(b"a"))
    client.send(b"*RST\n*CLS\nDATA? 0\n")
    assert client.ask(b"*OPC?") == b"a1\n"


def test_orders_and_their_effect_are_on_record(client: Client, dmm: Instrument) -> None:
    dmm.inject(Silence(), command=b"*OPC")
    client.send(b"*OPC?\n")
    dmm.ledger.wait(lambda ledger: len([entry for entry in ledger.entries if entry.event == "fault"]) == 2)
    details = [(entry.link, entry.detail) for entry in dmm.ledger.entries if entry.event == "fault"]
    assert details == [
        (None, "Silence() ordered for 1 replies to b'*OPC'..."),
        (1, "Silence() on the reply to b'*OPC?'"),
    ]


@pytest.mark.parametrize("fault", [Cut, Reset, Split])
@pytest.mark.parametrize("size", [-1, 1.5, "3", None])
def test_a_size_must_be_a_whole_number(fault: Callable[..., Fault], size: object) -> None:
    with pytest.raises(ValueError, match=rf"must be a whole number, 0 or more, not {size!r}"):
        fault(size)


@pytest.mark.parametrize("fault", [Delay, Late, Drip])
@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf, "1"])
def test_a_time_must_be_finite_and_not_negative(fault: Callable[..., Fault], seconds: Any) -> None:
    with pytest.raises(ValueError, match="must be a finite number of seconds, 0 or more"):
        fault(seconds)
    with pytest.raises(ValueError, match=r"Split\(.*\): pause must be a finite number"):
        Split(3, pause=seconds)


def test_unsolicited_data_must_be_bytes() -> None:
    with pytest.raises(TypeError, match=r"Prefix\(data='x'\): data must be bytes, not 'x'"):
        Prefix("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_a_bad_order_is_refused(dmm: Instrument) -> None:
    with pytest.raises(TypeError, match=r"like Cut\(after=3\), not 'cut'"):
        dmm.inject("cut")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="count must be a whole number, 1 or more, not 0"):
        dmm.inject(Silence(), count=0)
    with pytest.raises(TypeError, match="command must be bytes, not 'READ'"):
        dmm.inject(Silence(), command="READ")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_faults_can_be_ordered_from_async_code(client: Client, dmm: Instrument) -> None:
    async def order() -> None:
        dmm.inject(Prefix(b"a"))

    asyncio.run(order())
    assert client.ask(b"*OPC?") == b"a1\n"
