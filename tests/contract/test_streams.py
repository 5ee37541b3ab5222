"""Chapter S of the contract: streams."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

import pytest

import sockio.aio
from simulator import Cut, Instrument, Reset, Silence
from sockio.common import (
    ConnectionClosedError,
    ConnectionEOFError,
    ConnectionLostError,
    ConnectionTimeoutError,
    LimitOverrunError,
    Retry,
)
from tests.calls import callers
from tests.clauses import clause, flavours
from tests.flavours import FLAVOURS, EndOfStream, Flavour, Script, Sock, eventually

Maker = Callable[..., Instrument]


def arrived(sock: Sock, size: int) -> Callable[[], bool]:
    """Return a condition: so many bytes have arrived and were not read."""
    return lambda: bool(sock.in_waiting() >= size)


def linked(sock: Sock, number: int) -> Callable[[], bool]:
    """Return a condition: so many links were made."""
    return lambda: bool(sock.connection_counter == number)


# S1


@clause("S1")
def test_the_object_iterates_over_its_lines(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.write(b"ECHO? a\nECHO? b\nECHO? c\n")
    lines = sock.lines()
    assert [next(lines) for _ in range(3)] == [b"a,1\n", b"b,2\n", b"c,3\n"]


@clause("S1", "C1")
def test_iterating_over_a_closed_object_connects(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    step = flavour.start(flavour.step, flavour.call(flavour.stream_of, sock.raw))
    eventually(linked(sock, 1))
    instrument.send(b"welcome\n")
    assert step.result() == b"welcome\n"
    assert instrument.ledger.links == [1]


@clause("S1")
def test_iteration_uses_the_eol_of_the_object(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, eol=b"||")
    sock.open()
    instrument.send(b"one|two||th\nree||")
    lines = sock.lines()
    assert [next(lines), next(lines)] == [b"one|two||", b"th\nree||"]


@clause("S1")
def test_a_line_stream_has_an_eol_of_its_own_or_that_of_the_object(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, eol=b"\r")
    sock.open()
    own = sock.line_stream(b";")
    instrument.send(b"a\rb;c\rd;e\r")
    assert [next(own), next(own)] == [b"a\rb;", b"c\rd;"]
    assert next(sock.line_stream()) == b"e\r"
    instrument.send(b"f;g;")
    assert next(sock.line_stream(eol=b";")) == b"f;"
    assert next(own) == b"g;"


@clause("S1")
@pytest.mark.parametrize("eol", ["\n", b"", 3])
def test_a_line_stream_refuses_a_bad_eol(flavour: Flavour, instrument: Instrument, eol: Any) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    with pytest.raises((TypeError, ValueError), match="eol"):
        sock.line_stream(eol)


@clause("S1")
def test_a_block_stream_of_a_number_yields_blocks_of_that_size(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.write(b"RAW? 30\n")
    blocks = sock.block_stream(10)
    assert [next(blocks) for _ in range(3)] == [bytes(range(10)), bytes(range(10, 20)), bytes(range(20, 30))]


@clause("S1")
def test_a_block_stream_of_bytes_yields_blocks_up_to_that_separator(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    blocks = sock.block_stream(b"--")
    instrument.send(b"a-b--")
    assert next(blocks) == b"a-b--"
    instrument.send(b"\n-")
    eventually(arrived(sock, 2))
    instrument.send(b"-c--")
    assert [next(blocks), next(blocks)] == [b"\n--", b"c--"]


@clause("S1")
@pytest.mark.parametrize("limit", [0, -1, b"", "--", 1.5])
def test_a_block_stream_refuses_a_bad_limit(flavour: Flavour, instrument: Instrument, limit: Any) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    with pytest.raises((TypeError, ValueError), match="limit"):
        sock.block_stream(limit)


@clause("S1")
def test_a_block_may_be_larger_than_the_buffer(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, buffer_size=1000)
    sock.write(b"RAW? 1310720\n")
    blocks = sock.block_stream(655360)
    assert next(blocks) == next(blocks) == 10 * bytes(range(256)) * 256


@clause("S1", "A7", "T1")
def test_a_step_that_times_out_leaves_the_stream_where_it_was(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    stream = flavour.module.LineStream(sock.raw, timeout=0.05)
    instrument.send(b"one\ntw")
    assert flavour.call(flavour.step, stream) == b"one\n"
    with pytest.raises(ConnectionTimeoutError):
        flavour.call(flavour.step, stream)
    instrument.send(b"o\n")
    eventually(arrived(sock, 4))
    assert flavour.call(flavour.step, stream) == b"two\n"
    assert instrument.ledger.links == [1]


@clause("S1", "A7")
def test_calls_between_steps_take_up_where_the_stream_stopped(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    instrument.send(b"1\n2\n3\n4\n5\n6\n")
    lines, others = sock.lines(), sock.lines()
    assert next(lines) == b"1\n"
    assert sock.readline() == b"2\n"
    assert next(lines) == b"3\n"
    assert next(others) == b"4\n"
    assert sock.readexactly(1) == b"5"
    assert [next(lines), next(others)] == [b"\n", b"6\n"]


@clause("S1", "Q3")
def test_a_line_longer_than_the_buffer_ends_the_stream_with_an_error(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, buffer_size=100)
    sock.open()
    lines = sock.lines()
    instrument.send(b"short\n" + 200 * b"x" + b"\n")
    assert next(lines) == b"short\n"
    with pytest.raises(LimitOverrunError):
        next(lines)


@clause("S1", "C2")
def test_closing_the_object_wakes_whoever_waits_in_a_stream(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    step = flavour.start(flavour.step, flavour.call(flavour.stream_of, sock.raw))
    eventually(lambda: callers(sock))
    sock.close()
    assert isinstance(step.error(), ConnectionClosedError)


# S2


@clause("S2")
@pytest.mark.parametrize("size", [32, 31, 17])
def test_the_end_that_comes_with_the_last_data(flavour: Flavour, instrument: Instrument, size: int) -> None:
    instrument.inject(Cut(size))
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.write(b"DATA? 2\n")
    instrument.ledger.wait(lambda ledger: ledger.links and not ledger.open_links)
    lines = sock.lines()
    whole = [next(lines) for _ in range(size // 16)]
    assert all(line.endswith(b"\n") and len(line) == 16 for line in whole), whole
    if size == 32:
        with pytest.raises(StopIteration):
            next(lines)
    else:
        with pytest.raises(ConnectionEOFError) as caught:
            next(lines)
        assert len(caught.value.partial) == size % 16


@clause("S2")
def test_a_stream_ends_cleanly_when_the_end_comes_while_it_waits(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.write(b"ECHO? a\n")
    stream = flavour.call(flavour.stream_of, sock.raw)
    assert flavour.call(flavour.step, stream) == b"a,1\n"
    step = flavour.start(flavour.step, stream)
    eventually(lambda: callers(sock))
    instrument.drop()
    assert isinstance(step.error(), EndOfStream)


@clause("S2")
def test_a_line_cut_off_while_the_stream_waits_for_its_rest_raises(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    step = flavour.start(flavour.step, flavour.call(flavour.stream_of, sock.raw))
    instrument.send(b"cut of")
    instrument.drop()
    error = step.error()
    assert isinstance(error, ConnectionEOFError)
    assert error.partial == b"cut of"


@clause("S2")
def test_a_stream_on_a_link_that_ends_without_a_byte_is_empty(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    instrument.drop()
    assert list(sock.lines()) == []


@clause("S2")
def test_a_block_stream_ends_like_a_line_stream(flavour: Flavour, instrument: Instrument) -> None:
    for limit, sent, cut in (
        (3, b"abcdef", b""),
        (3, b"abcdefg", b"g"),
        (b"--", b"a--b--", b""),
        (b"--", b"a--b-", b"b-"),
    ):
        sock = flavour.tcp(instrument.host, instrument.port)
        sock.open()
        instrument.send(sent)
        instrument.drop()
        blocks = sock.block_stream(limit)
        received = b""
        try:
            for block in blocks:
                received += block
            assert not cut
        except ConnectionEOFError as exc:
            assert exc.partial == cut != b""  # noqa: PT017
        assert received + cut == sent


@clause("S2")
def test_a_reset_while_the_stream_waits_raises(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    step = flavour.start(flavour.step, flavour.call(flavour.stream_of, sock.raw))
    eventually(lambda: callers(sock))
    instrument.reset()
    assert isinstance(step.error(), ConnectionLostError)


@clause("S2", "E3")
@pytest.mark.parametrize("noticed", [True, False], ids=["noticed before", "noticed by the stream"])
def test_a_reset_raises_after_the_whole_lines(flavour: Flavour, instrument: Instrument, noticed: bool) -> None:
    instrument.inject(Reset(32))
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.write(b"DATA? 2\n")
    lines = sock.lines()
    if noticed:
        eventually(lambda: not sock.connected())
    else:
        instrument.ledger.wait(lambda ledger: ledger.links and not ledger.open_links)
    assert len(next(lines) + next(lines)) == 32
    with pytest.raises(ConnectionLostError):
        next(lines)


@clause("S2")
def test_a_stream_never_goes_on_with_another_link(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    stream = flavour.call(flavour.stream_of, sock.raw)
    instrument.send(b"first\nsecond\nthird\n")
    assert flavour.call(flavour.step, stream) == b"first\n"
    instrument.drop()
    eventually(lambda: not sock.connected())
    assert sock.write_readline(b"ECHO? new\n") == b"new,1\n"
    instrument.send(b"of the second link\n")
    eventually(arrived(sock, 19))
    assert flavour.call(flavour.step, stream) == b"second\n"
    assert flavour.call(flavour.step, stream) == b"third\n"
    for _ in range(2):
        with pytest.raises(EndOfStream):
            flavour.call(flavour.step, stream)
    assert sock.readline() == b"of the second link\n"
    assert instrument.ledger.open_links == [2]


@clause("S2")
def test_what_was_cut_off_is_told_even_after_the_object_reconnected(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    stream = flavour.call(flavour.stream_of, sock.raw)
    instrument.send(b"first\nsec")
    assert flavour.call(flavour.step, stream) == b"first\n"
    instrument.drop()
    eventually(lambda: not sock.connected())
    assert sock.write_readline(b"ECHO? new\n") == b"new,1\n"
    with pytest.raises(ConnectionEOFError) as caught:
        flavour.call(flavour.step, stream)
    assert caught.value.partial == b"sec"
    assert sock.write_readline(b"ECHO? new\n") == b"new,2\n"
    assert instrument.ledger.links == [1, 2]


@clause("S2")
def test_a_second_stream_begins_on_a_new_link(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    for number in (1, 2, 3):
        stream = flavour.call(flavour.stream_of, sock.raw)
        step = flavour.start(flavour.step, stream)
        eventually(linked(sock, number))
        instrument.send(b"%d\n" % number)
        instrument.drop()
        assert step.result() == b"%d\n" % number
        with pytest.raises(EndOfStream):
            flavour.call(flavour.step, stream)
    assert instrument.ledger.links == [1, 2, 3]


@clause("S2", "E2")
def test_a_connection_attempt_that_fails_is_not_the_end_of_the_stream(flavour: Flavour, instrument: Instrument) -> None:
    def meet_the_end() -> Script:
        instrument.drop()
        with pytest.raises(ConnectionEOFError):
            yield sock.raw.readline()

    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=flavour.callback(meet_the_end))
    with pytest.raises(ConnectionEOFError):
        next(sock.lines())


@clause("S2", "A1")
def test_a_stream_whose_first_turn_comes_after_its_link_is_lost_takes_the_next(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    instrument.inject(Silence())
    query = sock.start("write_readline", b"*IDN?\n", timeout=0.2)
    instrument.ledger.wait(lambda ledger: ledger.commands)
    step = flavour.start(flavour.step, flavour.call(flavour.stream_of, sock.raw))
    assert isinstance(query.error(), ConnectionTimeoutError)
    eventually(lambda: step.done() or sock.connection_counter == 2)
    instrument.send(b"second link\n")
    assert step.result() == b"second link\n"


# S3


@clause("S3")
@pytest.mark.parametrize("how", ["drop", "reset"])
def test_a_reconnecting_stream_carries_on_over_lost_links(flavour: Flavour, instrument: Instrument, how: str) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    stream = flavour.module.LineStream(sock.raw, reconnect=True)
    for number in (1, 2, 3, 4):
        step = flavour.start(flavour.step, stream)
        eventually(linked(sock, number))
        instrument.send(b"%d\n" % number)
        assert step.result() == b"%d\n" % number
        getattr(instrument, how)()
    assert instrument.ledger.links == [1, 2, 3, 4]


@clause("S3", "A1")
def test_a_stream_that_reconnects_holds_up_nobody_who_waits_for_its_turn(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    stream = flavour.module.LineStream(sock.raw, reconnect=True)
    step = flavour.start(flavour.step, stream)
    eventually(linked(sock, 1))
    reading = sock.start("readline")
    eventually(lambda: callers(sock) == 2)
    instrument.drop()
    eventually(linked(sock, 2))
    instrument.send(b"1\n2\n")
    assert {step.result(5), reading.result(5)} == {b"1\n", b"2\n"}


@clause("S3")
@pytest.mark.parametrize("how", ["drop", "reset"])
def test_a_cut_line_is_never_joined_to_what_the_new_link_sends(
    flavour: Flavour, instrument: Instrument, how: str
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    stream = flavour.module.LineStream(sock.raw, reconnect=True)
    instrument.send(b"whole\ncut o")
    assert flavour.call(flavour.step, stream) == b"whole\n"
    getattr(instrument, how)()
    step = flavour.start(flavour.step, stream)
    eventually(linked(sock, 2))
    instrument.send(b"ff\nnext\n")
    assert step.result() == b"ff\n"
    assert flavour.call(flavour.step, stream) == b"next\n"


@clause("S3")
@pytest.mark.parametrize(("limit", "blocks"), [(4, [b"abcd", b"abcd"]), (b";", [b"a;", b"bcd;", b"a;"])])
def test_a_cut_block_is_never_joined_either(
    flavour: Flavour, instrument: Instrument, limit: int | bytes, blocks: list[bytes]
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    stream = flavour.module.BlockStream(sock.raw, limit, reconnect=True)
    whole = blocks[:-1]
    instrument.send(b"".join(whole) + b"xy")
    assert [flavour.call(flavour.step, stream) for _ in whole] == whole
    step = flavour.start(flavour.step, stream)
    instrument.drop()
    eventually(linked(sock, 2))
    instrument.send(blocks[-1])
    assert step.result() == blocks[-1]


@clause("S3", "R5")
def test_a_reconnecting_stream_keeps_to_the_retry_policy_when_refused(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, retry=Retry(attempts=None, delay=0.01))
    sock.open()
    stream = flavour.module.LineStream(sock.raw, reconnect=True)
    instrument.refuse()
    instrument.drop()
    step = flavour.start(flavour.step, stream)
    eventually(lambda: bool(sock.raw._bells))
    assert not step.done()
    instrument.accept()
    eventually(linked(sock, 2))
    instrument.send(b"again\n")
    assert step.result() == b"again\n"


@clause("S3", "R5")
def test_a_reconnecting_stream_gives_up_as_the_retry_policy_says(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, retry=Retry(attempts=2, delay=0.01))
    sock.open()
    instrument.refuse()
    instrument.drop()
    with pytest.raises(ConnectionRefusedError):
        next(sock.line_stream(reconnect=True))


@clause("S3", "R5")
def test_links_that_end_without_a_line_count_as_failed_attempts(flavour: Flavour, instrument: Instrument) -> None:
    instrument.drop_on_accept(100)
    sock = flavour.tcp(instrument.host, instrument.port, retry=Retry(attempts=3, delay=0.01))
    with pytest.raises((ConnectionEOFError, ConnectionLostError)):
        next(sock.line_stream(reconnect=True))
    # At most four links without a line, each after two attempts that met the end of theirs.
    assert 3 <= len(instrument.ledger.links) <= 12


@clause("S3", "T1")
def test_reconnecting_takes_no_longer_than_the_timeout_of_the_step(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, retry=Retry(attempts=None, delay=0.01))
    sock.open()
    instrument.refuse()
    instrument.drop()
    with pytest.raises(ConnectionTimeoutError):
        next(sock.line_stream(reconnect=True, timeout=0.1))


@clause("S3", "C2")
def test_closing_the_object_ends_a_reconnecting_stream(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    step = flavour.start(flavour.step, flavour.module.LineStream(sock.raw, reconnect=True))
    eventually(lambda: callers(sock))
    instrument.ledger.wait(lambda ledger: ledger.links)
    sock.close()
    assert isinstance(step.error(), ConnectionClosedError)
    assert instrument.ledger.links == [1]


# S4


class Torrent:
    """A device that answers anything with endless numbered lines, and counts those that were taken from it."""

    taken = 0

    def execute(self, _message: bytes) -> Iterator[bytes]:
        while True:
            line = numbered(self.taken)
            self.taken += 1
            yield line[:-1]


def numbered(number: int) -> bytes:
    return b"%01023d\n" % number


def standstill(torrent: Torrent) -> int:
    """Return how many lines were taken when for 0.2 s no more were; 100 MB count as for ever."""
    last, since = -1, time.monotonic()
    while time.monotonic() < since + 0.2 and torrent.taken < 100_000:
        if torrent.taken != last:
            last, since = torrent.taken, time.monotonic()
        time.sleep(0.005)
    return torrent.taken


@clause("S4")
@pytest.mark.parametrize("kind", ["lines", "blocks"])
def test_a_slow_consumer_stops_the_peer(flavour: Flavour, instrument_factory: Maker, kind: str) -> None:
    torrent = Torrent()
    instrument = instrument_factory(torrent)
    sock = flavour.tcp(instrument.host, instrument.port, buffer_size=100_000)
    sock.write(b"go\n")
    raw = sock.raw
    stream = flavour.module.LineStream(raw) if kind == "lines" else flavour.module.BlockStream(raw, 1024)

    numbers = itertools.count()

    def consume(enough: Callable[[int], bool]) -> Script:
        for number in numbers:
            assert (yield flavour.step(stream)) == numbered(number)
            assert len(raw._link.buffer) <= 100_000 + 2**16
            if enough(number):
                return

    flavour.start(consume, lambda number: number == 10).result()
    stopped_at = standstill(torrent)
    assert stopped_at < 40_000, "more than the systems of both ends hold"
    assert len(raw._link.buffer) <= 100_000 + 2**16
    flavour.start(consume, lambda number: torrent.taken > stopped_at or number > stopped_at).result()
    assert torrent.taken > stopped_at
    assert standstill(torrent) < 2 * 40_000


# S5


@clause("S5")
def test_lines_that_arrived_together_cost_no_wait_each(
    flavour: Flavour, instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[None] = []
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    more = sock.raw._link.more

    def counting(deadline: float | None) -> Any:
        waits.append(None)
        return more(deadline)

    instrument.send(b"".join(b"%07d\n" % number for number in range(4000)))
    eventually(arrived(sock, 32000))
    monkeypatch.setattr(sock.raw._link, "more", counting)
    stream = flavour.call(flavour.stream_of, sock.raw)

    def consume() -> Script:
        for number in range(4000):
            assert (yield flavour.step(stream)) == b"%07d\n" % number

    flavour.start(consume).result()
    assert len(waits) <= 2


async def fill(instrument: Instrument, sock: sockio.aio.TCP, data: bytes) -> None:
    await asyncio.to_thread(instrument.send, data)
    await asyncio.to_thread(eventually, lambda: sock.in_waiting() >= len(data))


async def most_at_a_stretch(consume: Callable[[list[int]], Coroutine[Any, Any, None]]) -> int:
    """Run a consumer beside a task that never waits; return the most that it consumed between two turns of that."""
    consumed: list[int] = []
    most = 0
    consumer = asyncio.ensure_future(consume(consumed))
    while not consumer.done():
        before = sum(consumed)
        await asyncio.sleep(0)
        most = max(most, sum(consumed) - before)
    consumer.result()
    return most


@clause("S5")
@flavours("aio")
@pytest.mark.parametrize("variant", [flavour for flavour in FLAVOURS if flavour.name == "aio"])
def test_a_stream_lets_its_neighbours_run_every_64_kib(variant: type[Flavour], instrument: Instrument) -> None:
    async def main() -> None:
        async with sockio.aio.TCP(instrument.host, instrument.port, buffer_size=2**22) as sock:
            for stream in (sockio.aio.LineStream(sock), sockio.aio.BlockStream(sock, 1024)):
                await fill(instrument, sock, 500 * numbered(7))
                assert await most_at_a_stretch(partial(consume, stream)) <= 2**16 + 1024

    async def consume(stream: sockio.aio.LineStream | sockio.aio.BlockStream, consumed: list[int]) -> None:
        while len(consumed) < 500:
            consumed.append(len(await anext(stream)))

    with variant() as flavour:
        flavour.call(main)


@clause("S5")
@flavours("aio")
@pytest.mark.parametrize("variant", [flavour for flavour in FLAVOURS if flavour.name == "aio"])
def test_a_stream_lets_its_neighbours_run_every_millisecond(variant: type[Flavour], instrument: Instrument) -> None:
    async def main() -> None:
        async with sockio.aio.TCP(instrument.host, instrument.port) as sock:
            await fill(instrument, sock, 20 * b"x\n")
            assert await most_at_a_stretch(lambda consumed: consume(sock, consumed)) <= 2

    async def consume(sock: sockio.aio.TCP, consumed: list[int]) -> None:
        async for line in sock:
            time.sleep(0.0015)  # noqa: ASYNC251 (the consumer's own work)
            consumed.append(len(line) // 2)
            if len(consumed) == 20:
                return

    with variant() as flavour:
        flavour.call(main)
