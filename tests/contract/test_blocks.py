"""Chapter Q, blocks: IEEE 488.2 data of definite and indefinite length."""

from __future__ import annotations

from typing import Any

import pytest

from simulator import Instrument
from simulator.faults import Cut, Drip, Split
from simulator.multimeter import PATTERN
from sockio.common import BlockError, ConnectionClosedError, ConnectionEOFError, ConnectionTimeoutError
from tests.calls import callers
from tests.clauses import clause
from tests.flavours import BOUND, Flavour, eventually
from tests.peers import Peer, received, send_in_pieces

NASTY = bytes(range(256)) + b"\n#0\n#15\r\n\n"


def definite(data: bytes, eol: bytes = b"\n") -> bytes:
    """Return a block of definite length with its terminator."""
    return b"#%d%d%b%b" % (len(str(len(data))), len(data), data, eol)


@clause("Q5")
def test_a_definite_block_is_read_whole_with_its_terminator(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    for size in (0, 1, 9, 10, 1000, 100_000):
        assert sock.write_readblock(b"BLOCK? %d\n" % size) == (PATTERN * (size // len(PATTERN) + 1))[:size]
    sock.write(b"BLOCK? 3\n")
    assert sock.readblock() == PATTERN[:3]
    assert sock.in_waiting() == 0
    assert sock.connection_counter == 1


@clause("Q5")
@pytest.mark.parametrize("eol", [b"\n", b"\r\n", b"end"])
@pytest.mark.parametrize("data", [b"", b"\n", NASTY], ids=["empty", "terminator", "nasty"])
def test_a_definite_block_may_hold_any_byte(flavour: Flavour, peer: Peer, data: bytes, eol: bytes) -> None:
    sock = flavour.tcp(peer.host, peer.port, eol=eol)
    call = sock.start("readblock", timeout=BOUND)
    peer.accept().sendall(definite(data, eol) + b"next" + eol)
    assert call.result() == data
    assert sock.readline() == b"next" + eol


@clause("Q5")
@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n\n", NASTY], ids=["empty", "terminator", "terminators", "nasty"])
def test_an_indefinite_block_may_hold_any_byte(flavour: Flavour, peer: Peer, data: bytes) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    call = sock.start("readblock", timeout=BOUND)
    other_end = peer.accept()
    other_end.sendall(b"#0" + data + b"\n")
    assert call.result() == data
    other_end.sendall(b"next\n")
    assert sock.readline() == b"next\n"


@clause("Q5")
@pytest.mark.parametrize("length", [b"#3010", b"#0"], ids=["definite", "indefinite"])
def test_a_block_is_the_same_in_any_pieces(flavour: Flavour, peer: Peer, length: bytes) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    other_end = peer.accept()
    data = b"\nab\ncd#1\n\n"
    whole = length + data + b"\n"
    for size in (1, 2, 3, 5):
        call = sock.start("readblock", timeout=BOUND)
        send_in_pieces(other_end, sock, *(whole[at : at + size] for at in range(0, len(whole), size)))
        assert call.result() == data


@clause("Q5")
def test_the_end_of_the_link_ends_an_indefinite_block(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    call = sock.start("readblock", timeout=None)
    other_end = peer.accept()
    other_end.sendall(b"#0a\nb\n")
    other_end.close()
    assert call.result() == b"a\nb"
    with pytest.raises(ConnectionEOFError):
        sock.readblock(timeout=BOUND)


@clause("Q5", "A8")
def test_an_indefinite_block_that_came_before_the_end_of_the_link_is_whole(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    other_end = peer.accept()
    other_end.sendall(b"#0a\nb\n")
    other_end.close()
    eventually(lambda: not sock.connected())
    assert sock.readblock(timeout=None) == b"a\nb"


@clause("Q5", "C2")
def test_close_is_no_end_of_an_indefinite_block(flavour: Flavour, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "sockio.py2" if flavour.name == "py2" else "sockio._core"
    monkeypatch.setattr(flavour.imported(module), "QUIET", BOUND)
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    peer.accept().sendall(b"#0a\n")
    eventually(lambda: sock.in_waiting() == 4)
    call = sock.start("readblock")
    eventually(lambda: callers(sock) == 1)
    sock.close()
    assert isinstance(call.error(), ConnectionClosedError)


@clause("Q5", "Q1")
@pytest.mark.parametrize("sent", [b"#", b"#1", b"#15abc", b"#13abc", b"#0", b"#0abc", b"#41"])
def test_a_block_that_was_cut_off_is_only_partial(flavour: Flavour, peer: Peer, sent: bytes) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    call = sock.start("readblock", timeout=BOUND)
    other_end = peer.accept()
    other_end.sendall(sent)
    other_end.close()
    error: Any = call.error()
    assert isinstance(error, ConnectionEOFError)
    assert error.partial == sent


@clause("Q5", "X1", "X2")
@pytest.mark.parametrize("sent", [b"-113\n", b"#x5hello\n", b"#2x5\n", b"#13abcd", b"\n"])
def test_what_is_no_block_raises_and_drops_the_link(flavour: Flavour, peer: Peer, sent: bytes) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    call = sock.start("write_readblock", b"CURVE?\n", timeout=BOUND)
    other_end = peer.accept()
    assert received(other_end, 7) == b"CURVE?\n"
    other_end.sendall(sent)
    error: Any = call.error()
    assert isinstance(error, BlockError)
    assert isinstance(error, ConnectionError)
    assert isinstance(error, ValueError)
    assert sent.startswith(error.partial)
    assert error.partial
    assert f"{peer.host}:{peer.port}" in str(error)
    assert "write_readblock" in str(error)
    assert not sock.is_open


@clause("Q5", "Q3")
def test_a_block_may_be_larger_than_buffer_size(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, buffer_size=1000)
    size = 2**20
    assert sock.write_readblock(b"BLOCK? %d\n" % size, timeout=BOUND) == (PATTERN * (size // len(PATTERN) + 1))[:size]


@clause("Q5", "A7")
@pytest.mark.parametrize(
    ("begin", "end", "data"),
    [
        (b"#", b"15a\nb\nc\n", b"a\nb\nc"),
        (b"#15a\n", b"b\nc\n", b"a\nb\nc"),
        (b"#0ab", b"c\n", b"abc"),
        (b"#0ab\n", b"c\n", b"ab\nc"),
        (b"#6400000" + b"x" * 50_000, b"y" * 350_000 + b"\n", b"x" * 50_000 + b"y" * 350_000),
    ],
    ids=["head", "definite", "indefinite", "indefinite after a terminator", "large"],
)
def test_a_block_that_is_late_is_there_for_the_next_read(
    flavour: Flavour, peer: Peer, begin: bytes, end: bytes, data: bytes
) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    other_end = peer.accept()
    other_end.sendall(begin)
    eventually(lambda: sock.in_waiting() == len(begin))
    with pytest.raises(ConnectionTimeoutError):
        sock.readblock(timeout=0.01)
    call = sock.start("readblock", timeout=BOUND)
    other_end.sendall(end)
    assert call.result() == data
    assert sock.connection_counter == 1


@clause("Q5", "A7")
def test_a_large_read_that_gave_up_leaves_a_block_whole(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    other_end = peer.accept()
    for whole in (definite(NASTY), b"#0" + NASTY + b"\n"):
        other_end.sendall(whole)
        with pytest.raises(ConnectionTimeoutError):
            sock.readexactly(2**20, timeout=0.01)
        eventually(lambda: sock.in_waiting() == len(whole))  # noqa: B023
        assert sock.readblock(timeout=BOUND) == NASTY


@clause("Q5", "T4")
def test_a_block_that_is_there_whole_needs_no_time(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    other_end = peer.accept()
    for whole in (definite(NASTY), b"#0" + NASTY + b"\n"):
        other_end.sendall(whole)
        eventually(lambda: sock.in_waiting() == len(whole))  # noqa: B023
        assert sock.readblock(timeout=0) == NASTY


@clause("Q5")
@pytest.mark.parametrize("fault", [Split(1), Split(4), Split(5), Drip(0)], ids=str)
def test_the_block_of_a_request_comes_whole_however_it_was_sent(
    flavour: Flavour, instrument: Instrument, fault: Any
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    instrument.inject(fault)
    assert sock.write_readblock(b"BLOCK? 500\n", timeout=BOUND) == PATTERN[:500]


@clause("Q5", "A8")
def test_a_block_that_the_end_of_the_link_cut_is_lost_with_its_link(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    instrument.inject(Cut(after=7))
    with pytest.raises(ConnectionEOFError) as caught:
        sock.write_readblock(b"BLOCK? 500\n", timeout=BOUND)
    assert caught.value.partial == definite(PATTERN[:500])[:7]
    assert sock.write_readblock(b"BLOCK? 5\n", timeout=BOUND) == PATTERN[:5]
