"""What only the futures flavour has: futures, and the reactor behind them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import inspect
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

import sockio
import sockio._reactor
import sockio.futures
import sockio.sio
from simulator import Delay, Instrument, Silence
from sockio._async import AsyncTCP
from sockio._reactor import IN, OUT, Pause, Reactor, Selecting, reactor
from sockio._threads import PerProcess
from sockio.common import ConnectionClosedError, ConnectionTimeoutError, LinkError
from tests.clauses import clause, flavours
from tests.flavours import BOUND, Futures, eventually
from tests.flavours.futures import CALLS

pytestmark = flavours("futures")


@pytest.fixture
def tcp(instrument: Instrument) -> Iterator[sockio.futures.TCP]:
    """An object of this flavour."""
    sock = sockio.sio.TCP(instrument.host, instrument.port, resolve_futures=False)
    yield sock
    sock.close().result(BOUND)


# How it is made


def test_resolve_futures_false_makes_an_object_whose_calls_return_futures(instrument: Instrument) -> None:
    url = f"tcp://{instrument.host}:{instrument.port}"
    for sock in (
        sockio.sio.TCP(instrument.host, instrument.port, False, timeout=BOUND),
        sockio.sio.socket_for_url(url, resolve_futures=False, timeout=BOUND),
        sockio.socket_for_url(url, concurrency="futures", timeout=BOUND),
        sockio.socket_for_url(url, concurrency="sync", resolve_futures=False, timeout=BOUND),
    ):
        assert isinstance(sock, sockio.sio.TCP)
        assert not inspect.iscoroutinefunction(sock.write_readline)
        with sock:
            reply = sock.write_readline(b"ECHO? a\n")
            assert isinstance(reply, Future)
            assert reply.result().startswith(b"a,")


def test_a_class_derived_from_the_blocking_one_says_what_to_derive_from_instead() -> None:
    class Mine(sockio.sio.TCP):
        pass

    with pytest.raises(TypeError, match=r"sockio\.futures\.TCP"):
        Mine("127.0.0.1", 1, resolve_futures=False)


def test_every_call_of_the_async_flavours_is_there() -> None:
    calls = {name for name, value in vars(AsyncTCP).items() if inspect.iscoroutinefunction(value) and name[0] != "_"}
    assert calls == set(CALLS) <= vars(sockio.futures.TCP).keys()


# Futures


@clause("A1", "A3")
def test_as_completed_and_wait_know_the_futures(tcp: sockio.futures.TCP) -> None:
    calls = [tcp.write_readline(b"ECHO? %d\n" % number) for number in range(20)]
    replies = [call.result() for call in concurrent.futures.as_completed(calls, BOUND)]
    assert sorted(replies) == sorted(b"%d,%d\n" % (number, number + 1) for number in range(20))
    slow, never = tcp.write_readline(b"DELAY? 0.05\n"), tcp.readline()
    done, left = concurrent.futures.wait([slow, never], BOUND, concurrent.futures.FIRST_COMPLETED)
    assert (done, left) == ({slow}, {never})
    assert never.cancel()
    assert concurrent.futures.wait([never], BOUND).done == {never}


@clause("A2")
def test_a_call_in_flight_is_cancelled_at_once(tcp: sockio.futures.TCP, instrument: Instrument) -> None:
    instrument.inject(Silence())
    call = tcp.write_readline(b"ECHO? a\n")
    instrument.ledger.wait(lambda ledger: ledger.commands)
    assert call.cancel()
    assert call.cancelled()
    assert call.cancel()
    with pytest.raises(CancelledError):
        call.result()
    with pytest.raises(CancelledError):
        call.exception()
    assert tcp.write_readline(b"ECHO? b\n").result(BOUND) == b"b,2\n"
    assert instrument.ledger.links == [1, 2]


@clause("A3")
def test_a_call_that_is_cancelled_while_it_waits_for_its_turn_disturbs_nobody(
    tcp: sockio.futures.TCP, instrument: Instrument
) -> None:
    first, second, third = tcp.write_readline(b"DELAY? 0.1\n"), tcp.readline(), tcp.write_readline(b"ECHO? c\n")
    assert second.cancel()
    assert first.result(BOUND) == b"0.1\n"
    assert third.result(BOUND) == b"c,1\n"
    assert instrument.ledger.links == [1]


@clause("A7")
def test_a_read_is_either_cancelled_or_has_the_line(tcp: sockio.futures.TCP, instrument: Instrument) -> None:
    tcp.open().result(BOUND)
    read: list[bytes] = []
    for number in range(300):
        call = tcp.readline()
        instrument.send(b"%d\n" % number)
        while not call.cancel():
            read.append(call.result())
            call = tcp.readline()
    while len(read) < 300:
        read.append(tcp.readline(timeout=BOUND).result())
    assert read == [b"%d\n" % number for number in range(300)]


@clause("A7")
def test_a_cancellation_while_a_line_is_taken_comes_too_late(tcp: sockio.futures.TCP, instrument: Instrument) -> None:
    tcp.open().result(BOUND)
    link: Any = tcp._link
    receive, cancelled = link.receive, list[bool]()

    def meanwhile() -> bool:
        link.receive = receive
        canceller.start()
        canceller.join(0.1)  # it has to wait, for this step
        return bool(receive())

    call = tcp.readline()
    canceller = threading.Thread(target=lambda: cancelled.append(call.cancel()))
    link.receive = meanwhile
    instrument.send(b"one\n")
    assert call.result(BOUND) == b"one\n"
    canceller.join(BOUND)
    assert cancelled == [False]


def test_a_future_tells_its_timeout_its_exception_and_that_it_is_done(
    tcp: sockio.futures.TCP, instrument: Instrument
) -> None:
    instrument.inject(Delay(0.2))
    call = tcp.write_readline(b"ECHO? a\n")
    with pytest.raises(concurrent.futures.TimeoutError):
        call.result(0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        call.exception(-1)
    assert not call.done()
    assert call.exception(BOUND) is None
    assert call.result() == b"a,1\n"
    assert not call.cancel()
    failed = tcp.readline(timeout=0.01)
    assert isinstance(failed.exception(BOUND), ConnectionTimeoutError)


def test_several_threads_can_wait_for_one_future(tcp: sockio.futures.TCP) -> None:
    call = tcp.write_readline(b"DELAY? 0.1\n")
    replies: list[bytes] = []
    threads = [threading.Thread(target=lambda: replies.append(call.result(BOUND))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    assert replies == 5 * [b"0.1\n"]


def test_a_future_can_be_awaited_in_asyncio(tcp: sockio.futures.TCP) -> None:
    async def main() -> bytes:
        return await asyncio.wait_for(asyncio.wrap_future(tcp.write_readline(b"ECHO? a\n")), BOUND)

    assert asyncio.run(main()) == b"a,1\n"


@clause("E4")
def test_a_done_callback_that_blocks_holds_up_nobody(tcp: sockio.futures.TCP) -> None:
    replies: list[bytes] = []
    told, over = threading.Event(), threading.Event()

    def ask_again(_: Future[bytes]) -> None:
        replies.append(tcp.write_readline(b"ECHO? again\n").result(BOUND))
        told.set()
        assert over.wait(BOUND)

    call = tcp.write_readline(b"DELAY? 0.05\n")
    call.add_done_callback(ask_again)
    assert told.wait(BOUND)
    assert tcp.write_readline(b"ECHO? more\n").result(BOUND) == b"more,2\n"
    over.set()
    here: list[threading.Thread] = []
    call.add_done_callback(lambda _: here.append(threading.current_thread()))
    assert here == [threading.current_thread()]


@clause("A3", "E4")
def test_a_done_callback_may_use_the_object_whose_call_was_cancelled(tcp: sockio.futures.TCP) -> None:
    replies: list[bytes] = []
    told = threading.Event()

    def ask_again(_: Future[bytes]) -> None:
        replies.append(tcp.write_readline(b"ECHO? again\n").result(BOUND))
        told.set()

    tcp.open().result(BOUND)
    call = tcp.readline()
    call.add_done_callback(ask_again)
    assert call.cancel()
    assert told.wait(BOUND)
    assert replies == [b"again,1\n"]


# Callbacks


@clause("E1")
def test_a_future_that_on_connection_made_returns_is_waited_for(
    tcp: sockio.futures.TCP, instrument: Instrument
) -> None:
    tcp.on_connection_made = lambda: tcp.write_readline(b"DELAY? 0.05\n")
    assert tcp.write_readline(b"ECHO? a\n").result(BOUND) == b"a,1\n"
    assert instrument.ledger.commands == [b"DELAY? 0.05", b"ECHO? a"]


@clause("E1", "T1")
def test_a_future_that_on_connection_made_returns_is_cancelled_at_the_deadline(tcp: sockio.futures.TCP) -> None:
    never: Future[None] = Future()
    tcp.on_connection_made = lambda: never
    with pytest.raises(ConnectionTimeoutError):
        tcp.write_readline(b"ECHO? a\n", timeout=0.05).result(BOUND)
    eventually(never.cancelled)


@clause("E4")
def test_what_waits_for_the_future_of_on_connection_made_holds_up_nobody(
    tcp: sockio.futures.TCP, instrument: Instrument
) -> None:
    never: Future[None] = Future()
    over, started = threading.Event(), threading.Event()

    def block(_: Future[None]) -> None:
        started.set()
        over.wait(BOUND)

    never.add_done_callback(block)
    tcp.on_connection_made = lambda: never
    with sockio.futures.TCP(instrument.host, instrument.port) as other:
        try:
            opening = tcp.open(timeout=0.05)
            assert started.wait(BOUND)
            assert other.write_readline(b"DELAY? 0.05\n").result(BOUND / 2) == b"0.05\n"
            assert isinstance(opening.exception(BOUND / 2), ConnectionTimeoutError)
        finally:
            over.set()


@clause("T1", "C2")
@pytest.mark.parametrize("end", ["timeout", "close", "cancel"])
def test_a_callback_that_blocks_delays_neither_the_deadline_nor_close_nor_cancel(
    tcp: sockio.futures.TCP, end: str
) -> None:
    over, started = threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        over.wait(BOUND)

    tcp.on_connection_made = block
    try:
        call = tcp.write_readline(b"ECHO? a\n", timeout=0.05 if end == "timeout" else None)
        assert started.wait(BOUND)
        if end == "close":
            tcp.close()
        if end == "cancel":
            assert call.cancel()
        with pytest.raises(CancelledError if end == "cancel" else LinkError):
            call.result(BOUND)
    finally:
        over.set()


# The reactor


@clause("F2")
def test_a_thousand_calls_under_way_need_one_thread(instrument: Instrument) -> None:
    socks = [sockio.futures.TCP(instrument.host, instrument.port) for _ in range(200)]
    for opening in [sock.open() for sock in socks]:
        opening.result(BOUND)
    usual = threading.active_count()
    calls = [sock.readline() for sock in socks for _ in range(5)]
    assert threading.active_count() == usual
    for closing in [sock.close() for sock in socks]:
        closing.result(BOUND)
    assert {type(call.exception(BOUND)) for call in calls} == {ConnectionClosedError}


@clause("F2")
def test_reads_that_time_out_leave_nothing_behind(tcp: sockio.futures.TCP) -> None:
    tcp.open().result(BOUND)
    for _ in range(20):
        assert isinstance(tcp.readline(timeout=0.001).exception(BOUND), ConnectionTimeoutError)
    link: Any = tcp._link
    assert len(reactor()._armed[link.sock.fileno()]) == 1


@clause("F2")
def test_waits_for_a_result_that_time_out_leave_nothing_behind(tcp: sockio.futures.TCP) -> None:
    call: Any = tcp.readline()
    for _ in range(20):
        with pytest.raises(concurrent.futures.TimeoutError):
            call.result(0.001)
    assert not call._condition.sleepers


@clause("T1")
def test_each_of_many_deadlines_is_kept(tcp: sockio.futures.TCP, instrument: Instrument) -> None:
    tcp.open().result(BOUND)
    began = time.monotonic()
    calls = {timeout: tcp.readline(timeout=timeout) for timeout in (0.3, 0.05, 0.2, 0.1, 0.25, 0.15, 0.01)}
    for timeout, call in sorted(calls.items()):
        assert isinstance(call.exception(BOUND), ConnectionTimeoutError)
        assert time.monotonic() - began >= timeout
    assert instrument.ledger.links == [1]


@pytest.fixture
def without_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the reactor of a system that has no epoll."""
    monkeypatch.setattr(sockio._reactor, "new_poller", Selecting)
    monkeypatch.setattr(sockio.futures, "reactor", PerProcess(Reactor))


@pytest.mark.usefixtures("without_epoll")
def test_a_reactor_without_epoll_does_the_same(instrument: Instrument) -> None:
    with Futures() as flavour:
        sock = flavour.tcp(instrument.host, instrument.port, timeout=BOUND)
        for number in range(1, 4):
            assert sock.write_readline(b"ECHO? a\n") == b"a,%d\n" % number
        reading = sock.start("readline")
        with pytest.raises(ConnectionTimeoutError):
            sock.readline(timeout=0.01)
        sock.write(b"ECHO? b\n")
        assert reading.result() == b"b,4\n"
        with pytest.raises(ConnectionTimeoutError):
            sock.readline(timeout=0.01)
        sock.close()
        assert sock.write_readline(b"ECHO? c\n") == b"c,5\n"
        reading = sock.start("readline")
        reading.cancel()
        sock.start("readline")
        sock.close()
        eventually(lambda: not sock.raw.queues.reads)


def test_a_pause_for_a_closed_socket_is_over(tcp: sockio.futures.TCP) -> None:
    closed = socket.socket()
    closed.close()

    class Bell(sockio.futures.Bell):
        async def wait(self, deadline: float | None, connecting: Any = ()) -> bool:
            return await super().wait(deadline, [closed])

    assert tcp._run(Bell().wait(None))


def test_a_bell_rung_before_anybody_waits_is_heard(tcp: sockio.futures.TCP) -> None:
    bell = sockio.futures.Bell()
    bell.ring()
    assert tcp._run(bell.wait(None))
    assert not tcp._run(bell.wait(time.monotonic() + 0.01))


def test_a_pause_that_is_over_before_it_begins_is_none(tcp: sockio.futures.TCP) -> None:
    class Bell(sockio.futures.Bell):
        def _end(self) -> Any:
            self.ring()
            return super()._end()

    assert tcp._run(Bell().wait(None))


def test_waking_a_reactor_that_is_woken_often_enough_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    reactor = Reactor()

    class Full:
        def send(self, _: bytes) -> int:
            raise BlockingIOError

    monkeypatch.setattr(reactor, "_rope", Full())
    eventually(lambda: reactor._asleep)
    reactor.hurry(Pause(reactor, None))


def test_room_that_somebody_else_took_is_waited_for_again(tcp: sockio.futures.TCP) -> None:
    tcp.open().result(BOUND)
    link: Any = tcp._link
    send, busy = link.send, [2]

    def sometimes(data: bytes) -> int:
        if busy[0]:
            busy[0] -= 1
            raise BlockingIOError(errno.EAGAIN, "full")
        return int(send(data))

    link.send = sometimes
    assert tcp.write_readline(b"ECHO? a\n", timeout=BOUND).result() == b"a,1\n"


def test_an_error_of_a_call_that_never_waits_is_in_its_future(tcp: sockio.futures.TCP) -> None:
    call: Callable[..., Future[None]] = tcp.write
    assert isinstance(call("text").exception(0), TypeError)


def test_without_epoll_a_socket_that_was_closed_is_forgotten() -> None:
    poller = Selecting()
    with socket.socket() as alarm, socket.socket() as closed:
        poller.register(alarm, OUT)
        poller.register(closed, IN)
        closed.close()
        assert poller.poll(1) == [(alarm.fileno(), 0)]
        assert poller.poll(1) == [(alarm.fileno(), 0)]


@clause("F5")
@pytest.mark.parametrize("handed_over", [False, True], ids=["before it waits", "when the reactor has it"])
def test_ctrl_c_in_the_first_step_leaves_nothing_under_way(
    tcp: sockio.futures.TCP, monkeypatch: pytest.MonkeyPatch, handed_over: bool
) -> None:
    add = Reactor.add

    def strike(reactor: Reactor, pause: Pause, call: Any) -> None:
        if handed_over:
            add(reactor, pause, call)
        raise KeyboardInterrupt

    tcp.open().result(BOUND)
    monkeypatch.setattr(Reactor, "add", strike)
    with pytest.raises(KeyboardInterrupt):
        tcp.readline()
    monkeypatch.undo()
    eventually(lambda: not tcp.queues.reads)
    assert tcp.write_readline(b"ECHO? a\n").result(BOUND) == b"a,1\n"


@clause("F5")
def test_ctrl_c_in_result_cancels_the_call(tcp: sockio.futures.TCP, monkeypatch: pytest.MonkeyPatch) -> None:
    call = tcp.readline()

    class Struck:
        def acquire(self, *args: object) -> None:
            if args:
                raise KeyboardInterrupt

        def release(self) -> None:
            pass

    monkeypatch.setattr(sockio._reactor, "allocate_lock", Struck)
    with pytest.raises(KeyboardInterrupt):
        call.result()
    monkeypatch.undo()
    assert call.cancelled()
