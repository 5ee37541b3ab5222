"""What the contract promises with tasks and the end of a loop, on trio."""

from __future__ import annotations

import functools
import gc
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from simulator import Instrument
from sockio.common import ConnectionClosedError, ConnectionLostError, ConnectionTimeoutError
from sockio.trio import TCP, BlockStream, LineStream
from tests.clauses import clause, flavours
from tests.contract.test_lifetime import INTERRUPTED, WHERE, check_exit, check_interrupt
from tests.flavours import BOUND, eventually
from tests.peers import Names, Peer, received
from tests.programs import only_resource_warnings, outcome, python

on_trio = flavours("trio")


def run(main: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run a program in trio, within ``BOUND``."""

    async def bounded() -> Any:
        with trio.fail_after(BOUND):
            return await main(*args)

    return trio.run(bounded)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.001)


def has(seen: list[str], count: int) -> bool:
    return len(seen) == count


async def ask(sock: TCP, word: str, replies: list[bytes]) -> None:
    replies.append((await sock.write_readline(f"ECHO? {word}\n".encode())).partition(b",")[0])


# A


@clause("A6")
@on_trio
def test_the_tasks_that_a_transaction_starts_are_inside_it(instrument: Instrument) -> None:
    async def main() -> None:
        sock = TCP(instrument.host, instrument.port)
        replies: list[bytes] = []
        entered = trio.Event()

        async def inside() -> None:
            async with sock.transaction() as same:
                entered.set()
                await wait_all_tasks_blocked()  # the one outside waits for its turn
                async with trio.open_nursery() as nursery:
                    for number in range(5):
                        nursery.start_soon(ask, same, str(number), replies)

        async with sock, trio.open_nursery() as nursery:
            nursery.start_soon(inside)
            await entered.wait()
            nursery.start_soon(ask, sock, "outside", replies)
        assert sorted(replies[:5]) == [b"0", b"1", b"2", b"3", b"4"]
        assert replies[5:] == [b"outside"]

    run(main)


@clause("A6")
@on_trio
def test_a_task_that_outlives_its_transaction_is_outside(instrument: Instrument) -> None:
    async def main() -> None:
        sock = TCP(instrument.host, instrument.port)
        over = trio.Event()
        replies: list[bytes] = []

        async def child() -> None:
            await over.wait()
            await ask(sock, "a", replies)

        async with trio.open_nursery() as nursery:
            async with sock.transaction():
                nursery.start_soon(child)
                await sock.write_readline(b"*IDN?\n")
            instrument.drop()
            over.set()
        assert replies == [b"a"]
        await sock.close()

    run(main)
    assert instrument.ledger.links == [1, 2]


@clause("A7")
@on_trio
@pytest.mark.parametrize("ticks", range(6))
def test_a_step_of_a_stream_loses_no_line_wherever_the_cancellation_strikes(instrument: Instrument, ticks: int) -> None:
    lines = [b"%d\n" % number for number in range(20)]

    async def main() -> None:
        sock = TCP(instrument.host, instrument.port)
        await sock.open()
        instrument.send(b"".join(lines))
        await until(lambda: sock.in_waiting() == sum(map(len, lines)))
        stream = LineStream(sock)
        seen: list[bytes] = []

        async def step(scope: trio.CancelScope) -> None:
            with scope:
                seen.append(await anext(stream))

        while len(seen) < len(lines):
            stream._until = 0.0  # due to let its neighbours run
            scope = trio.CancelScope()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(step, scope)
                for _ in range(ticks):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
            if scope.cancelled_caught:
                seen.append(await anext(stream))
        assert seen == lines
        await sock.close()

    run(main)


@clause("A5", "A7", "T1")
@on_trio
def test_a_reader_that_is_late_leaves_the_writer_beside_it_alone(peer: Peer) -> None:
    data = b"x" * 2**24

    async def main() -> None:
        async with TCP(peer.host, peer.port) as sock, trio.open_nursery() as nursery:
            other_end = peer.accept()
            nursery.start_soon(functools.partial(sock.write, data, timeout=BOUND))
            await wait_all_tasks_blocked()
            with pytest.raises(ConnectionTimeoutError):
                await sock.readline(timeout=0.05)
            await wait_all_tasks_blocked()
            assert sock.queues.writes
            assert await trio.to_thread.run_sync(received, other_end, len(data)) == data

    run(main)


@clause("A5", "T1")
@on_trio
def test_a_writer_that_is_late_drops_the_link_under_the_reader(peer: Peer) -> None:
    async def main() -> None:
        sock = TCP(peer.host, peer.port)
        await sock.open()
        peer.accept()

        async def read() -> None:
            with pytest.raises(ConnectionLostError, match="its time is up") as caught:
                await sock.readline(timeout=BOUND)
            errors.append(caught.value)

        errors: list[BaseException] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await wait_all_tasks_blocked()
            with pytest.raises(ConnectionTimeoutError) as caught:
                await sock.write(b"x" * 2**24, timeout=0.05)
        assert caught.value.request_sent
        assert len(errors) == 1

    run(main)


# Q


@clause("Q5")
@on_trio
def test_a_writer_that_is_late_is_no_silence_that_ends_a_block(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sockio._core.QUIET", BOUND)

    async def main() -> None:
        async with TCP(peer.host, peer.port) as sock, trio.open_nursery() as nursery:
            other_end = peer.accept()

            async def read() -> None:
                assert await sock.readblock() == b"a\nb"

            nursery.start_soon(read)
            other_end.sendall(b"#0a\n")
            link = sock._link
            assert link is not None
            await until(lambda: len(link.buffer) == 4)
            await wait_all_tasks_blocked()
            trio.lowlevel.notify_closing(link.sock)  # as the keeper does
            await wait_all_tasks_blocked()
            other_end.sendall(b"b\n")
            other_end.close()

    run(main)


# S


class Stretches(trio.abc.Instrument):
    """Notes the most that is consumed in one step of a task, so that nobody else could run."""

    def __init__(self) -> None:
        self.consumed: list[int] = []
        self.most = self._before = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        total = sum(self.consumed)
        self.most = max(self.most, total - self._before)
        self._before = total


async def most_at_a_stretch(consume: Callable[[list[int]], Awaitable[None]]) -> int:
    """Run a consumer; return the most that it consumed before it let others run."""
    stretches = Stretches()
    trio.lowlevel.add_instrument(stretches)
    await trio.lowlevel.checkpoint()
    await consume(stretches.consumed)
    await trio.lowlevel.checkpoint()
    trio.lowlevel.remove_instrument(stretches)
    return stretches.most


@clause("S5")
@on_trio
@pytest.mark.parametrize("make", [LineStream, lambda sock: BlockStream(sock, 1024)], ids=["lines", "blocks"])
def test_a_stream_lets_its_neighbours_run_every_64_kib(instrument: Instrument, make: Callable[[TCP], Any]) -> None:
    async def consume(stream: Any, consumed: list[int]) -> None:
        while len(consumed) < 500:
            consumed.append(len(await anext(stream)))

    async def main() -> None:
        async with TCP(instrument.host, instrument.port, buffer_size=2**22) as sock:
            instrument.send(500 * (b"7" * 1023 + b"\n"))
            link = sock._link
            assert link is not None
            while len(link.buffer) < 500 * 1024:
                await trio.lowlevel.wait_readable(link.sock)
                link.receive()
            assert await most_at_a_stretch(functools.partial(consume, make(sock))) <= 2**16 + 1024

    run(main)


@clause("S5")
@on_trio
def test_a_stream_lets_its_neighbours_run_every_millisecond(instrument: Instrument) -> None:
    async def consume(sock: TCP, consumed: list[int]) -> None:
        async for line in sock:
            time.sleep(0.0015)  # noqa: ASYNC251 (the consumer's own work)
            consumed.append(len(line) // 2)
            if len(consumed) == 20:
                return

    async def main() -> None:
        async with TCP(instrument.host, instrument.port) as sock:
            instrument.send(20 * b"x\n")
            await until(lambda: sock.in_waiting() == 40)
            assert await most_at_a_stretch(functools.partial(consume, sock)) <= 2

    run(main)


# E


@clause("E1")
@on_trio
def test_tasks_that_the_callback_starts_may_use_the_object(instrument: Instrument) -> None:
    async def greet() -> None:
        replies: list[bytes] = []
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(ask, sock, str(number), replies)
        assert sorted(replies) == [b"0", b"1", b"2"]
        greeted.append(None)

    async def main() -> None:
        async with sock:
            instrument.drop()
            await until(lambda: not sock.connected())
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(sock.write_readline, b"READ?\n")

    greeted: list[None] = []
    sock = TCP(instrument.host, instrument.port, on_connection_made=greet)
    run(main)
    assert len(greeted) == 2
    assert instrument.ledger.commands[6:] == 3 * [b"READ?"]


@clause("E1")
@on_trio
def test_a_task_that_outlives_the_callback_queues_like_any_other(instrument: Instrument) -> None:
    async def main() -> None:
        made = trio.Event()
        replies: list[bytes] = []

        async def later() -> None:
            await made.wait()
            await ask(sock, "before", replies)
            instrument.drop()
            await until(lambda: not sock.connected())
            await ask(sock, "after", replies)

        def greet() -> None:
            if not sock.connection_counter:
                nursery.start_soon(later)

        sock = TCP(instrument.host, instrument.port, on_connection_made=greet)
        async with trio.open_nursery() as nursery:
            await sock.open()
            made.set()
        assert replies == [b"before", b"after"]
        await sock.close()

    run(main)
    assert instrument.ledger.links == [1, 2]


@clause("E1", "C2")
@on_trio
def test_close_cancels_the_callback(instrument: Instrument) -> None:
    async def main() -> None:
        ended: list[BaseException] = []

        async def greet() -> None:
            try:
                await trio.sleep_forever()
            except trio.Cancelled as exc:
                ended.append(exc)
                raise

        sock = TCP(instrument.host, instrument.port, on_connection_made=greet)

        async def use() -> None:
            with pytest.raises(ConnectionClosedError, match="closed meanwhile"):
                await sock.write_readline(b"*IDN?\n")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await until(lambda: instrument.ledger.links)
            await wait_all_tasks_blocked()
            await sock.close()
        assert len(ended) == 1

    run(main)
    assert instrument.ledger.commands == []


class Callbacks:
    """Every kind of callable, as a callback that notes its arguments."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def method(self, *args: object) -> None:
        self.seen.append(args)

    def with_keyword(self, _first: int, *args: object, keyword: int) -> None:
        assert keyword == 2
        self.seen.append(args)

    __call__ = method

    async def coroutine(self, *args: object) -> None:
        await trio.lowlevel.checkpoint()
        self.seen.append(args)

    def awaitable(self, *args: object) -> Awaitable[None]:
        coroutine = self.coroutine(*args)

        class Awaited:
            def __await__(self) -> Generator[Any, Any, None]:
                return coroutine.__await__()

        return Awaited()


KINDS: dict[str, Callable[[Callbacks], Any]] = {
    "method": lambda noted: noted.method,
    "partial": lambda noted: functools.partial(noted.with_keyword, 1, keyword=2),
    "object": lambda noted: noted,
    "coroutine function": lambda noted: noted.coroutine,
    "partial of a coroutine function": lambda noted: functools.partial(noted.coroutine),
    "function that returns an awaitable": lambda noted: noted.awaitable,
}


@clause("E4")
@on_trio
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_callbacks_may_be_any_callable(instrument: Instrument, make: Callable[[Callbacks], Any]) -> None:
    async def main() -> None:
        made, lost, eof = Callbacks(), Callbacks(), Callbacks()
        async with TCP(
            instrument.host,
            instrument.port,
            on_connection_made=make(made),
            on_connection_lost=make(lost),
            on_eof_received=make(eof),
        ):
            assert made.seen == [()]
            instrument.drop()
            await until(lambda: lost.seen and eof.seen)
            assert (lost.seen, eof.seen) == ([(None,)], [()])

    run(main)


@clause("E3", "E4")
@on_trio
@pytest.mark.parametrize("failure", [SystemExit, KeyboardInterrupt, GeneratorExit, BaseException])
def test_no_exception_of_a_callback_ends_the_run(
    instrument: Instrument, failure: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise failure("of a callback")

    async def main() -> None:
        async with TCP(instrument.host, instrument.port, on_connection_lost=fail) as sock:
            instrument.drop()
            await until(lambda: caplog.records)
            assert await sock.write_readline(b"ECHO? a\n") == b"a,1\n"

    caplog.set_level(logging.ERROR)
    run(main)
    assert all(record.exc_info and record.exc_info[0] is failure for record in caplog.records)


@clause("E4", "F6")
@on_trio
def test_a_nursery_of_a_callback_that_ends_with_the_run_is_no_failure(
    instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    async def wait(_: object) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(trio.sleep_forever)

    async def main() -> None:
        sock = TCP(instrument.host, instrument.port, on_connection_lost=wait)
        await sock.open()
        await sock.close()
        await wait_all_tasks_blocked()

    run(main)
    assert not caplog.records


@clause("E3")
@on_trio
def test_the_callbacks_of_a_link_start_in_the_order_of_their_events(instrument: Instrument) -> None:
    async def main() -> None:
        seen: list[str] = []

        async def eof() -> None:
            seen.append("eof")
            await trio.sleep_forever()

        async def lost(_: object) -> None:
            seen.append("lost")
            await trio.sleep_forever()

        async with TCP(instrument.host, instrument.port, on_eof_received=eof, on_connection_lost=lost) as sock:
            for number in range(1, 30):
                await sock.write_readline(b"*IDN?\n")
                instrument.drop()
                await until(functools.partial(has, seen, 2 * number))
        assert seen == 29 * ["eof", "lost"]

    run(main)


# F


@clause("F1")
@on_trio
@pytest.mark.parametrize("inside", [True, False], ids=["inside of the run", "after it"])
def test_nothing_but_the_warning_is_printed_when_the_interpreter_exits_with_an_open_object(
    instrument: Instrument, inside: bool
) -> None:
    program = """
        import os, sys, trio
        from sockio.trio import TCP
        async def main():
            global sock
            sock = TCP("127.0.0.1", int(sys.argv[1]), on_connection_lost=print, on_eof_received=print)
            sock.cycle = sock
            await sock.write_readline(b"*IDN?\\n", timeout=60)
            if sys.argv[2] == "True":
                sys.exit()
        trio.run(main)
    """
    only_resource_warnings(python(program, instrument.port, inside))


@clause("F1")
@on_trio
def test_an_object_that_is_dropped_on_another_thread_closes_its_socket(instrument: Instrument) -> None:
    async def main() -> None:
        objects = [TCP(instrument.host, instrument.port)]
        await objects[0].open()
        with pytest.warns(ResourceWarning, match="unclosed"):
            await trio.to_thread.run_sync(objects.clear)
        await until(lambda: not instrument.ledger.open_links)

    run(main)


@clause("F4")
@on_trio
def test_an_object_used_in_a_second_run_reconnects(instrument: Instrument) -> None:
    lost: list[Any] = []
    sock = TCP(instrument.host, instrument.port, on_connection_lost=lost.append)

    async def use(close: bool) -> None:
        replies: list[bytes] = []
        await ask(sock, "a", replies)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask, sock, "b", replies)
        assert replies == [b"a", b"b", b"b", b"b"]
        if close:
            await sock.close()

    for close in (False, False, True):
        run(use, close)
    assert instrument.ledger.links == [1, 2, 3]
    assert lost == [None, None, None]
    instrument.ledger.wait(lambda ledger: not ledger.open_links)
    gc.collect()  # nothing that was left behind complains


@clause("F4", "E3")
@on_trio
def test_the_end_of_a_link_after_its_run_is_known_and_complains_of_nothing(instrument: Instrument) -> None:
    lost: list[Any] = []
    sock = TCP(instrument.host, instrument.port, on_connection_lost=lost.append)
    run(sock.open)
    assert sock.connected()
    link = sock._link
    assert link is not None
    instrument.drop()
    eventually(link.peer_gone)
    link.may_have_ended()  # as the watcher's thread does
    assert not sock.connected()
    assert lost == []  # nobody was left to be told
    run(sock.close)


@clause("F4")
@on_trio
def test_who_waits_on_a_link_is_woken_also_by_another_run(instrument: Instrument) -> None:
    sock = TCP(instrument.host, instrument.port)
    reading = threading.Event()

    async def read() -> None:
        await sock.open()
        async with trio.open_nursery() as nursery:

            async def readline() -> None:
                with pytest.raises(ConnectionClosedError):
                    await sock.readline()

            nursery.start_soon(readline)
            await wait_all_tasks_blocked()
            reading.set()

    thread = threading.Thread(target=run, args=(read,))
    thread.start()
    assert reading.wait(BOUND)
    run(sock.close)
    thread.join(BOUND)
    assert not thread.is_alive()


@clause("F5")
@on_trio
@pytest.mark.parametrize("where", WHERE)
def test_a_call_in_the_main_task_ends_at_once_with_keyboard_interrupt(instrument: Instrument, where: str) -> None:
    program = (
        INTERRUPTED
        + """
    import trio
    from sockio.trio import TCP
    greeting = [where == "callback"]
    async def greet():
        if greeting.pop():
            await sock.write_readline(b"DELAY? 3600\\n")
    sock = TCP(host, port, retry=retry, on_connection_made=greet if greeting[0] else None)
    async def main():
        async with trio.open_nursery() as nursery:
            if where == "turn":
                nursery.start_soon(sock.write_readline, b"DELAY? 3600\\n")
                await trio.testing.wait_all_tasks_blocked()
            os.write(1, b"ready\\n")
            try:
                await sock.write_readline(b"DELAY? 3600\\n")
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            nursery.cancel_scope.cancel()
        sys.stdin.readline()
        sock.host = "127.0.0.1"
        greeting.append(False)
        print(await sock.write_readline(b"ECHO? again\\n", timeout=60))
        await sock.close()
    import trio.testing
    trio.run(main)
    """
    )
    check_interrupt(instrument, program, where)


@clause("F5", "A2")
@on_trio
def test_an_interrupt_wherever_it_strikes_leaves_the_object_usable_in_the_same_run(instrument: Instrument) -> None:
    program = """
        import os, random, signal, sys, threading, trio
        from sockio.trio import TCP
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        sock = TCP("127.0.0.1", int(sys.argv[1]), timeout=60)
        async def worker(name):
            reply = await sock.write_readline(b"ECHO? %d\\n" % name)
            assert reply.startswith(b"%d," % name), (seed, name, reply)
        async def neighbour():
            while True:
                await worker(0)
        async def main():
            interrupted = 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(neighbour)
                while interrupted < 50:
                    timer = threading.Timer(chance.uniform(0.001, 0.01), os.kill, (os.getpid(), signal.SIGINT))
                    try:
                        timer.start()
                        while True:
                            await worker(1)
                            async with sock.transaction():
                                await worker(2)
                            sock.reset_input_buffer()
                    except KeyboardInterrupt:
                        interrupted += 1
                nursery.cancel_scope.cancel()
            await sock.close()
            print("interrupted", interrupted)
        trio.run(main)
    """
    assert outcome(python(program, instrument.port)) == "interrupted 50\n"


@clause("F6")
@on_trio
@pytest.mark.parametrize("where", ["reading", "turn", "connecting", "resolving", "backing off"])
def test_a_pending_call_holds_up_neither_the_end_of_the_run_nor_the_exit(instrument: Instrument, where: str) -> None:
    program = (
        INTERRUPTED
        + """
    import trio
    from sockio.trio import TCP
    async def never(*_):
        await trio.sleep_forever()
    async def main():
        sock = TCP(host, port, retry=retry, on_connection_lost=never)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(sock.write_readline, b"DELAY? 3600\\n")
            await trio.sleep(0.01)
            os.write(1, b"ready\\n")
            await trio.to_thread.run_sync(sys.stdin.readline)
            nursery.cancel_scope.cancel()
    trio.run(main)
    """
    )
    check_exit(instrument, program, where)


@clause("F6", "T1")
@on_trio
def test_a_slow_resolver_holds_up_nobody(instrument: Instrument, names: Names) -> None:
    names["dmm.test"] = [(instrument.host, instrument.port)]
    names.answering.clear()

    async def main() -> None:
        sock = TCP("dmm.test", instrument.port, timeout=0.05)
        with pytest.raises(ConnectionTimeoutError):
            await sock.write_readline(b"*IDN?\n")

    run(main)
    names.answering.set()  # it answers to a run that is over


# X


@clause("X1")
@on_trio
def test_without_trio_the_error_says_what_to_install() -> None:
    program = """
        import sys
        sys.modules["trio"] = None
        import sockio
        try:
            sockio.socket_for_url("tcp://127.0.0.1:1", concurrency="trio")
        except ImportError as error:
            print(error)
    """
    assert 'pip install "sockio[trio]"' in outcome(python(program, traced=True))
