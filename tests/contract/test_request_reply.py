"""Chapter Q of the contract: request and reply."""

from __future__ import annotations

import contextlib
import logging
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from simulator import Instrument
from simulator.faults import Cut, Drip, Reset, Split
from simulator.multimeter import PATTERN, readings
from sockio.common import (
    ConnectionClosedError,
    ConnectionEOFError,
    ConnectionLostError,
    ConnectionTimeoutError,
    LimitOverrunError,
)
from tests.calls import IDENTITY, callers
from tests.clauses import clause
from tests.flavours import Flavour, Py2On27, Script, Sock, eventually
from tests.logs import logged
from tests.peers import Peer, received, received_to_end, send_in_pieces

Factory = Callable[..., Instrument]

# Q1

CUT_SHORT = [
    pytest.param("readline", (), b"", id="readline of nothing"),
    pytest.param("readline", (), b"12.5", id="readline"),
    pytest.param("readline", (b"\r\n",), b"12.5\r", id="readline in its eol"),
    pytest.param("readlines", (2,), b"12.5\n1", id="readlines"),
    pytest.param("readlines", (2,), b"12.5\n", id="readlines between two"),
    pytest.param("readuntil", (b";",), b"12.5\n", id="readuntil"),
    pytest.param("readexactly", (6,), b"12.5\n", id="readexactly"),
    pytest.param("readexactly", (2**20,), b"12.5\n" * 100_000, id="large readexactly"),
]


@clause("Q1")
@pytest.mark.parametrize(("name", "args", "sent"), CUT_SHORT)
def test_what_the_end_of_the_link_cut_off_is_only_partial(
    flavour: Flavour, peer: Peer, name: str, args: tuple[Any, ...], sent: bytes
) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    call = sock.start(name, *args)
    other_end = peer.accept()
    other_end.sendall(sent)
    other_end.close()
    error = call.error()
    assert isinstance(error, ConnectionEOFError)
    assert error.partial == sent
    again = sock.start("readline")
    peer.accept().sendall(b"new\n")
    assert again.result() == b"new\n"


@clause("Q1")
@pytest.mark.parametrize(("name", "args", "sent"), CUT_SHORT[:-1])
def test_what_was_cut_off_before_the_call_is_only_partial(
    flavour: Flavour, peer: Peer, name: str, args: tuple[Any, ...], sent: bytes
) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    other_end = peer.accept()
    other_end.sendall(sent)
    other_end.close()
    eventually(lambda: not flavour.call(sock.raw.connected))
    with pytest.raises(ConnectionEOFError) as caught:
        getattr(sock, name)(*args)
    assert caught.value.partial == sent


@clause("Q1")
@pytest.mark.parametrize(
    ("limit", "sent"),
    [(6, b"12.5\n"), (b";", b"12.5\n"), (2**19, b"12.5\n" * 60_000)],
    ids=["small", "separator", "large"],
)
def test_a_block_that_was_cut_off_is_only_partial(
    flavour: Flavour, peer: Peer, limit: int | bytes, sent: bytes
) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    stream = flavour.module.BlockStream(sock.raw, limit)
    step = flavour.start(flavour.step, stream)
    other_end = peer.accept()
    other_end.sendall(sent)
    other_end.close()
    error = step.error()
    assert isinstance(error, ConnectionEOFError)
    assert error.partial == sent


@clause("Q1")
@pytest.mark.parametrize("after", range(len(IDENTITY)))
def test_a_reply_cut_anywhere_is_only_partial(flavour: Flavour, instrument: Instrument, after: int) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    requests: list[tuple[str, tuple[Any, ...]]] = [
        ("write_readline", (b"*IDN?\n",)),
        ("write_readlines", (b"*IDN?\n", 1)),
        ("writelines_readlines", ([b"*IDN?\n"],)),
    ]
    for link, (name, args) in enumerate(requests, 1):
        instrument.inject(Cut(after=after))
        with pytest.raises(ConnectionEOFError) as caught:
            getattr(sock, name)(*args)
        assert caught.value.partial == IDENTITY[:after]
        assert caught.value.request_sent
        assert len(instrument.ledger.links) == link
    assert instrument.ledger.count(b"*IDN?") == 3
    assert sock.write_readline(b"*IDN?\n") == IDENTITY


@clause("Q1")
def test_of_several_lines_the_whole_ones_are_partial_too(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    first, second, _ = (reading + b"\n" for _, reading in zip(range(3), readings(), strict=False))
    instrument.inject(Cut(after=len(first) + len(second) + 3))
    with pytest.raises(ConnectionEOFError) as caught:
        sock.write_readlines(b"DATA? 3\n", 3)
    assert caught.value.partial.startswith(first + second)
    assert len(caught.value.partial) == len(first) + len(second) + 3


@clause("Q1")
def test_a_reply_that_a_reset_cut_off_is_never_returned(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    instrument.inject(Reset(after=5))
    with pytest.raises(ConnectionLostError) as caught:
        sock.write_readline(b"*IDN?\n")
    assert IDENTITY[:5].startswith(caught.value.partial)
    assert sock.write_readline(b"*IDN?\n") == IDENTITY


@clause("Q1")
def test_a_whole_reply_before_the_end_of_the_link_is_returned(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    for _ in range(3):
        instrument.inject(Cut(after=len(IDENTITY)))
        assert sock.write_readline(b"*IDN?\n") == IDENTITY
        instrument.ledger.wait(lambda ledger: not ledger.open_links)


@clause("Q1")
def test_read_to_the_end_returns_everything(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, buffer_size=1000)
    instrument.inject(Cut(after=300_000))
    assert sock.write_read(b"RAW? 300000\n") == (PATTERN * 5)[:300_000]
    call = sock.start("read")
    instrument.ledger.wait(lambda ledger: ledger.open_links == [2])
    instrument.send(b"all of ")
    instrument.send(b"it")
    instrument.drop()
    assert call.result() == b"all of it"


# Q2

TERMINATORS = [b";", b"\r\n", b"\n\r\n\r", b"aab", b"-- end of reply --"]


@clause("Q2")
@pytest.mark.parametrize("eol", TERMINATORS)
def test_eol_of_any_length_for_the_object(flavour: Flavour, instrument_factory: Factory, eol: bytes) -> None:
    instrument = instrument_factory(eol=eol)
    sock = flavour.tcp(instrument.host, instrument.port, eol=eol)
    assert sock.write_readline(b"ECHO? x" + eol) == b"x,1" + eol
    assert sock.write_readlines(b"ECHO? x" + eol + b"ECHO? y" + eol, 2) == [b"x,2" + eol, b"y,3" + eol]
    assert sock.writelines_readlines([b"ECHO? x" + eol]) == [b"x,4" + eol]
    sock.write(b"ECHO? x" + eol)
    assert sock.readline() == b"x,5" + eol
    sock.write(b"ECHO? x" + eol)
    assert sock.readlines(1) == [b"x,6" + eol]
    sock.write(b"ECHO? x" + eol)
    assert next(sock.lines()) == b"x,7" + eol


@clause("Q2")
@pytest.mark.parametrize("eol", TERMINATORS)
def test_eol_of_any_length_for_a_call(flavour: Flavour, instrument_factory: Factory, eol: bytes) -> None:
    instrument = instrument_factory(eol=eol)
    sock = flavour.tcp(instrument.host, instrument.port)
    request = b"ECHO? a\nb" + eol
    assert sock.write_readline(request, eol) == b"a\nb,1" + eol
    assert sock.write_readlines(request, 1, eol) == [b"a\nb,2" + eol]
    assert sock.writelines_readlines([request], 1, eol) == [b"a\nb,3" + eol]
    sock.write(request)
    assert sock.readline(eol) == b"a\nb,4" + eol
    sock.write(request)
    assert sock.readlines(1, eol=eol) == [b"a\nb,5" + eol]
    sock.write(request)
    assert sock.readuntil(eol) == b"a\nb,6" + eol
    sock.write(request)
    assert next(sock.line_stream(eol)) == b"a\nb,7" + eol
    sock.write(request)
    assert next(sock.block_stream(eol)) == b"a\nb,8" + eol


@clause("Q2")
@pytest.mark.parametrize("eol", TERMINATORS)
def test_eol_is_found_across_any_split(flavour: Flavour, peer: Peer, eol: bytes) -> None:
    sock = flavour.tcp(peer.host, peer.port, eol=eol)
    echo = b"a" + eol[:-1] + b"a"  # a false start
    line = echo + eol
    sock.open()
    other_end = peer.accept()
    for at in range(1, len(line)):
        call = sock.start("readline")
        eventually(lambda: callers(sock) == 1)
        send_in_pieces(other_end, sock, line[:at], line[at:])
        assert call.result() == line
    assert sock.connection_counter == 1


@clause("Q2")
def test_the_end_of_a_reply_is_found_across_any_split(flavour: Flavour, instrument_factory: Factory) -> None:
    instrument = instrument_factory(eol=b"\r\n")
    sock = flavour.tcp(instrument.host, instrument.port, eol=b"\r\n")
    for at in (1, 2, 3, 4):
        instrument.inject(Split(at=at))
        assert sock.write_readline(b"ECHO? x\r\n") == b"x,%d\r\n" % at
    assert instrument.ledger.links == [1]


@clause("Q2")
def test_eol_is_found_when_every_byte_comes_alone(flavour: Flavour, instrument_factory: Factory) -> None:
    instrument = instrument_factory(eol=b"\r\n")
    sock = flavour.tcp(instrument.host, instrument.port, eol=b"\r\n")
    instrument.inject(Drip(pause=0.001), count=2)
    assert sock.write_readline(b"*IDN?\r\n") == IDENTITY[:-1] + b"\r\n"
    lines = sock.write_readlines(b"DATA? 3\r\n", 3)
    assert lines == [reading + b"\r\n" for _, reading in zip(range(3), readings(), strict=False)]


# Q3


def overlong(flavour: Flavour, peer: Peer, sock: Sock, name: str, *args: Any, total: int) -> BaseException:
    """Return what a call raises whose reply is ``total`` bytes without an end of line."""
    call = sock.start(name, *args)
    other_end = peer.accept()
    if "write" in name:
        received(other_end, len(b"*IDN?\n"))  # what comes before the request goes out is not its reply
    piece, sent = bytes(2**16), 0
    other_end.settimeout(0.1)  # a full window that nobody reads from any more may stay full for a minute
    with contextlib.suppress(ConnectionError):  # the link was dropped under way, as it should be
        while sent < total and not call.done():
            with contextlib.suppress(TimeoutError):
                sent += other_end.send(piece)
    error = call.error()
    eventually(lambda: not flavour.call(sock.raw.connected))
    return error


@clause("Q3")
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("readline", ()),
        ("readlines", (2,)),
        ("readuntil", (b";",)),
        ("write_readline", (b"*IDN?\n",)),
        ("write_readlines", (b"*IDN?\n", 2)),
        ("writelines_readlines", ([b"*IDN?\n"],)),
    ],
)
def test_a_line_longer_than_buffer_size_raises_and_drops_the_link(
    flavour: Flavour, peer: Peer, name: str, args: tuple[Any, ...]
) -> None:
    sock = flavour.tcp(peer.host, peer.port, buffer_size=1000)
    error = overlong(flavour, peer, sock, name, *args, total=2**17)
    assert isinstance(error, LimitOverrunError)
    assert isinstance(error, ConnectionError)
    assert isinstance(error, ValueError)
    assert "buffer_size" in str(error)
    again = sock.start("readline")
    peer.accept().sendall(b"new\n")
    assert again.result() == b"new\n"


@clause("Q3")
def test_an_overlong_line_raises_however_it_was_split(flavour: Flavour, peer: Peer) -> None:
    for pieces in ([b"x" * 9 + b"\n"], [b"x" * 9, b"\n"], [b"x" * 8, b"x", b"\n"], [b"x" * 9 + b"\nmore\n"]):
        sock = flavour.tcp(peer.host, peer.port, buffer_size=8)
        sock.open()
        call = sock.start("readline")
        send_in_pieces(peer.accept(), sock, *pieces)
        assert isinstance(call.error(), LimitOverrunError)


@clause("Q3")
@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
def test_a_line_of_just_buffer_size_is_returned(flavour: Flavour, peer: Peer, eol: bytes) -> None:
    line = b"x" * 8 + eol
    for at in range(1, len(line)):
        sock = flavour.tcp(peer.host, peer.port, buffer_size=8, eol=eol)
        sock.open()
        call = sock.start("readlines", 2)
        send_in_pieces(peer.accept(), sock, line[:at], line[at:] + line)
        assert call.result() == [line, line]


@clause("Q3")
def test_an_overlong_line_in_a_stream_raises(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port, buffer_size=8)
    stream = flavour.module.LineStream(sock.raw)
    sock.open()
    peer.accept().sendall(b"short\n" + b"x" * 9 + b"\n" + b"short\n")
    assert flavour.call(flavour.step, stream) == b"short\n"
    with pytest.raises(LimitOverrunError):
        flavour.call(flavour.step, stream)
    assert not sock.connected()


@clause("Q3")
def test_an_overlong_line_costs_little_more_memory_than_buffer_size(flavour: Flavour, peer: Peer) -> None:
    if isinstance(flavour, Py2On27):
        pytest.skip("its memory is in another process")
    limit = 2**23  # so much that what the tests themselves need is little beside it
    sock = flavour.tcp(peer.host, peer.port, buffer_size=limit)
    tracemalloc.start()
    try:
        error = overlong(flavour, peer, sock, "readline", total=2**25)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(error, LimitOverrunError)
    assert peak < limit + limit // 8 + 2**19  # a bytearray grows by an eighth more than it needs


@clause("Q3")
@pytest.mark.parametrize("size", [1001, 2**18, 2**18 + 1, 2**20])
def test_exact_reads_and_blocks_may_be_larger_than_buffer_size(
    flavour: Flavour, instrument: Instrument, size: int
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, buffer_size=1000)
    expected = (PATTERN * (size // len(PATTERN) + 1))[:size]
    for _ in range(2):
        sock.write(b"RAW? %d\n" % size)
        assert sock.readexactly(size) == expected
    sock.write(b"RAW? %d\nRAW? %d\n" % (size, size))
    blocks = sock.block_stream(size)
    assert next(blocks) == expected
    assert next(blocks) == expected
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert sock.connection_counter == 1


@clause("Q3")
def test_many_lines_may_be_larger_than_buffer_size_together(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, buffer_size=100)
    lines = sock.write_readlines(b"DATA? 5000\n", 5000)
    assert lines == [reading + b"\n" for _, reading in zip(range(5000), readings(), strict=False)]


# Q4

QUERIES: list[tuple[str, tuple[Any, ...], Any]] = [
    ("write_read", (b"*IDN?\n", 100), IDENTITY),
    ("write_readline", (b"*IDN?\n",), IDENTITY),
    ("write_readlines", (b"*IDN?\n", 1), [IDENTITY]),
    ("writelines_readlines", ([b"*IDN?\n"],), [IDENTITY]),
]


def after(flavour: Flavour, instrument: Instrument, sock: Sock, stale: bytes, name: str, *args: Any) -> Any:
    """Do a call at once after unsolicited bytes came, before any event loop could see them."""

    def body() -> Script:
        if not sock.raw.connected():
            yield sock.raw.open()
            yield sock.raw.write_readline(b"*OPC?\n")
        instrument.send(stale)
        return (yield getattr(sock.raw, name)(*args))

    return flavour.call(body)


def warned(caplog: pytest.LogCaptureFixture, instrument: Instrument) -> list[str]:
    """Return the warnings that were logged."""
    records = [record for record in logged(caplog) if record.levelno >= logging.WARNING]
    assert all(str(instrument.port) in record.getMessage() for record in records)
    return [record.getMessage() for record in records]


@clause("Q4")
@pytest.mark.parametrize(("name", "args", "reply"), QUERIES)
@pytest.mark.parametrize("stale", [b"stale\n", b"stale\nand more\n", b"\n"])
def test_whole_messages_that_nobody_asked_for_are_discarded_with_a_warning(
    flavour: Flavour,
    instrument: Instrument,
    caplog: pytest.LogCaptureFixture,
    name: str,
    args: tuple[Any, ...],
    reply: Any,
    stale: bytes,
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    assert after(flavour, instrument, sock, stale, name, *args) == reply
    (warning,) = warned(caplog, instrument)
    assert repr(stale) in warning
    assert instrument.ledger.links == [1]
    assert getattr(sock, name)(*args) == reply
    assert len(warned(caplog, instrument)) == 1


@clause("Q4")
def test_stale_messages_that_the_loop_has_seen_are_discarded_too(
    flavour: Flavour, instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    instrument.send(b"stale\n")
    eventually(lambda: flavour.call(sock.raw.in_waiting) == 6)
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert len(warned(caplog, instrument)) == 1


@clause("Q4")
def test_a_reply_that_was_longer_than_expected_does_not_answer_the_next_request(
    flavour: Flavour, instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    data = [reading + b"\n" for _, reading in zip(range(3), readings(), strict=False)]
    assert sock.write_readline(b"DATA? 3\n") == data[0]
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert len(warned(caplog, instrument)) == 1
    assert instrument.ledger.links == [1]


@clause("Q4")
def test_what_a_stream_has_set_aside_is_stale_too(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.write(b"DATA? 3\n")
    stream = flavour.module.LineStream(sock.raw)
    assert flavour.call(flavour.step, stream) == next(readings()) + b"\n"
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    sock.write(b"ECHO? x\n")
    assert flavour.call(flavour.step, stream) == b"x,1\n"


@clause("Q4")
@pytest.mark.parametrize(("name", "args", "reply"), QUERIES)
@pytest.mark.parametrize("stale", [b"unfinished", b"whole\nunfinished"])
def test_an_unfinished_message_sends_the_request_to_a_new_link(
    flavour: Flavour,
    instrument: Instrument,
    caplog: pytest.LogCaptureFixture,
    name: str,
    args: tuple[Any, ...],
    reply: Any,
    stale: bytes,
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    assert after(flavour, instrument, sock, stale, name, *args) == reply
    assert instrument.ledger.links == [1, 2]
    assert instrument.ledger.count(b"*IDN?") == 1
    assert len(warned(caplog, instrument)) == 1


@clause("Q4")
def test_the_calls_own_eol_says_what_a_whole_message_is(flavour: Flavour, instrument_factory: Factory) -> None:
    instrument = instrument_factory(eol=b";")
    sock = flavour.tcp(instrument.host, instrument.port)
    expected = IDENTITY[:-1] + b";"
    assert sock.write_readline(b"*OPC?;", b";") == b"1;"
    assert after(flavour, instrument, sock, b"stale;", "write_readline", b"*IDN?;", b";") == expected
    assert after(flavour, instrument, sock, b"stale;", "write_readlines", b"*IDN?;", 1, b";") == [expected]
    assert after(flavour, instrument, sock, b"stale;", "writelines_readlines", [b"*IDN?;"], 1, b";") == [expected]
    assert instrument.ledger.links == [1]
    assert after(flavour, instrument, sock, b"stale\n", "write_readline", b"*IDN?;", b";") == expected
    instrument.ledger.wait(lambda ledger: ledger.links == [1, 2])


@clause("Q4")
def test_an_unfinished_message_without_auto_reconnect_is_a_lost_link(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, auto_reconnect=False)
    with pytest.raises(ConnectionError):
        after(flavour, instrument, sock, b"unfinished", "write_readline", b"*IDN?\n")
    with pytest.raises(ConnectionClosedError, match=r"open\(\)"):
        sock.write_readline(b"*IDN?\n")
    assert instrument.ledger.count(b"*IDN?") == 0


@clause("Q4")
def test_more_stale_bytes_than_buffer_size_are_got_rid_of(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, buffer_size=1000)
    for size in (999, 1000, 1001, 2**17):
        stale = b"x" * size + b"\n"
        assert after(flavour, instrument, sock, stale, "write_readline", b"*IDN?\n") == IDENTITY


@clause("Q4")
def test_stale_input_can_be_kept(flavour: Flavour, instrument: Instrument, caplog: pytest.LogCaptureFixture) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, stale_input="keep")
    assert after(flavour, instrument, sock, b"kept\n", "write_readline", b"*IDN?\n") == b"kept\n"
    assert sock.readline() == IDENTITY
    assert after(flavour, instrument, sock, b"unfin", "write_readline", b"ECHO? ished\n") == b"unfinished,1\n"
    assert instrument.ledger.links == [1]
    assert not warned(caplog, instrument)


@clause("Q4")
@pytest.mark.parametrize(("name", "args"), [("write", (b"*IDN?\n",)), ("writelines", ([b"*IDN?\n"],))])
def test_plain_writes_never_discard(
    flavour: Flavour, instrument: Instrument, caplog: pytest.LogCaptureFixture, name: str, args: tuple[Any, ...]
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    after(flavour, instrument, sock, b"first\nunfinished", name, *args)
    assert sock.readline() == b"first\n"
    assert sock.readline() == b"unfinished" + IDENTITY
    assert not warned(caplog, instrument)
    assert instrument.ledger.links == [1]


# Q6


def patterned(size: int) -> bytes:
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


@clause("Q6")
@pytest.mark.parametrize("size", [1, 2**16, 2**24])
def test_all_of_a_write_reaches_the_peer_though_close_follows_at_once(flavour: Flavour, peer: Peer, size: int) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    data = patterned(size)

    def body() -> Script:
        yield sock.raw.write(data)
        yield sock.raw.close()

    writing = flavour.start(body)
    assert received_to_end(peer.accept()) == data
    writing.result()


@clause("Q6")
def test_a_write_reaches_the_peer_though_close_follows_and_its_answer_was_not_read(
    flavour: Flavour, peer: Peer
) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    other_end = peer.accept()
    data = patterned(2**16)

    def body() -> Script:
        other_end.sendall(b"unread")  # a socket closed over unread bytes sends a reset, which destroys what it sent
        yield sock.raw.write(data)
        yield sock.raw.close()

    flavour.call(body)
    assert received_to_end(other_end) == data


@clause("Q6")
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("write", (patterned(2**24),)),
        ("writelines", ([patterned(2**16)] * 256,)),
        ("write_readline", (patterned(2**24),)),
        ("writelines_readlines", ([patterned(2**16)] * 256, 1)),
    ],
    ids=["write", "writelines", "write_readline", "writelines_readlines"],
)
def test_all_of_a_large_request_reaches_a_peer_that_reads_slowly(
    flavour: Flavour, name: str, args: tuple[Any, ...]
) -> None:
    with Peer(receive_buffer=2**16) as peer:
        sock = flavour.tcp(peer.host, peer.port)
        call = sock.start(name, *args)
        other_end = peer.accept()
        assert received(other_end, 2**24) == patterned(2**24)
        other_end.sendall(b"done\n")
        call.result()


@clause("Q6")
def test_a_write_does_not_return_before_all_is_handed_over(flavour: Flavour) -> None:
    with Peer(receive_buffer=2**16) as peer:
        sock = flavour.tcp(peer.host, peer.port)
        call = sock.start("write", bytes(2**26))
        other_end = peer.accept()
        assert received(other_end, 2**16)
        assert not call.done()
        other_end.close()
        error = call.error()
    assert isinstance(error, ConnectionError)
    assert getattr(error, "request_sent", None)


@clause("Q6")
def test_a_write_that_the_peer_never_takes_fails_in_time(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    data = bytes(2**26)
    with pytest.raises(ConnectionTimeoutError) as caught:
        sock.write(data, timeout=0.2)
    assert caught.value.request_sent
    assert not sock.connected()


@clause("Q6")
def test_bytes_like_requests_are_sent_as_they_are(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    changing = bytearray(b"abc")
    sock.write(changing)
    changing[:] = b"xyz"
    sock.write(memoryview(b"def"))
    sock.writelines([bytearray(b"g"), memoryview(b"h"), b"i"])
    assert received(peer.accept(), 9) == b"abcdefghi"


@clause("Q1")
def test_a_reply_that_comes_before_all_of_a_large_request_was_sent_is_returned(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    first = sock.start("write_readline", b"first\n")
    other_end = peer.accept()
    assert received(other_end, 6) == b"first\n"
    other_end.sendall(b"first\n")
    assert first.result() == b"first\n"
    large = sock.start("write_readline", bytes(2**25))
    received(other_end, 1)
    other_end.sendall(b"early\n")
    eventually(lambda: sock.in_waiting() == 6)
    received(other_end, 2**25 - 1)
    assert large.result() == b"early\n"
