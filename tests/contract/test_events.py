"""Chapter E of the contract: events."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any

import pytest

import sockio.aio
import sockio.sio
from simulator import Delay, Instrument, Silence
from sockio.common import ConnectionEOFError, ConnectionLostError, ConnectionTimeoutError, Retry
from tests.calls import callers
from tests.clauses import clause, flavours
from tests.flavours import BOUND, FLAVOURS, Flavour, Script, Sock, eventually
from tests.flavours.futures import blocking
from tests.logs import logged
from tests.peers import Held

AIO = [flavour for flavour in FLAVOURS if flavour.name == "aio"]


class Events:
    """The events of one object, in order: ``"eof"``, or the argument of ``on_connection_lost``."""

    def __init__(self, flavour: Flavour) -> None:
        self.seen: list[Any] = []
        self.times: list[float] = []
        self.options: dict[str, Any] = {
            "on_eof_received": flavour.callback(lambda: self._note("eof")),
            "on_connection_lost": flavour.callback(self._note),
        }

    def _note(self, event: Any) -> None:
        self.times.append(time.monotonic())
        self.seen.append(event)

    def wait(self, count: int) -> None:
        """Wait until so many have come."""
        eventually(lambda: len(self.seen) >= count)

    def settled(self, sock: Sock) -> list[Any]:
        """Return all events, those that would come late included: the next link's end is reported after them."""
        count = len(self.seen)
        sock.write_readline(b"*IDN?\n")
        sock.close()
        self.wait(count + 1)
        assert self.seen[count:] == [None]
        return self.seen[:count]


# E1


@clause("E1")
def test_on_connection_made_comes_before_any_request_on_every_link(flavour: Flavour, instrument: Instrument) -> None:
    def greet() -> Script:
        assert (yield sock.raw.write_readline(b"*IDN?\n")).count(b",") == 3
        yield sock.raw.write(b"*CLS\n")
        assert (yield sock.raw.write_readlines(b"DATA? 2\n", 2))

    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=flavour.callback(greet))
    for link in (1, 2, 3):
        callers = [sock.start("write_readline", b"ECHO? %d\n" % number) for number in range(5)]
        for number, caller in enumerate(callers):
            assert caller.result().startswith(b"%d," % number)
        entries = [entry for entry in instrument.ledger.entries if entry.event == "command" and entry.link == link]
        assert [entry.command for entry in entries[:3]] == [b"*IDN?", b"*CLS", b"DATA? 2"]
        assert len(entries) == 8
        instrument.drop()
        eventually(lambda: not sock.connected())
    assert instrument.ledger.links == [1, 2, 3]


@clause("E1")
@pytest.mark.parametrize(
    "opening", ["open", "write", "readline", "stream", pytest.param("transaction", marks=clause("A6")), "with"]
)
def test_on_connection_made_comes_whatever_connects(flavour: Flavour, instrument: Instrument, opening: str) -> None:
    def greet() -> Script:
        assert (yield sock.raw.write_readline(b"ECHO? hello\n")) == b"hello,1\n"
        yield sock.raw.write(b"ECHO? more\n")

    def body() -> Script:
        yield sock.raw.write(b"*CLS\n")

    def with_it() -> Script:
        yield flavour.enter(sock.raw)
        yield from body()
        yield flavour.leave(sock.raw, None)

    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=flavour.callback(greet))
    if opening == "open":
        sock.open()
    elif opening == "write":
        sock.write(b"*CLS\n")
    elif opening == "readline":
        assert sock.readline() == b"more,2\n"
    elif opening == "stream":
        assert next(sock.lines()) == b"more,2\n"
    elif opening == "transaction":
        flavour.start(lambda: sock.transaction(body)).result()
    else:
        flavour.start(with_it).result()
    commands = [b"ECHO? hello", b"ECHO? more"]
    if opening in ("write", "transaction", "with"):
        commands.append(b"*CLS")
    instrument.ledger.wait(lambda ledger: len(ledger.commands) >= len(commands))
    assert instrument.ledger.commands == commands


@clause("E1", "A5")
def test_a_write_waits_for_the_callback_though_a_read_connects(
    flavour: Flavour, instrument: Instrument, held: Held
) -> None:
    def greet() -> Script:
        yield sock.raw.write_readline(b"DELAY? 0\n")
        yield sock.raw.write_readline(b"READ?\n")

    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=flavour.callback(greet))
    reading = sock.start("readline")
    instrument.ledger.wait(lambda ledger: ledger.commands == [b"DELAY? 0"])
    writing = sock.start("write", b"ECHO? a\n")
    eventually(lambda: callers(sock) == 2 or b"ECHO? a" in instrument.ledger.commands)
    held.go()
    assert reading.result() == b"a,1\n"
    writing.result()
    assert instrument.ledger.commands == [b"DELAY? 0", b"READ?", b"ECHO? a"]


@clause("E1", "A5")
def test_a_write_that_reconnects_while_a_query_waits_lets_the_callback_query(
    flavour: Flavour, instrument: Instrument
) -> None:
    def greet() -> Script:
        assert (yield sock.raw.write_readline(b"*IDN?\n")).count(b",") == 3

    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=flavour.callback(greet))
    sock.open()
    instrument.inject(Silence())
    query = sock.start("write_readline", b"READ?\n")
    instrument.ledger.wait(lambda ledger: ledger.commands[-1] == b"READ?")
    readers = [sock.start("write_readline", b"ECHO? %d\n" % number) for number in range(3)]
    eventually(lambda: callers(sock) == 4)
    instrument.drop()
    sock.write(b"*CLS\n")
    assert isinstance(query.error(), ConnectionEOFError)
    assert [reader.result()[:2] for reader in readers] == [b"0,", b"1,", b"2,"]


@clause("E1", "T1")
@pytest.mark.parametrize("nested", [None, 3600], ids=["no timeout of its own", "a longer one"])
def test_calls_of_the_callback_inherit_the_deadline(flavour: Flavour, instrument: Instrument, nested: Any) -> None:
    inner: list[BaseException] = []

    def greet() -> Script:
        try:
            yield sock.raw.write_readline(b"*IDN?\n", timeout=nested)
        except BaseException as exc:
            inner.append(exc)
            raise

    instrument.inject(Silence(), 2)
    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=flavour.callback(greet))
    with pytest.raises(ConnectionTimeoutError):
        sock.write_readline(b"READ?\n", timeout=0.5)
    eventually(lambda: inner)
    assert isinstance(inner[0], (ConnectionTimeoutError, flavour.cancelled)), inner
    instrument.ledger.wait(lambda ledger: ledger.links and not ledger.open_links)  # it has executed all that it got
    assert instrument.ledger.commands == [b"*IDN?"]


@clause("E1", "T2")
def test_the_callback_is_part_of_the_connection_attempt(flavour: Flavour, instrument: Instrument) -> None:
    def greet() -> Script:
        yield sock.raw.write_readline(b"*IDN?\n")

    instrument.inject(Silence(), 1)
    sock = flavour.tcp(
        instrument.host,
        instrument.port,
        on_connection_made=flavour.callback(greet),
        connection_timeout=0.2,
        retry=Retry(attempts=2, delay=0.01),
    )
    assert sock.write_readline(b"READ?\n")
    assert instrument.ledger.links == [1, 2]
    assert instrument.ledger.commands == [b"*IDN?", b"*IDN?", b"READ?"]


@clause("E1")
@flavours("aio")
@pytest.mark.parametrize("variant", AIO)
def test_tasks_that_the_callback_starts_may_use_the_object(variant: type[Flavour], instrument: Instrument) -> None:
    async def greet() -> None:
        replies = await asyncio.gather(*(sock.write_readline(b"ECHO? %d\n" % number) for number in range(3)))
        assert [reply[:2] for reply in replies] == [b"0,", b"1,", b"2,"]
        await asyncio.wait_for(sock.write_readline(b"*IDN?\n"), BOUND)
        greeted.append(None)

    async def main() -> None:
        async with sock:
            others = [sock.write_readline(b"READ?\n") for _ in range(3)]
            instrument.drop()
            eventually(lambda: not sock.connected())
            await asyncio.gather(*others)

    greeted: list[None] = []
    with variant() as flavour:
        sock = sockio.aio.TCP(instrument.host, instrument.port, on_connection_made=greet)
        flavour.call(main)
    assert len(greeted) == 2
    assert instrument.ledger.commands[4:] == [b"ECHO? 0", b"ECHO? 1", b"ECHO? 2", b"*IDN?", *3 * [b"READ?"]]


@clause("E1")
@flavours("aio")
@pytest.mark.parametrize("variant", AIO)
def test_a_task_that_outlives_the_callback_queues_like_any_other(
    variant: type[Flavour], instrument: Instrument
) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def later() -> None:
        await made.wait()
        assert (await sock.write_readline(b"ECHO? before\n")).startswith(b"before,")
        instrument.drop()
        eventually(lambda: not sock.connected())
        assert (await sock.write_readline(b"ECHO? after\n")).startswith(b"after,")

    async def greet() -> None:
        if not tasks:
            tasks.append(asyncio.ensure_future(later()))

    async def main() -> None:
        async with sock:
            made.set()
            await tasks[0]

    made = asyncio.Event()
    with variant() as flavour:
        sock = sockio.aio.TCP(instrument.host, instrument.port, on_connection_made=greet)
        flavour.call(main)
    assert instrument.ledger.links == [1, 2]


# E2


@clause("E2")
@pytest.mark.parametrize("ending", ["drop", "reset"])
@pytest.mark.parametrize("leaving", ["returns", "raises"])
def test_a_link_that_is_dead_after_the_callback_is_a_failed_attempt(
    flavour: Flavour, instrument: Instrument, ending: str, leaving: str
) -> None:
    attempts: list[None] = []

    def greet() -> None:
        attempts.append(None)
        if len(attempts) < 3:
            getattr(instrument, ending)()
            eventually(lambda: not sock.raw.connected())
            if leaving == "raises":
                raise RuntimeError("no greeting")

    sock = flavour.tcp(
        instrument.host,
        instrument.port,
        on_connection_made=flavour.callback(greet),
        retry=Retry(attempts=2, delay=0.01),
    )
    with pytest.raises((ConnectionEOFError, ConnectionLostError)):
        sock.write_readline(b"*IDN?\n")
    assert len(attempts) == 2
    assert not sock.connected()
    assert sock.connection_counter == 0
    assert sock.write_readline(b"ECHO? a\n") == b"a,1\n"
    assert instrument.ledger.commands == [b"ECHO? a"]
    assert sock.connection_counter == 1


@clause("E2")
def test_any_other_exception_is_logged_with_its_traceback_and_the_link_is_used(
    flavour: Flavour, instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    def greet() -> Script:
        yield sock.raw.write_readline(b"*IDN?\n")
        raise ValueError("no such greeting")

    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=flavour.callback(greet))
    assert sock.write_readline(b"ECHO? a\n") == b"a,1\n"
    assert sock.connection_counter == 1
    assert instrument.ledger.links == [1]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name.startswith("sockio")
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert "in greet" in caplog.text


@clause("E2", "A2")
def test_a_link_that_the_callback_lost_by_a_timeout_of_its_own_is_not_used(
    flavour: Flavour, instrument: Instrument
) -> None:
    def greet() -> Script:
        yield sock.raw.write_readline(b"DELAY? 0.2\n", timeout=0.05)

    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=flavour.callback(greet))
    with pytest.raises(ConnectionError):
        sock.write_readline(b"READ?\n")
    assert instrument.ledger.count(b"READ?") == 0


async def cancel_a_task_of_its_own() -> None:
    task = asyncio.ensure_future(asyncio.sleep(3600))
    task.cancel()
    await task


def raise_cancelled() -> None:
    raise asyncio.CancelledError


@clause("E2")
@flavours("aio")
@pytest.mark.parametrize("greet", [raise_cancelled, cancel_a_task_of_its_own])
def test_a_cancellation_of_the_callbacks_own_is_logged_and_the_link_is_used(
    instrument: Instrument, caplog: pytest.LogCaptureFixture, greet: Callable[[], Any]
) -> None:
    async def main() -> None:
        async with sockio.aio.TCP(instrument.host, instrument.port, on_connection_made=greet) as sock:
            assert await sock.write_readline(b"ECHO? a\n") == b"a,1\n"

    asyncio.run(main())
    (record,) = [record for record in logged(caplog) if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[1] is not None
    assert isinstance(record.exc_info[1].__cause__, asyncio.CancelledError)
    assert greet.__name__ in caplog.text


@clause("E2", "A2")
@flavours("aio")
def test_a_cancellation_of_the_caller_is_raised_even_if_the_callback_ends_at_that_moment(
    instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async def greet() -> None:
            asking.cancel()
            raise asyncio.CancelledError

        sock = sockio.aio.TCP(instrument.host, instrument.port, on_connection_made=greet)
        asking = asyncio.ensure_future(sock.write_readline(b"ECHO? a\n"))
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(main())
    assert instrument.ledger.commands == []
    assert not [record for record in logged(caplog) if record.levelno == logging.ERROR]


# E3


@clause("E3")
def test_a_clean_end_is_reported_while_nobody_uses_the_object(
    flavour: Flavour, instrument: Instrument, record_property: Callable[[str, object], None]
) -> None:
    events = Events(flavour)
    sock = flavour.tcp(instrument.host, instrument.port, **events.options)
    sock.open()
    before = time.monotonic()
    instrument.drop()
    events.wait(2)
    record_property("seconds until told", events.times[-1] - before)
    assert events.seen == ["eof", None]
    assert events.settled(sock) == ["eof", None]


@clause("E3")
def test_a_reset_is_reported_with_its_cause_while_nobody_uses_the_object(
    flavour: Flavour, instrument: Instrument, record_property: Callable[[str, object], None]
) -> None:
    events = Events(flavour)
    sock = flavour.tcp(instrument.host, instrument.port, **events.options)
    sock.open()
    before = time.monotonic()
    instrument.reset()
    events.wait(1)
    record_property("seconds until told", events.times[-1] - before)
    assert isinstance(events.seen[0], ConnectionResetError)
    assert len(events.settled(sock)) == 1


@clause("E3")
@pytest.mark.parametrize("callback", ["on_connection_lost", "on_eof_received"])
def test_a_callback_that_is_assigned_later_is_told_too(flavour: Flavour, instrument: Instrument, callback: str) -> None:
    events = Events(flavour)
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    setattr(sock.raw, callback, events.options[callback])
    instrument.drop()
    events.wait(1)


@clause("E3")
def test_lost_is_reported_once_whoever_notices_it(flavour: Flavour, instrument: Instrument) -> None:
    events = Events(flavour)
    sock = flavour.tcp(instrument.host, instrument.port, **events.options)
    sock.open()
    reader = sock.start("readline")
    instrument.drop()
    assert isinstance(reader.error(), ConnectionEOFError)
    assert not sock.connected()
    events.wait(2)
    sock.close()
    sock.close()
    assert events.settled(sock) == ["eof", None]


@clause("E3", "R1")
def test_lost_is_reported_when_the_next_call_notices_it(flavour: Flavour, instrument: Instrument) -> None:
    events = Events(flavour)
    sock = flavour.tcp(instrument.host, instrument.port, **events.options)

    def script() -> Script:
        yield sock.raw.write_readline(b"*IDN?\n")
        instrument.drop()
        assert sock.raw._link.poller.poll(1000 * BOUND)  # it is here, but nobody knows: the loop can't run in between
        yield sock.raw.write_readline(b"*IDN?\n")

    flavour.start(script).result()
    events.wait(2)
    assert events.settled(sock) == ["eof", None]


@clause("E3")
def test_close_is_reported_with_none_and_without_eof(flavour: Flavour, instrument: Instrument) -> None:
    events = Events(flavour)
    sock = flavour.tcp(instrument.host, instrument.port, **events.options)
    sock.open()
    sock.close()
    events.wait(1)
    assert events.seen == [None]
    sock.close()
    assert events.settled(sock) == [None]


@clause("E3", "A2")
def test_a_link_dropped_for_a_late_reply_is_reported_with_the_timeout(flavour: Flavour, instrument: Instrument) -> None:
    events = Events(flavour)
    instrument.inject(Silence())
    sock = flavour.tcp(instrument.host, instrument.port, **events.options)
    with pytest.raises(ConnectionTimeoutError):
        sock.write_readline(b"*IDN?\n", timeout=0.05)
    events.wait(1)
    assert isinstance(events.seen[0], ConnectionTimeoutError)
    assert len(events.settled(sock)) == 1


@clause("E3")
def test_each_link_is_reported_once(flavour: Flavour, instrument: Instrument) -> None:
    events = Events(flavour)
    sock = flavour.tcp(instrument.host, instrument.port, **events.options)
    for number in range(1, 11):
        sock.write_readline(b"*IDN?\n")
        (instrument.reset if number % 2 else instrument.drop)()
        events.wait(3 * number // 2)
    names = [event if event in ("eof", None) else "reset" for event in events.settled(sock)]
    assert names == 5 * ["reset", "eof", None]


@clause("E3", "A8")
@pytest.mark.parametrize("ending", ["drop", "reset"])
def test_losing_the_link_destroys_no_unread_byte(flavour: Flavour, instrument: Instrument, ending: str) -> None:
    events = Events(flavour)
    sock = flavour.tcp(instrument.host, instrument.port, **events.options)
    sock.open()
    data = b"".join(b"%07d\n" % number for number in range(5_000))
    instrument.send(data)
    eventually(lambda: sock.in_waiting() == len(data))
    getattr(instrument, ending)()
    events.wait(1)
    assert sock.in_waiting() == len(data)
    assert sock.readexactly(len(data) - 8) == data[:-8]
    assert sock.readline() == data[-8:]
    with pytest.raises(ConnectionError):
        sock.readline()


@clause("E3")
def test_the_callback_of_the_end_may_open_the_object_again(flavour: Flavour, instrument: Instrument) -> None:
    replies: list[bytes] = []

    def lost(_cause: Any) -> Script:
        if not replies:
            replies.append((yield sock.raw.write_readline(b"ECHO? back\n")))

    sock = flavour.tcp(instrument.host, instrument.port, on_connection_lost=flavour.callback(lost))
    sock.open()
    instrument.drop()
    eventually(lambda: replies)
    assert replies == [b"back,1\n"]
    assert instrument.ledger.links == [1, 2]


@clause("E3")
def test_a_failed_attempt_to_connect_is_no_lost_link(flavour: Flavour, instrument: Instrument) -> None:
    events = Events(flavour)
    sock = flavour.tcp(instrument.host, instrument.port, **events.options)
    instrument.refuse()
    with pytest.raises(ConnectionRefusedError):
        sock.open()
    instrument.accept()
    assert events.settled(sock) == []


@clause("E3", "X4")
@flavours("aio")
def test_connected_may_be_asked_outside_of_a_running_loop(instrument: Instrument) -> None:
    events: list[Any] = []

    async def read() -> bytes:
        return await sock.write_readline(b"ECHO? a\n")

    async def close() -> None:
        await sock.close()

    sock = sockio.aio.TCP(instrument.host, instrument.port, on_connection_lost=events.append)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(read())
        assert sock.connected()
        instrument.drop()
        eventually(lambda: not sock.connected())
        assert loop.run_until_complete(read()) == b"a,2\n"
        loop.run_until_complete(close())
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
    assert events == [None, None]


# E4


class Callbacks:
    """Every kind of callable, as a callback that notes its arguments."""

    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def method(self, *args: object) -> None:
        self.seen.append(args)

    def partial_of(self, _first: int, *args: object, keyword: int) -> None:
        assert keyword == 2
        self.seen.append(args)

    def __call__(self, *args: object) -> None:
        self.seen.append(args)

    async def coroutine(self, *args: object) -> None:
        await asyncio.sleep(0)
        self.seen.append(args)

    def future(self, *args: object) -> Awaitable[None]:
        return asyncio.ensure_future(self.coroutine(*args))

    def awaitable(self, *args: object) -> Awaitable[None]:
        coroutine = self.coroutine(*args)

        class Awaited:
            def __await__(self) -> Generator[Any, Any, None]:
                return coroutine.__await__()

        return Awaited()


def kinds() -> list[Any]:
    plain: list[tuple[str, Callable[[Callbacks], Any]]] = [
        ("method", lambda noted: noted.method),
        ("partial", lambda noted: partial(noted.partial_of, 1, keyword=2)),
        ("object", lambda noted: noted),
    ]
    awaited: list[tuple[str, Callable[[Callbacks], Any]]] = [
        ("coroutine function", lambda noted: noted.coroutine),
        ("partial of a coroutine function", lambda noted: partial(noted.coroutine)),
        ("function that returns a future", lambda noted: noted.future),
        ("function that returns an awaitable", lambda noted: noted.awaitable),
    ]
    all_kinds = [(name, make, module) for name, make in plain for module in ("sio", "futures", "aio")]
    all_kinds += [(name, make, module) for name, make in awaited[:2] for module in ("sio", "futures")]
    all_kinds += [(name, make, "aio") for name, make in awaited]
    return [
        pytest.param(make, module, id=f"{module}-{name}", marks=flavours(module)) for name, make, module in all_kinds
    ]


@clause("E4")
@pytest.mark.parametrize(("make", "module"), kinds())
def test_callbacks_may_be_any_callable(instrument: Instrument, make: Callable[[Callbacks], Any], module: str) -> None:
    for variant in FLAVOURS:
        if variant.name == module:
            with variant() as flavour:
                made, lost, eof = Callbacks(), Callbacks(), Callbacks()
                sock = flavour.tcp(
                    instrument.host,
                    instrument.port,
                    on_connection_made=make(made),
                    on_connection_lost=make(lost),
                    on_eof_received=make(eof),
                )
                sock.open()
                assert made.seen == [()]
                instrument.drop()
                eventually(lambda lost=lost: lost.seen)  # type: ignore[misc]
                eventually(lambda eof=eof: eof.seen)  # type: ignore[misc]
                assert (lost.seen, eof.seen) == ([(None,)], [()])


@clause("E4")
def test_a_callback_that_fails_harms_neither_its_object_nor_another(
    flavour: Flavour, instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("no such callback")

    told: list[None] = []
    note = flavour.callback(lambda *_: told.append(None))
    other = flavour.tcp(instrument.host, instrument.port, **dict.fromkeys(flavour.callbacks, note))
    failing = flavour.callback(fail)
    sock = flavour.tcp(instrument.host, instrument.port, **dict.fromkeys(flavour.callbacks, failing))
    for number in (1, 2, 3):
        assert sock.write_readline(b"*IDN?\n")
        assert other.write_readline(b"*IDN?\n")
        instrument.drop()
        expected = len(flavour.callbacks) * number
        eventually(lambda expected=expected: len(errors(caplog)) == len(told) == expected)  # type: ignore[misc]
    assert all(isinstance(record.exc_info[1], KeyError) for record in errors(caplog) if record.exc_info)


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno == logging.ERROR]


@clause("E4", "E3")
@blocking
def test_a_callback_that_blocks_harms_neither_its_object_nor_another(
    tcp: type[sockio.sio.TCP], instrument: Instrument
) -> None:
    over, started, told = threading.Event(), threading.Event(), threading.Event()

    def block(*_: object) -> None:
        started.set()
        over.wait(BOUND)

    sock = tcp(instrument.host, instrument.port, on_connection_lost=block, on_eof_received=block)
    other = tcp(instrument.host, instrument.port, on_connection_lost=lambda *_: told.set())
    try:
        with sock, other:
            instrument.drop()
            assert started.wait(BOUND)
            assert told.wait(BOUND)
            assert sock.write_readline(b"*IDN?\n", timeout=BOUND)
            assert other.write_readline(b"*IDN?\n", timeout=BOUND)
            told.clear()
            instrument.reset()
            assert told.wait(BOUND)
            eventually(lambda: not sock.connected())
            assert sock.write_readline(b"*IDN?\n", timeout=BOUND)
    finally:
        over.set()


@clause("E4", "E3")
@blocking
def test_a_callback_for_which_there_is_no_thread_harms_neither_its_object_nor_another(
    tcp: type[sockio.sio.TCP],
    instrument: Instrument,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = threading.Event()
    start = threading.Thread.start

    def too_many(thread: threading.Thread) -> None:
        if thread.name == "sockio callback":
            raise RuntimeError("can't start new thread")
        start(thread)

    sock = tcp(instrument.host, instrument.port, on_connection_lost=lambda *_: told.set())
    with sock:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", too_many)
            instrument.drop()
            eventually(lambda: errors(caplog))
        assert sock.write_readline(b"DELAY? 0.01\n", timeout=BOUND) == b"0.01\n"
        assert not told.is_set()
        instrument.drop()
        assert told.wait(BOUND)


@clause("E4")
@pytest.mark.parametrize("name", ["on_connection_made", "on_connection_lost", "on_eof_received"])
def test_what_cannot_be_called_is_refused_at_once(flavour: Flavour, name: str) -> None:
    if name not in flavour.callbacks:
        pytest.skip("this flavour doesn't tell of that event")
    with pytest.raises(TypeError, match="callable"):
        flavour.tcp("127.0.0.1", 1, **{name: 3})


@clause("E3")
def test_a_slow_reply_is_no_event(flavour: Flavour, instrument: Instrument) -> None:
    events = Events(flavour)
    instrument.inject(Delay(0.1))
    sock = flavour.tcp(instrument.host, instrument.port, **events.options)
    assert sock.write_readline(b"*IDN?\n")
    assert events.settled(sock) == []
