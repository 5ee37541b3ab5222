"""What hardly ever happens: states between two statements, made by hand."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import sockio._wire
import sockio.aio
import sockio.py2
import sockio.sio
from simulator import Instrument
from sockio._core import Core
from sockio._dial import Race
from sockio._rules import UNSET
from sockio.common import ConnectionClosedError, ConnectionLostError, ConnectionTimeoutError, LinkError, Retry
from tests.flavours import BOUND, FLAVOURS, Flavour, Script, eventually
from tests.peers import Peer


@pytest.fixture(params=[each for each in FLAVOURS if each.name != "py2"], ids=lambda each: each.variant)
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    """Each flavour that is made of the core."""
    with request.param() as flavour:
        yield flavour


#: For what holds in ``py2`` as well, as far as its link is in this process.
and_py2 = pytest.mark.parametrize(
    "flavour",
    [each for each in FLAVOURS if each.variant != "py2-2.7"],
    ids=lambda each: each.variant,
    indirect=True,
)


def test_python_finds_the_attributes_of_a_call_without_a_search(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.write_readline(b"*IDN?\n")
    for each in (sock.raw, sock.raw._link):
        assert len(vars(each)) <= 30, "CPython keeps more of them in a dictionary"


def test_a_query_that_waits_for_nothing_but_its_reply_goes_the_straight_way(
    flavour: Flavour, instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.write_readline(b"ECHO? a\n")
    monkeypatch.setattr(sock.raw, "_perform", None)
    assert sock.write_readline(b"ECHO? b\n") == b"b,2\n"


class Over:
    """A ticket whose call is over."""

    over = True


def echo_of_large_requests(size: int) -> int:
    """Serve one link: read ``size`` bytes, answer a line, and so on; return the port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as link:
            left = size
            while data := link.recv(2**20):
                left -= len(data)
                if left == 0:
                    link.sendall(b"done\n")
                    left = size

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def test_a_request_larger_than_the_buffers_of_the_system_gets_its_reply(flavour: Flavour) -> None:
    size = 2**24
    sock = flavour.tcp("127.0.0.1", echo_of_large_requests(size))
    for _ in range(2):
        assert sock.write_readline(b"x" * size, timeout=BOUND) == b"done\n"


@and_py2
@pytest.mark.parametrize("refusals", [1, 3])
def test_a_request_that_the_system_takes_nothing_of_at_first_gets_its_reply(
    flavour: Flavour, instrument: Instrument, refusals: int
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.write_readline(b"*OPC?\n")
    link = sock.raw._link
    send = link.send

    left = iter(range(refusals))

    def busy(data: bytes) -> int:
        if next(left, None) is None:
            return int(send(data))
        raise BlockingIOError(errno.EAGAIN, "full")

    link.send = busy
    assert sock.write_readline(b"ECHO? a\n", timeout=BOUND) == b"a,1\n"


@and_py2
def test_a_reset_between_two_parts_of_a_request_is_a_lost_link(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    link = sock.raw._link
    send = link.send

    def part(data: bytes) -> int:
        link.send = send
        size = int(send(data[:1]))
        instrument.reset()
        eventually(link.peer_gone)
        return size

    link.send = part
    with pytest.raises(ConnectionLostError) as caught:
        sock.write_readline(b"*IDN?\n", timeout=BOUND)
    assert caught.value.request_sent


def test_a_call_that_was_torn_off_costs_the_link(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    sock.raw._link.writing = True
    assert sock.write_readline(b"ECHO? a\n") == b"a,1\n"
    assert sock.connection_counter == 2


def test_a_link_that_was_replaced_meanwhile_fits_no_call(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    old = sock.raw._link
    sock.close()
    sock.open()
    old.closed = False
    assert not flavour.call(lambda: sock.raw._fits(old, True, True, False, None))


def test_a_straight_call_during_which_the_object_was_closed_keeps_its_reply(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.write_readline(b"ECHO? a\n")
    link = sock.raw._link
    settle = link.settle

    def settle_and_close() -> None:
        settle()
        sock.raw._close()

    link.settle = settle_and_close
    assert sock.write_readline(b"ECHO? b\n") == b"b,2\n"
    assert not sock.connected()
    assert sock.write_readline(b"ECHO? c\n") == b"c,3\n"


def test_a_ticket_that_another_thread_removes_first_is_no_matter(flavour: Flavour, instrument: Instrument) -> None:
    class Faster(list[Any]):
        def remove(self, ticket: Any) -> None:
            super().remove(ticket)
            raise ValueError

    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    sock.raw.queues.reads = Faster([Over()])

    def call() -> Any:
        return sock.raw.readbuffer()

    with pytest.raises(ValueError):  # from our own way out; the turn was taken  # noqa: PT011
        flavour.call(call)


class Overtaken(list[Any]):
    """A queue in which somebody else is always faster."""

    def append(self, ticket: Any) -> None:
        if not self:
            super().append(Over())
        super().append(ticket)


def test_a_request_that_is_overtaken_at_the_start_waits_for_its_turn(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.write_readline(b"ECHO? a\n")
    sock.raw.queues.reads = Overtaken()
    assert sock.write_readline(b"ECHO? b\n") == b"b,2\n"


@pytest.mark.parametrize("paused", [False, True])
def test_what_arrived_is_forgotten_unless_somebody_reads(
    flavour: Flavour, instrument: Instrument, paused: bool
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.write_readline(b"ECHO? a\n")
    instrument.send(b"junk\n")
    eventually(lambda: sock.in_waiting() == 5)
    queue = sock.raw.queues.reads
    sock.raw.queues.reads = Overtaken()
    sock.reset_input_buffer()
    assert sock.in_waiting() == 5
    sock.raw.queues.reads = queue
    sock.raw._link.paused = paused
    sock.reset_input_buffer()
    assert sock.in_waiting() == 0


def test_close_ends_the_pause_of_a_stream_that_reconnects(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, retry=Retry(attempts=None, delay=3600, max_delay=3600))
    step = flavour.start(flavour.step, flavour.module.LineStream(sock.raw, reconnect=True))
    eventually(lambda: sock.connection_counter == 1)
    instrument.drop()
    eventually(lambda: sock.connection_counter == 2)
    instrument.drop()
    eventually(lambda: sock.raw._bells and not sock.raw.queues.reads)
    sock.close()
    assert "iteration on" in str(step.error())


def test_a_link_outlives_its_object(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    link = sock.raw._link
    link.core = lambda: None
    flavour.call(link.end, None)
    flavour.call(link.hang_up)
    link.sock.close()
    link.abandon()


def test_bytes_that_somebody_else_took_first_are_no_end(
    flavour: Flavour, instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ready:
        def poll(self, _: float) -> list[tuple[int, int]]:
            return [(0, 1)]

    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    with monkeypatch.context() as patch:
        patch.setattr(sockio._wire, "poller_of", lambda _: Ready())
        assert sock.connected()


def test_open_inside_on_connection_made_says_that_the_object_is_open(flavour: Flavour, instrument: Instrument) -> None:
    errors: list[BaseException] = []

    def greet() -> Any:
        try:
            yield sock.raw.open()
        except ConnectionError as exc:
            errors.append(exc)

    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=flavour.callback(greet))
    sock.open()
    assert "already open" in str(errors[0])


@pytest.mark.parametrize("what", ["read", "dropped"])
def test_lines_that_another_thread_takes_before_the_stream_has_them_are_gone(
    flavour: Flavour, peer: Peer, what: str
) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    other_end = peer.accept()
    other_end.sendall(b"one\n")
    raw = sock.raw
    perform = raw._perform

    async def perform_late(*args: Any, **options: Any) -> Any:
        found = await perform(*args, **options)
        raw._perform = perform
        if what == "read":
            assert raw._link.buffer.take_until(b"\n") == b"one\n"
            other_end.sendall(b"two\n")
        else:
            raw._close()
        return found

    raw._perform = perform_late
    lines = sock.line_stream()
    if what == "read":
        assert next(lines) == b"two\n"
    else:
        with pytest.raises(ConnectionClosedError):
            next(lines)


def test_a_stream_is_its_own_iterator(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    stream = flavour.module.LineStream(sock.raw)
    assert flavour.call(flavour.stream_of, stream) is stream


def test_an_object_whose_link_has_ended_goes_without_a_warning(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    instrument.drop()
    while sock.connected():
        pass
    flavour.forget(sock)
    del sock
    gc.collect()


def test_an_address_that_is_refused_at_once_is_a_failed_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: 111)
    race = Race([(socket.AF_INET, ("127.0.0.1", 1))], lambda _: None)
    with pytest.raises(ConnectionRefusedError):
        race.step(0.0)


def test_a_blocking_call_that_would_suspend_is_a_defect() -> None:
    async def suspends() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="suspended"):
        sockio.sio.drive(suspends())


def test_the_default_of_timeout_has_a_short_repr() -> None:
    assert repr(UNSET) == "UNSET"


async def opened(instrument: Instrument, **options: Any) -> tuple[sockio.aio.TCP, sockio.aio.Link]:
    sock = sockio.aio.TCP(instrument.host, instrument.port, **options)
    await sock.open()
    link = sock._link
    assert isinstance(link, sockio.aio.Link)
    return sock, link


@pytest.mark.asyncio
async def test_a_wait_on_a_link_that_has_ended_is_over_at_once(instrument: Instrument) -> None:
    sock, link = await opened(instrument)
    link.drained = True
    await asyncio.wait_for(link.more(None), BOUND)
    link.resume()
    link.resume_writing()
    await sock.close()
    link.hang_up()
    with pytest.raises(LinkError):
        await link.flush(b"x", 0, None)


@pytest.mark.asyncio
async def test_a_connection_that_asyncio_refuses_leaves_no_socket(
    instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise OSError(5, "no")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", refuse)
    with pytest.raises(OSError, match="no"):
        await sockio.aio.TCP(instrument.host, instrument.port).open()


@pytest.mark.asyncio
async def test_close_ends_an_on_connection_made_that_waits(instrument: Instrument) -> None:
    waiting = asyncio.Event()

    async def greet() -> None:
        waiting.set()
        await asyncio.sleep(3600)

    sock = sockio.aio.TCP(instrument.host, instrument.port, on_connection_made=greet)
    opening = asyncio.ensure_future(sock.open())
    await waiting.wait()
    await sock.close()
    with pytest.raises(ConnectionError, match="closed"):
        await asyncio.wait_for(opening, BOUND)


def test_a_call_outside_of_any_loop_says_which_object_and_where_it_works() -> None:
    call = sockio.aio.TCP("host", 5025).write_readline(b"*IDN?\n")
    with pytest.raises(RuntimeError, match=r"aio\.TCP host:5025 closed>: no running event .*: use it in asyncio\.run"):
        call.send(None)


def test_what_happens_after_the_loop_has_ended_is_told_to_nobody(instrument: Instrument) -> None:
    loop = asyncio.SelectorEventLoop()
    told: list[object] = []

    async def prepare() -> tuple[sockio.aio.TCP, sockio.aio.Bell]:
        sock, _ = await opened(instrument, on_connection_lost=told.append)
        return sock, sockio.aio.Bell()

    sock, bell = loop.run_until_complete(prepare())
    loop.close()
    bell.ring_from_thread()
    instrument.drop()
    while sock.connected():
        pass
    Core.__del__(sock)
    assert told == []


@pytest.mark.asyncio
async def test_what_came_in_time_counts_though_the_loop_was_late(instrument: Instrument) -> None:
    sock, link = await opened(instrument)
    instrument.send(b"in time\n")
    while not sock.in_waiting():
        pass  # the loop has no chance to receive it
    waiting = link.more(0.0)
    link._tick()
    assert waiting.done()
    await waiting
    assert await sock.readline() == b"in time\n"
    await sock.close()


@pytest.mark.asyncio
async def test_an_on_connection_made_that_outlasts_the_deadline_is_given_up(instrument: Instrument) -> None:
    async def greet() -> None:
        await asyncio.sleep(3600)

    sock = sockio.aio.TCP(instrument.host, instrument.port, on_connection_made=greet)
    with pytest.raises(ConnectionTimeoutError):
        await sock.open(timeout=0.05)


def test_a_socket_that_another_thread_has_closed_has_ended(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    link = sock.raw._link
    flavour.call(link.hang_up)
    link.sock.close()
    assert link.peer_gone()


def test_a_scope_that_was_torn_off_is_forgotten(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    sock.raw._scopes.append(Over())
    assert sock.write_readline(b"ECHO? a\n") == b"a,1\n"
    assert sock.raw._scopes == []


def test_an_on_connection_made_that_never_returns_is_cancelled_at_the_deadline(instrument: Instrument) -> None:
    async def main() -> None:
        cancelled = asyncio.Event()

        async def never() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        tcp = sockio.aio.TCP(instrument.host, instrument.port, on_connection_made=never)
        with pytest.raises(ConnectionTimeoutError):
            await tcp.write_readline(b"ECHO? a\n", timeout=0.5)
        await asyncio.wait_for(cancelled.wait(), BOUND)

    asyncio.run(main())
    assert instrument.ledger.commands == []


def test_a_pause_that_begins_after_close_ends_at_once() -> None:
    tcp = sockio.py2.TCP("127.0.0.1", 1)
    with pytest.raises(ConnectionClosedError):
        tcp._sleep(BOUND, None, tcp._closings - 1)


def test_a_request_for_no_reply_waits_for_none(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    for _ in range(2):
        assert sock.write_readlines(b"*CLS\n", 0, timeout=BOUND) == []
        assert sock.writelines_readlines([b"*CLS\n"], 0, timeout=BOUND) == []
        assert sock.write_read(b"*CLS\n", 0, timeout=BOUND) == b""
    assert sock.write_readline(b"ECHO? a\n", timeout=BOUND) == b"a,1\n"
    assert instrument.ledger.count(b"*CLS") == 6


def test_a_deadline_may_be_further_away_than_the_operating_system_can_be_told(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockio.sio, "LONGEST", 0.001)
    sock = sockio.sio.TCP(peer.host, peer.port)
    began = time.monotonic()
    with pytest.raises(ConnectionTimeoutError):
        sock.readline(timeout=0.1)
    assert time.monotonic() - began >= 0.1
    sock.close()


def test_what_is_waiting_can_be_asked_while_another_thread_closes(peer: Peer) -> None:
    for tcp in (sockio.sio.TCP, sockio.py2.TCP):
        sock: Any = tcp(peer.host, peer.port)
        sock.open()
        sock._link.sock.close()  # the other thread has come as far as this
        assert sock.in_waiting() == 0
        sock.close()


def test_close_wakes_a_call_that_was_about_to_resolve_its_name(flavour: Flavour) -> None:
    answered = threading.Event()

    def lookup(*args: object) -> list[Any]:
        if len(args) == 3:  # whether it is an address
            sock.raw._close()
            raise socket.gaierror
        answered.wait(BOUND)
        return []

    sock = flavour.tcp("slow.test", 5025)
    sock.raw._lookup = lookup
    try:
        assert isinstance(sock.start("open").error(BOUND / 2), ConnectionClosedError)
    finally:
        answered.set()


def test_a_scope_that_another_thread_forgets_first_is_no_matter(flavour: Flavour, instrument: Instrument) -> None:
    class Faster(list[Any]):
        def remove(self, scope: Any) -> None:
            super().remove(scope)
            raise ValueError  # as it does when there is nothing left to remove

    sock = flavour.tcp(instrument.host, instrument.port)
    sock.raw._scopes = Faster()

    def body() -> Script:
        return (yield sock.raw.write_readline(b"ECHO? a\n"))

    assert flavour.start(sock.transaction, body).result() == b"a,1\n"
    sock.raw._scopes.append(Over())
    assert sock.write_readline(b"ECHO? b\n") == b"b,2\n"
    assert not sock.raw._scopes


def test_a_read_that_gave_up_leaves_the_memory_bounded(flavour: Flavour, peer: Peer) -> None:
    size = 100_000
    sock = flavour.tcp(peer.host, peer.port, buffer_size=size)
    sock.open()
    other_end = peer.accept()
    other_end.sendall(bytes(size - 1))
    with pytest.raises(ConnectionTimeoutError):
        sock.readline(timeout=0.1)
    other_end.settimeout(0.2)
    with pytest.raises(TimeoutError):  # nobody takes any more
        other_end.sendall(bytes(2**25))
    assert len(sock.raw._link.buffer) < size + 2**16
