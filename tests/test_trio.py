"""What is particular to trio: its checkpoints, its clock, its cancel scopes, its runs."""

from __future__ import annotations

import asyncio
import functools
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from simulator import Instrument, Silence
from sockio.common import ConnectionTimeoutError, Retry
from sockio.trio import TCP, Bell, BlockStream, LineStream, _keepers
from tests.calls import CALLS, READS, REQUESTS, WRITES
from tests.flavours import BOUND
from tests.peers import Names, Peer, received

YEARS = 1e9


def run(main: Callable[..., Awaitable[Any]], *args: Any, clock: MockClock | None = None) -> Any:
    """Run a program in trio, within ``BOUND`` if its clock is the usual one."""

    async def bounded() -> Any:
        with trio.fail_after(BOUND) if clock is None else trio.CancelScope():
            return await main(*args)

    return trio.run(bounded, clock=clock)


async def connected(instrument: Instrument, **options: Any) -> TCP:
    sock = TCP(instrument.host, instrument.port, **options)
    await sock.open()
    return sock


async def buffered(instrument: Instrument, data: bytes) -> TCP:
    """Return an object that has received the data already."""
    sock = await connected(instrument)
    instrument.send(data)
    assert sock._link is not None
    while len(sock._link.buffer) < len(data):
        await trio.lowlevel.wait_readable(sock._link.sock)
        sock._link.receive()
    return sock


# Checkpoints


@pytest.mark.parametrize("name", [*READS, "readbuffer"])
def test_a_read_of_what_is_there_is_a_checkpoint(instrument: Instrument, name: str) -> None:
    async def main() -> None:
        sock = await buffered(instrument, b"line\n")
        with assert_checkpoints():
            await getattr(sock, name)(*CALLS[name])
        await sock.close()

    run(main)


@pytest.mark.parametrize("name", [*WRITES, *REQUESTS])
@pytest.mark.parametrize("state", ["open", "closed", "kept"])
def test_a_write_and_a_request_are_checkpoints(instrument: Instrument, name: str, state: str) -> None:
    async def main() -> None:
        if state == "kept":
            sock = await buffered(instrument, b"an answer that is there already\n")
            sock.stale_input = "keep"
        else:
            sock = await connected(instrument)
            if state == "closed":
                await sock.close()
        for _ in range(2):
            with assert_checkpoints():
                await getattr(sock, name)(*CALLS[name])
        await sock.close()

    run(main)


def test_open_close_and_the_context_managers_are_checkpoints(instrument: Instrument) -> None:
    async def main() -> None:
        sock = TCP(instrument.host, instrument.port)
        with assert_checkpoints():
            await sock.open()
        for _ in range(2):
            with assert_checkpoints():
                await sock.close()
        for _ in range(2):
            with assert_checkpoints():
                await sock.__aenter__()
        with assert_checkpoints():
            await sock.__aexit__(None, None, None)
        for _ in range(2):
            with assert_checkpoints():
                async with sock.transaction():
                    pass
        await sock.close()

    run(main)


@pytest.mark.parametrize("make", [LineStream, lambda sock: BlockStream(sock, 2)], ids=["lines", "blocks"])
def test_every_step_of_a_stream_can_be_cancelled_and_loses_nothing(
    instrument: Instrument, make: Callable[[TCP], Any]
) -> None:
    lines = [b"%d\n" % number for number in range(10)]

    async def main() -> None:
        sock = await buffered(instrument, b"".join(lines))
        stream = make(sock)
        for line in lines:
            with trio.CancelScope() as scope:
                scope.cancel()
                await anext(stream)
            assert scope.cancelled_caught
            assert await anext(stream) == line
        await sock.close()

    run(main)


@pytest.mark.parametrize("name", [*CALLS, "open", "transaction", "async with"])
@pytest.mark.parametrize("opened", [True, False], ids=["open", "closed"])
def test_what_was_cancelled_before_it_began_does_nothing(instrument: Instrument, name: str, opened: bool) -> None:
    async def main() -> None:
        sock = TCP(instrument.host, instrument.port)
        if opened:
            await sock.open()
            instrument.send(b"line\n")
            while not sock.in_waiting():
                await trio.lowlevel.checkpoint()
        with trio.CancelScope() as scope:
            scope.cancel()
            if name == "transaction":
                async with sock.transaction():
                    raise AssertionError("inside")
            elif name == "async with":
                async with sock:
                    raise AssertionError("inside")
            else:
                await getattr(sock, name)(*CALLS.get(name, ()))
        assert scope.cancelled_caught
        assert sock.connection_counter == int(opened)
        if opened:
            assert await sock.readline() == b"line\n"
        await sock.close()

    run(main)
    assert instrument.ledger.commands == []


def test_a_reply_that_was_taken_is_not_lost_to_a_cancellation(instrument: Instrument) -> None:
    async def main() -> None:
        sock = await buffered(instrument, b"line\n")
        seen: list[bytes] = []

        async def read(scope: trio.CancelScope) -> None:
            with scope:
                seen.append(await sock.readline())

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, scope)
            while sock.in_waiting():
                await trio.lowlevel.checkpoint()
            scope.cancel()
        assert seen == [b"line\n"]
        await sock.close()

    run(main)


def test_an_object_that_is_left_by_a_cancellation_is_closed(instrument: Instrument) -> None:
    async def main() -> None:
        sock = TCP(instrument.host, instrument.port)
        with trio.CancelScope() as scope:
            async with sock:
                scope.cancel()
        assert not sock.connected()

    run(main)


@pytest.mark.parametrize("where", ["connecting", "reading", "turn"])
def test_a_cancellation_is_raised_as_it_is(instrument: Instrument, where: str) -> None:
    async def main() -> None:
        sock = TCP(instrument.host, instrument.port)
        if where == "connecting":
            instrument.hang()
        else:
            await sock.open()
        async with trio.open_nursery() as nursery:
            if where == "turn":
                nursery.start_soon(sock.readline)
                await wait_all_tasks_blocked()
            with trio.CancelScope(deadline=trio.current_time() + 0.02) as scope:
                with pytest.raises(trio.Cancelled):
                    await sock.readline()
                await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught
            nursery.cancel_scope.cancel()
        await sock.close()

    run(main)


# Time


def test_a_deadline_is_kept_by_trios_clock(instrument: Instrument) -> None:
    clock = MockClock()

    async def main() -> None:
        sock = await connected(instrument)
        for timeout in (YEARS, 10, 2 * YEARS):
            expired: list[float] = []

            async def read(timeout: float = timeout, expired: list[float] = expired) -> None:
                with pytest.raises(ConnectionTimeoutError):
                    await sock.readline(timeout=timeout)
                expired.append(trio.current_time())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await wait_all_tasks_blocked()
                clock.jump(timeout - 1)
                await wait_all_tasks_blocked()
                assert not expired
                clock.jump(1)
            assert expired
        assert await sock.write_readline(b"ECHO? a\n", timeout=1) == b"a,1\n"
        await sock.close()

    run(main, clock=clock)
    assert instrument.ledger.links == [1]


@pytest.mark.parametrize("name", [*READS, *REQUESTS])
def test_a_timeout_of_years_passes_at_once_by_a_clock_that_jumps(peer: Peer, name: str) -> None:
    async def main() -> None:
        sock = TCP(peer.host, peer.port)
        await sock.open()
        began = trio.current_time()
        with pytest.raises(ConnectionTimeoutError):
            await getattr(sock, name)(*CALLS[name], timeout=YEARS)
        assert trio.current_time() - began == pytest.approx(YEARS)
        await sock.close()

    began = time.monotonic()
    run(main, clock=MockClock(autojump_threshold=0))
    assert time.monotonic() - began < BOUND


@pytest.mark.parametrize("timeout", [0, -1])
def test_no_time_at_all_at_the_beginning_of_time(instrument: Instrument, timeout: float) -> None:
    clock = MockClock()

    async def main() -> None:
        sock = await buffered(instrument, b"line\n")
        assert trio.current_time() == 0
        assert await sock.readline(timeout=timeout) == b"line\n"
        with pytest.raises(ConnectionTimeoutError):
            await sock.readline(timeout=timeout)
        await sock.close()

    run(main, clock=clock)


def test_pauses_between_attempts_are_of_trios_time(instrument: Instrument) -> None:
    async def main() -> None:
        instrument.refuse()
        sock = TCP(
            instrument.host, instrument.port, retry=Retry(attempts=5, delay=1000, factor=1, max_delay=1000, jitter=0)
        )
        with pytest.raises(ConnectionRefusedError):
            await sock.open()
        assert trio.current_time() == pytest.approx(4000)

    run(main, clock=MockClock(autojump_threshold=0.01))


def test_connecting_and_the_turn_are_part_of_the_deadline(instrument: Instrument, peer: Peer) -> None:
    async def main() -> None:
        instrument.hang()
        sock = TCP(instrument.host, instrument.port, connection_timeout=YEARS)
        with pytest.raises(ConnectionTimeoutError):
            await sock.open()
        instrument.heal()
        other = TCP(peer.host, peer.port)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other.readline)
            await wait_all_tasks_blocked()
            began = trio.current_time()
            with pytest.raises(ConnectionTimeoutError):
                await other.readline(timeout=YEARS)
            assert trio.current_time() - began == pytest.approx(YEARS)
            nursery.cancel_scope.cancel()
        await other.close()

    run(main, clock=MockClock(autojump_threshold=0.02))


def test_the_callback_is_cancelled_at_the_deadline_of_the_call(instrument: Instrument) -> None:
    async def main() -> None:
        sock = TCP(instrument.host, instrument.port, on_connection_made=trio.sleep_forever)
        with pytest.raises(ConnectionTimeoutError):
            await sock.write_readline(b"*IDN?\n", timeout=YEARS)

    run(main, clock=MockClock(autojump_threshold=0.02))
    assert instrument.ledger.commands == []


def test_who_is_not_late_goes_on_waiting(peer: Peer) -> None:
    clock = MockClock()
    data = b"x" * 2**24

    async def main() -> None:
        sock = TCP(peer.host, peer.port)
        await sock.open()
        other_end = peer.accept()
        other = TCP(peer.host, peer.port)
        await other.open()
        peer.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(sock.write, data, timeout=YEARS))

            async def read(sock: TCP, timeout: float) -> None:
                with pytest.raises(ConnectionTimeoutError):
                    await sock.readline(timeout=timeout)
                late.append(timeout)

            late: list[float] = []
            nursery.start_soon(read, sock, 10)
            nursery.start_soon(read, other, 20)
            await wait_all_tasks_blocked()
            for timeouts in ([10.0], [10.0, 20.0]):
                clock.jump(10)
                await wait_all_tasks_blocked()
                assert late == timeouts
            assert sock.queues.writes
            assert await trio.to_thread.run_sync(received, other_end, len(data)) == data
        await sock.close()
        await other.close()

    run(main, clock=clock)


def test_calls_with_the_same_timeout_move_the_keepers_alarm_once(instrument: Instrument) -> None:
    async def main() -> None:
        sock = await connected(instrument, timeout=YEARS)
        await sock.write_readline(b"*IDN?\n")
        keeper = _keepers.get()
        alarm = keeper.next_look
        for _ in range(10):
            await sock.write_readline(b"*IDN?\n")
        assert keeper.next_look == alarm
        await sock.close()

    run(main)


def test_a_reply_that_comes_with_the_deadline_is_taken(peer: Peer) -> None:
    clock = MockClock()

    async def main() -> None:
        sock = TCP(peer.host, peer.port)
        await sock.open()
        other_end = peer.accept()
        replies: list[bytes] = []

        async def ask() -> None:
            replies.append(await sock.write_readline(b"?\n", timeout=10))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            other_end.sendall(b"!\n")
            clock.jump(20)
        assert replies == [b"!\n"]
        await sock.close()

    run(main, clock=clock)


# Runs


def test_system_tasks_end_with_what_they_are_for(instrument: Instrument) -> None:
    async def main() -> None:
        sock = await connected(instrument)
        await sock.close()
        usual = trio.lowlevel.current_statistics().tasks_living
        for _ in range(20):
            await sock.open()
            await sock.close()
            await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == usual

    run(main)


def test_a_name_with_several_addresses_waits_for_all_of_them(instrument: Instrument, names: Names) -> None:
    names["dmm.test"] = [("127.0.0.2", 1), (instrument.host, instrument.port)]

    async def main() -> None:
        sock = TCP("dmm.test", instrument.port)
        assert await sock.write_readline(b"ECHO? a\n") == b"a,1\n"
        await sock.close()

    run(main)


def test_a_wait_that_ends_at_once_watches_no_socket() -> None:
    async def main() -> None:
        left, right = socket.socketpair()
        with left, right:
            bell = Bell()
            with trio.CancelScope() as scope:
                scope.cancel()
                await bell.wait(None, [left])
            assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        assert not bell.rung

    run(main)


def test_a_socket_that_is_connected_when_the_wait_ends_rings_no_more() -> None:
    async def main() -> None:
        left, right = socket.socketpair()
        with left, right:
            bell = Bell()
            assert await bell.wait(None, [left, right])
            bell.rung = False
            await wait_all_tasks_blocked()
            assert not bell.rung

    run(main)


def test_a_silent_instrument_times_out_and_nothing_is_left_behind(instrument: Instrument) -> None:
    async def main() -> None:
        instrument.inject(Silence())
        sock = await connected(instrument)
        with pytest.raises(ConnectionTimeoutError) as caught:
            await sock.write_readline(b"*IDN?\n", timeout=0.02)
        assert caught.value.request_sent
        assert await sock.write_readline(b"ECHO? a\n", timeout=BOUND) == b"a,1\n"
        await sock.close()

    run(main)
    assert instrument.ledger.links == [1, 2]


@pytest.mark.parametrize("name", ["open", "readline", "write_readline", "__aenter__", "transaction"])
def test_a_call_outside_of_trio_says_which_object_and_where_it_works(name: str) -> None:
    async def main() -> None:
        call = getattr(TCP("host", 5025), name)(*CALLS.get(name, ()))
        await (call.__aenter__() if name == "transaction" else call)

    with pytest.raises(RuntimeError, match=r"trio\.TCP host:5025 closed>: .*: use it in trio\.run\(\.\.\.\), or"):
        asyncio.run(main())
