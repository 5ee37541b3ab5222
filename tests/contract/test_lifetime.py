"""Chapter F of the contract: lifetime."""

from __future__ import annotations

import asyncio
import contextlib
import dis
import functools
import gc
import inspect
import linecache
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, cast

import pytest

import sockio
import sockio.aio
import sockio.py2
import sockio.sio
from simulator import Delay, Instrument
from sockio.common import ConnectionTimeoutError
from tests.clauses import clause, flavours
from tests.flavours import BOUND, FLAVOURS, PYTHON27, Flavour, Script, eventually
from tests.flavours.futures import Resolved
from tests.programs import ended, only_resource_warnings, outcome, python

SOCKIO = str(Path(sockio.__file__).parent)
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
AIO = [flavour for flavour in FLAVOURS if flavour.name == "aio"]
#: The classes whose calls block.
BLOCKING = [(sockio.sio.TCP, "sio"), (Resolved, "futures"), (sockio.py2.TCP, "py2")]
blocking = pytest.mark.parametrize("tcp", [pytest.param(tcp, id=name, marks=flavours(name)) for tcp, name in BLOCKING])
in_programs = pytest.mark.parametrize(
    ("tcp", "interpreter"),
    [pytest.param(tcp, sys.executable, id=name, marks=flavours(name)) for tcp, name in BLOCKING]
    + [pytest.param(sockio.py2.TCP, PYTHON27, id="py2-2.7", marks=flavours("py2"))] * (PYTHON27 is not None),
)


def imported(tcp: type[Any]) -> str:
    """Return the line of a program that imports a class."""
    return f"from {tcp.__module__} import {tcp.__name__} as TCP"


def busy(tcp: type[Any]) -> str:
    """Return what is true in a program when somebody is inside a call of ``sock``."""
    return "sock._queue" if tcp is sockio.py2.TCP else "sock.queues.reads"


# F1


@clause("F1")
def test_a_dropped_object_closes_its_socket_and_warns(flavour: Flavour, instrument: Instrument) -> None:
    def script() -> Script:
        raw = flavour.module.TCP(instrument.host, instrument.port)
        yield raw.write_readline(b"*IDN?\n")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        flavour.start(script).result()
        flavour.allocated()
        eventually(lambda: caught or not flavour.warns)
    instrument.ledger.wait(lambda ledger: not ledger.open_links)
    assert [warning.category for warning in caught] == flavour.warns * [ResourceWarning]
    assert all(f"{instrument.host}:{instrument.port}" in str(warning.message) for warning in caught)


@clause("F1")
def test_an_object_that_was_closed_or_never_open_drops_without_a_warning(
    flavour: Flavour, instrument: Instrument
) -> None:
    def script() -> Script:
        flavour.module.TCP(instrument.host, instrument.port)
        raw = flavour.module.TCP(instrument.host, instrument.port)
        yield raw.write_readline(b"*IDN?\n")
        yield raw.close()

    flavour.start(script).result()
    flavour.allocated()


@clause("F1")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_dropped_object_closes_its_socket_even_if_the_warning_is_an_error(
    flavour: Flavour, instrument: Instrument
) -> None:
    def script() -> Script:
        raw = flavour.module.TCP(instrument.host, instrument.port)
        yield raw.write_readline(b"*IDN?\n")

    flavour.start(script).result()
    flavour.allocated()
    instrument.ledger.wait(lambda ledger: ledger.links and not ledger.open_links)


@clause("F1")
@pytest.mark.parametrize("arguments", [(), ("127.0.0.1",), ("", 1), ("127.0.0.1", -1), (None, 1), (1, 2, 3, 4, 5)])
def test_an_object_that_could_not_be_made_drops_in_silence(flavour: Flavour, arguments: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, ValueError, NotImplementedError)):
        flavour.call(flavour.module.TCP, *arguments)
    gc.collect()


@clause("F1")
@in_programs
@pytest.mark.parametrize("cycle", ["sock.cycle = sock", ""], ids=["in a cycle", "alone"])
def test_nothing_but_the_warning_is_printed_when_the_interpreter_exits_with_an_open_object(
    instrument: Instrument, tcp: type[Any], interpreter: str, cycle: str
) -> None:
    program = f"""
        import sys
        {imported(tcp)}
        sock = TCP("127.0.0.1", int(sys.argv[1]))
        {cycle}
        sock.write_readline(b"*IDN?\\n")
    """
    process = python(program, instrument.port, interpreter=interpreter)
    if interpreter == PYTHON27:
        assert outcome(process) == ""
    else:
        only_resource_warnings(process)


@clause("F1")
@flavours("futures")
def test_nothing_but_the_warning_is_printed_when_the_interpreter_exits_with_an_open_object_futures(
    instrument: Instrument,
) -> None:
    program = """
        import sys
        from sockio.sio import TCP
        sock = TCP("127.0.0.1", int(sys.argv[1]), False, on_connection_lost=print, on_eof_received=print)
        sock.cycle = sock
        sock.write_readline(b"*IDN?\\n").result()
    """
    only_resource_warnings(python(program, instrument.port))


@clause("F1")
@flavours("aio")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("closed", [True, False], ids=["loop closed", "loop left open"])
def test_nothing_but_the_warning_is_printed_when_the_interpreter_exits_with_an_open_object_aio(
    instrument: Instrument, loop: str, closed: bool
) -> None:
    program = """
        import importlib, sys
        from sockio.aio import TCP
        loop = importlib.import_module(sys.argv[2]).new_event_loop()
        async def main():
            global sock
            sock = TCP("127.0.0.1", int(sys.argv[1]), on_connection_lost=print, on_eof_received=print)
            sock.cycle = sock
            await sock.write_readline(b"*IDN?\\n")
        loop.run_until_complete(main())
        if sys.argv[3] == "True":
            loop.close()
    """
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    only_resource_warnings(python(program, instrument.port, loop, closed))


# F2


class Peer:
    """A server that answers one request a link, as fast as it can, and then ends the link in one of three ways."""

    def __init__(self) -> None:
        self.ending = "close"
        self.ended = threading.Semaphore(0)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listening.accept()
            except OSError:
                return
            with link:
                while link.recv(100):
                    link.send(b"!\n")
                    if self.ending == "reset":
                        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    if self.ending != "close":
                        break
            self.ended.release()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(BOUND)


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.close()


@clause("F2")
@linux
@pytest.mark.usefixtures("untraced")
def test_nothing_leaks_over_ten_thousand_reconnects(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp("127.0.0.1", peer.port, **{flavour.callbacks[-1]: flavour.callback(lambda *_: None)})

    def in_use() -> tuple[int, int, int]:
        files = flavour.imported("os").listdir("/proc/self/fd")
        return len(files), flavour.imported("threading").active_count(), flavour.tasks()

    def reconnect(times: int) -> None:
        for peer.ending in ("close", "peer", "reset"):
            flavour.reconnect(sock, times, peer.ending == "close", peer.ended)

    reconnect(100)
    usual, memory = in_use(), flavour.allocated()
    reconnect(3400)
    eventually(lambda: all(now <= before for now, before in zip(in_use(), usual, strict=True)))
    assert flavour.allocated() - memory < 2000
    assert sock.connection_counter == 10_500


@clause("F2")
def test_an_object_leaves_nothing_in_the_registry_of_loggers(flavour: Flavour, instrument: Instrument) -> None:
    def names() -> list[str]:
        return sorted(flavour.imported("logging").root.manager.loggerDict)

    before = names()
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.write_readline(b"*IDN?\n")
    sock.close()
    assert names() == before


# F3


FORK = """
    import json, os, sys, threading, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # a thread (the watcher) runs while this program forks

    def say(*what):
        shown = ["b" + repr(part).lstrip("b") if isinstance(part, bytes) else str(part) for part in what]
        if str is bytes:
            shown[0] = what[0]
        os.write(1, (" ".join(shown) + "\\n").encode())

    port = int(sys.argv[1])
"""


@clause("F3")
@in_programs
@forks
def test_after_fork_parent_and_child_have_a_link_each(instrument: Instrument, tcp: type[Any], interpreter: str) -> None:
    tells = "on_connection_lost=lambda cause: lost.set()" if tcp is not sockio.py2.TCP else ""
    program = f"""
    {imported(tcp)}
    lost = threading.Event()
    sock = TCP("127.0.0.1", port, timeout=30, {tells})
    sock.write_readline(b"ECHO? before\\n")
    waiting = threading.Thread(target=lambda: say("parent", sock.write_readline(b"DELAY? 0.3\\n")))
    waiting.start()
    while not {busy(tcp)}:
        pass
    child = os.fork()
    if not child:
        say("child", sock.write_readline(b"ECHO? child\\n"), sock.connection_counter)
        sys.stdin.readline()
        say("child", lost.wait(30) if {bool(tells)} else True)
        say("child", sock.write_readline(b"ECHO? child\\n"), sock.connection_counter)
        sock.close()
        os._exit(0)
    waiting.join()
    say("parent", sock.write_readline(b"ECHO? parent\\n"), sock.connection_counter)
    sock.close()
    say("parent closed")
    os.waitpid(child, 0)
    """
    check_fork(instrument, program, interpreter)


@clause("F3")
@flavours("aio")
@forks
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_after_fork_parent_and_child_have_a_link_each_aio(instrument: Instrument, loop: str) -> None:
    pytest.importorskip(loop)
    program = f"""
    import asyncio
    from {loop} import new_event_loop
    from sockio.aio import TCP
    loop = new_event_loop()
    lost = []
    sock = TCP("127.0.0.1", port, timeout=30, on_connection_lost=lost.append)
    loop.run_until_complete(sock.write_readline(b"ECHO? before\\n"))
    child = os.fork()
    if not child:
        own = new_event_loop()
        async def until_lost():
            while not lost:
                await asyncio.sleep(0.01)
        reply = own.run_until_complete(sock.write_readline(b"ECHO? child\\n"))
        say("child", reply, sock.connection_counter)
        sys.stdin.readline()
        own.run_until_complete(until_lost())
        say("child", True)
        reply = own.run_until_complete(sock.write_readline(b"ECHO? child\\n"))
        say("child", reply, sock.connection_counter)
        own.run_until_complete(sock.close())
        os._exit(0)
    say("parent", loop.run_until_complete(sock.write_readline(b"DELAY? 0.3\\n")))
    say("parent", loop.run_until_complete(sock.write_readline(b"ECHO? parent\\n")), sock.connection_counter)
    loop.run_until_complete(sock.close())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    say("parent closed")
    os.waitpid(child, 0)
    """
    check_fork(instrument, program)


def check_fork(instrument: Instrument, program: str, interpreter: str = sys.executable) -> None:
    process = python(FORK + program, instrument.port, interpreter=interpreter, traced=True, stdin=subprocess.PIPE)
    instrument.ledger.wait(lambda ledger: ledger.links == [1, 2], BOUND)
    instrument.ledger.wait(lambda ledger: ledger.open_links == [2], BOUND)  # the child holds no copy of the parent's
    instrument.drop()
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    lines = outcome(process).splitlines()
    parent = [line for line in lines if line.startswith("parent")]
    child = [line for line in lines if line.startswith("child")]
    assert parent[0] == r"parent b'0.3\n'"
    assert parent[1].startswith("parent b'parent,")
    assert parent[1].endswith(" 1")
    assert parent[2] == "parent closed"
    assert child[0].startswith("child b'child,")
    assert child[1] == "child True"
    assert child[2].startswith("child b'child,")
    opened = [entry.link for entry in instrument.ledger.entries if entry.command.startswith(b"ECHO? child")]
    assert opened == [2, 3]
    opened = [entry.link for entry in instrument.ledger.entries if entry.command == b"ECHO? parent"]
    assert opened == [1]


# F4


def in_loops(variant: type[Any], *works: Callable[[], Any]) -> None:
    """Do each work in a loop of its own."""
    for work in works:
        loop = variant().new_loop()
        try:
            loop.run_until_complete(work())
        finally:
            loop.close()


@clause("F4")
@flavours("aio")
@pytest.mark.filterwarnings("ignore:unclosed resource:ResourceWarning")  # uvloop's own, when it is closed
@pytest.mark.parametrize("variant", AIO)
def test_an_object_used_in_a_second_loop_reconnects(variant: type[Any], instrument: Instrument) -> None:
    lost: list[Any] = []
    sock = sockio.aio.TCP(instrument.host, instrument.port, on_connection_lost=lost.append)

    async def use() -> None:
        assert (await sock.write_readline(b"ECHO? a\n")).startswith(b"a,")
        await asyncio.gather(*(sock.write_readline(b"ECHO? b\n") for _ in range(3)))

    async def finish() -> None:
        await use()
        await sock.close()
        await asyncio.sleep(0)

    in_loops(variant, use, use, finish)
    assert instrument.ledger.links == [1, 2, 3]
    assert lost == [None, None, None]
    instrument.ledger.wait(lambda ledger: not ledger.open_links)
    gc.collect()  # nothing that was left behind complains


@clause("F4", "C1", "C5")
@flavours("aio")
@pytest.mark.filterwarnings("ignore:unclosed resource:ResourceWarning")  # uvloop's own, when it is closed
@pytest.mark.parametrize("variant", AIO)
def test_what_an_ended_loop_left_open_is_opened_anew(variant: type[Any], instrument: Instrument) -> None:
    sock = sockio.aio.TCP(instrument.host, instrument.port, auto_reconnect=False)

    async def again() -> None:
        await sock.open()
        assert await sock.write_readline(b"ECHO? a\n", timeout=BOUND) == b"a,1\n"

    async def finish() -> None:
        async with sock:
            assert await sock.write_readline(b"ECHO? b\n", timeout=BOUND) == b"b,2\n"
        await asyncio.sleep(0)

    in_loops(variant, sock.open, again, finish)
    assert instrument.ledger.links == [1, 2, 3]


@clause("F4", "S2")
@flavours("aio")
@pytest.mark.filterwarnings("ignore:unclosed resource:ResourceWarning")  # uvloop's own, when it is closed
@pytest.mark.parametrize("variant", AIO)
@pytest.mark.parametrize("reconnect", [False, True])
def test_a_stream_ends_with_the_loop_of_its_link(variant: type[Any], instrument: Instrument, reconnect: bool) -> None:
    sock = sockio.aio.TCP(instrument.host, instrument.port)
    stream = sockio.aio.LineStream(sock, reconnect=reconnect, timeout=0.1)

    async def begin() -> None:
        await sock.write(b"ECHO? a\n")
        assert await anext(stream) == b"a,1\n"

    async def again() -> None:
        if reconnect:
            with pytest.raises(ConnectionTimeoutError):
                await anext(stream)
        else:
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert await sock.write_readline(b"ECHO? b\n", timeout=BOUND) == b"b,2\n"
        await sock.close()
        await asyncio.sleep(0)

    in_loops(variant, begin, again)


@clause("F4")
@flavours("aio")
@pytest.mark.filterwarnings("ignore:unclosed resource:ResourceWarning")  # uvloop's own, when it is closed
@pytest.mark.parametrize("variant", AIO)
def test_the_plain_methods_need_no_loop(variant: type[Any], instrument: Instrument) -> None:
    sock = sockio.aio.TCP(instrument.host, instrument.port, buffer_size=10)

    async def begin() -> None:
        await sock.write(b"BLOCK? 50000\n")
        while not cast(Any, sock._link).paused:  # noqa: ASYNC110
            await asyncio.sleep(0)

    in_loops(variant, begin)
    sock.reset_input_buffer()
    assert sock.in_waiting() == 0
    in_loops(variant, sock.close)


@clause("F4")
@flavours("aio")
@pytest.mark.filterwarnings("ignore:unclosed resource:ResourceWarning")  # uvloop's own, when it is closed
@pytest.mark.parametrize("variant", AIO)
def test_calls_that_an_ended_loop_left_behind_hold_up_nobody(variant: type[Any], instrument: Instrument) -> None:
    sock = sockio.aio.TCP(instrument.host, instrument.port)

    async def begin() -> None:
        await sock.open()
        tasks.append(asyncio.ensure_future(sock.readline()))
        tasks.append(asyncio.ensure_future(sock.write_readline(b"*IDN?\n")))
        await asyncio.sleep(0.01)

    async def again() -> None:
        assert await sock.write_readline(b"ECHO? a\n", timeout=BOUND) == b"a,1\n"
        await sock.close()
        await asyncio.sleep(0)

    tasks: list[Any] = []
    for work in (begin, again):  # what is left of the first is cancelled, as asyncio.run does
        with variant() as flavour:
            flavour.call(work)


# F5


WHERE = ["reading", "turn", "connecting", "resolving", "backing off", "callback"]

INTERRUPTED = """
    import json, os, sys, threading, time, socket
    where, port = sys.argv[1], int(sys.argv[2])
    from sockio.common import Retry
    real = socket.getaddrinfo
    def slow(host, port, family=0, type=0, proto=0, flags=0):
        if not flags and where == "resolving":
            os.write(1, b"ready\\n")
            time.sleep(3600)
        return real(host, port, family, type, proto, flags)
    socket.getaddrinfo = slow
    retry = Retry(attempts=None, delay=3600) if where == "backing off" else Retry()
    host = "nowhere.invalid" if where == "resolving" else "127.0.0.1"
"""


@clause("F5")
@in_programs
@pytest.mark.parametrize("where", WHERE)
def test_a_blocking_call_ends_at_once_with_keyboard_interrupt(
    instrument: Instrument, tcp: type[Any], interpreter: str, where: str
) -> None:
    program = (
        INTERRUPTED
        + f"""
    {imported(tcp)}
    greeting = [where == "callback"]
    def greet():
        if greeting.pop():
            sock.write_readline(b"DELAY? 3600\\n")
    sock = TCP(host, port, timeout=None, retry=retry, on_connection_made=greet if greeting[0] else None)
    def first():
        try:
            sock.write_readline(b"DELAY? 3600\\n")
        except EnvironmentError:
            pass  # closed below
    if where == "turn":
        thread = threading.Thread(target=first)
        thread.daemon = True
        thread.start()
        while not {busy(tcp)}:
            time.sleep(0.001)
    os.write(1, b"ready\\n")
    try:
        sock.write_readline(b"DELAY? 3600\\n")
    except KeyboardInterrupt:
        os.write(1, b"interrupted\\n")
    sys.stdin.readline()
    sock.host = "127.0.0.1"
    if where == "turn":
        sock.close()
    greeting.append(False)
    os.write(1, sock.write_readline(b"ECHO? again\\n", timeout=60))
    sock.close()
    """
    )
    check_interrupt(instrument, program, where, interpreter)


@clause("F5")
@flavours("aio")
@pytest.mark.parametrize("where", WHERE)
def test_asyncio_run_ends_at_once_with_keyboard_interrupt(instrument: Instrument, where: str) -> None:
    program = (
        INTERRUPTED
        + """
    import asyncio
    from sockio.aio import TCP
    greeting = [where == "callback"]
    async def greet():
        if greeting.pop():
            await sock.write_readline(b"DELAY? 3600\\n")
    sock = TCP(host, port, retry=retry, on_connection_made=greet if greeting[0] else None)
    async def main():
        if where == "turn":
            first = asyncio.create_task(sock.write_readline(b"DELAY? 3600\\n"))
            await asyncio.sleep(0.01)
        os.write(1, b"ready\\n")
        await sock.write_readline(b"DELAY? 3600\\n")
    async def again():
        print(await sock.write_readline(b"ECHO? again\\n", timeout=60))
        await sock.close()
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    sys.stdin.readline()
    sock.host = "127.0.0.1"
    greeting.append(False)
    asyncio.run(again())
    """
    )
    check_interrupt(instrument, program, where)


def check_interrupt(instrument: Instrument, program: str, where: str, interpreter: str = sys.executable) -> None:
    if where == "connecting":
        instrument.hang()
    elif where == "backing off":
        instrument.refuse()
    process = python(program, where, instrument.port, interpreter=interpreter, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    ready = 2 if where == "resolving" else 1
    assert [process.stdout.readline() for _ in range(ready)] == ready * ["ready\n"]
    if where in ("reading", "turn", "callback"):
        instrument.ledger.wait(lambda ledger: ledger.commands, BOUND)
    time.sleep(0.05)  # on its way into the wait; the interrupt must be right wherever it strikes
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    instrument.heal()
    process.stdin.write("\n")
    process.stdin.flush()
    assert outcome(process) in ("b'again,1\\n'\n", "again,1\n")


@functools.cache
def calling(code: CodeType) -> set[int | None]:
    """Return the lines of a function that call something."""
    found: set[int | None] = set()
    starts, line = dict(dis.findlinestarts(code)), None
    for instruction in dis.get_instructions(code):
        line = starts.get(instruction.offset, line)
        if instruction.opname.startswith("CALL"):
            found.add(line)
    return found


@functools.cache
def does_nothing(code: CodeType, line: int, at: int) -> bool:
    """Whether a line begins at this instruction with a bare ``try:``, or on the way out of a ``with`` block."""
    first = next(start for start, number in dis.findlinestarts(code) if number == line)
    leaves = at != first and linecache.getline(code.co_filename, line).strip().startswith(("with ", "):"))
    return leaves or dis.opname[code.co_code[at]] == "NOP"


def suspends(code: CodeType, at: int) -> bool:
    """Whether a coroutine or generator, left at this instruction, pauses; or an exception ends it."""
    kinds = inspect.CO_COROUTINE | inspect.CO_GENERATOR
    return bool(code.co_flags & kinds) and not dis.opname[code.co_code[at]].startswith("RETURN")


def torn(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test whose interrupts leave new sockets and coroutines to Python, which mentions them."""
    for warning in ("ResourceWarning", "RuntimeWarning", "pytest.PytestUnraisableExceptionWarning"):
        test = pytest.mark.filterwarnings(f"ignore::{warning}")(test)
    marked: Callable[..., None] = pytest.mark.usefixtures("collected")(test)
    return marked


def destructs(frame: FrameType | None) -> bool:
    """Whether a function runs for a destructor."""
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


class Interrupter:
    """Raises ``KeyboardInterrupt`` at the n-th point of this thread's way through sockio where a signal can strike.

    Since Python 3.10 those are where a function begins and after a call: so, the beginning of a line after one with a
    call, but for a bare ``try:`` (which does nothing) and the way out of a ``with``; and the end of a function (not
    where a coroutine only pauses). Destructors go free: Python drops what is raised there, and 3.11 loses its way.
    """

    def __init__(self, strikes_at: int) -> None:
        self._left = strikes_at
        self.struck_at: str | None = None

    def __enter__(self) -> Interrupter:
        self._before = sys.gettrace()
        self._tracer = self._begin  # held: 3.11 was seen to call what had taken its place in memory
        sys.settrace(self._tracer)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _begin(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(SOCKIO) or destructs(frame):
            return None
        called = False

        def step(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal called
            if called and (
                (event == "return" and not suspends(code, frame.f_lasti))
                or (event == "line" and not does_nothing(code, frame.f_lineno, frame.f_lasti))
            ):
                self._count(frame, event)
            called = event == "line" and frame.f_lineno in calling(code)
            return step

        self._count(frame, event)
        return step

    def _count(self, frame: FrameType, event: str) -> None:
        self._left -= 1
        if self._left == 0:
            self.struck_at = f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name} ({event})"
            sys.settrace(None)
            raise KeyboardInterrupt(self.struck_at)


def interrupted_everywhere(call: Callable[[], Any]) -> Iterator[str]:
    """Interrupt the call at each of its points in turn; yields each time, with the place."""
    if sys.gettrace() is not None:
        pytest.skip("coverage is tracing, and an interpreter has room for one tracer (3.11 crashes with two)")
    for point in range(1, 5000):
        interrupter = Interrupter(point)
        try:
            with interrupter:
                call()
        except KeyboardInterrupt:
            pass
        if interrupter.struck_at is None:
            return
        yield interrupter.struck_at
    raise AssertionError("the call has no end")


@clause("F5", "A2")
@blocking
@torn
@pytest.mark.parametrize("state", ["connected", "closed", "lost", "greeted", "timed"])
def test_an_interrupt_at_any_point_of_a_call_leaves_the_object_usable(
    tcp: type[Any], instrument: Instrument, state: str
) -> None:
    def greet() -> None:
        if state == "greeted":
            sock.write_readline(b"ECHO? hello\n")

    sock = tcp(instrument.host, instrument.port, timeout=None, on_connection_made=greet)
    timeout = BOUND if state == "timed" else None

    def prepare() -> None:
        if state in ("closed", "greeted"):
            sock.close()
        elif state == "lost":
            instrument.drop()
            eventually(lambda: not sock.connected())

    prepare()
    count = 0
    for count, place in enumerate(interrupted_everywhere(lambda: sock.write_readline(b"ECHO? x\n", timeout=timeout))):
        reply = sock.write_readline(b"ECHO? %d\n" % count, timeout=BOUND)
        assert reply.startswith(b"%d," % count), place
        prepare()
    sock.close()
    assert count > 20


@clause("F5", "A2")
@blocking
@torn
def test_an_interrupt_at_any_point_of_a_call_that_times_out_gives_its_reply_to_nobody(
    tcp: type[Any], instrument: Instrument
) -> None:
    sock = tcp(instrument.host, instrument.port, timeout=None)

    def time_out() -> None:
        with contextlib.suppress(ConnectionTimeoutError):
            sock.write_readline(b"ECHO? late\n", timeout=0.002)

    instrument.inject(Delay(0.02), count=10_000, command=b"ECHO? late")
    count = 0
    for count, place in enumerate(interrupted_everywhere(time_out)):
        reply = sock.write_readline(b"ECHO? %d\n" % count, timeout=BOUND)
        assert reply.startswith(b"%d," % count), place
    sock.close()
    assert count > 20


@clause("F5", "A1")
@blocking
@torn
@pytest.mark.parametrize("state", ["connected", "closed"])
def test_an_interrupt_at_any_point_holds_up_no_thread_that_waits(
    tcp: type[Any], instrument: Instrument, state: str
) -> None:
    sock = tcp(instrument.host, instrument.port, timeout=None)
    replies: list[bytes] = []

    def other() -> None:
        replies.append(sock.write_readline(b"ECHO? other\n", timeout=BOUND))

    def call() -> None:
        sock.write_readline(b"ECHO? x\n")

    for place in interrupted_everywhere(call):
        thread = threading.Thread(target=other)
        thread.start()
        reply = sock.write_readline(b"ECHO? mine\n", timeout=BOUND)
        assert reply.startswith(b"mine,"), place
        thread.join(BOUND)
        assert replies.pop().startswith(b"other,"), place
        if state == "closed":
            sock.close()
    sock.close()


@clause("F5", "A6")
@pytest.mark.parametrize("tcp", [pytest.param(tcp, id=name, marks=flavours(name)) for tcp, name in BLOCKING[:2]])
@torn
@pytest.mark.parametrize("state", ["connected", "closed"])
def test_an_interrupt_at_any_point_of_a_transaction_leaves_the_object_usable(
    tcp: type[Any], instrument: Instrument, state: str
) -> None:
    sock = tcp(instrument.host, instrument.port)

    def call() -> None:
        with sock.transaction():
            sock.write_readline(b"ECHO? x\n")

    for place in interrupted_everywhere(call):
        assert sock.write_readline(b"ECHO? mine\n", timeout=BOUND).startswith(b"mine,"), place
        with sock.transaction(timeout=BOUND):
            assert sock.write_readline(b"ECHO? again\n").startswith(b"again,"), place
        if state == "closed":
            sock.close()
    sock.close()


@clause("F5", "S1")
@blocking
@torn
def test_an_interrupt_at_any_point_of_a_plain_read_leaves_the_object_usable(
    tcp: type[Any], instrument: Instrument
) -> None:
    sock = tcp(instrument.host, instrument.port, timeout=None)

    def call() -> None:
        sock.write(b"DATA? 3\n")
        sock.readline()
        next(iter(sock))
        sock.readexactly(16)

    for place in interrupted_everywhere(call):
        sock.close()
        assert sock.write_readline(b"ECHO? mine\n", timeout=BOUND).startswith(b"mine,"), place
    sock.close()


@clause("F5", "A2")
@flavours("aio")
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Ctrl-C strikes asyncio itself there, and tears it")
def test_an_interrupt_of_a_busy_loop_leaves_the_object_usable(instrument: Instrument) -> None:
    program = """
        import asyncio, os, random, signal, sys, threading
        from sockio.aio import TCP
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        sock = TCP("127.0.0.1", int(sys.argv[1]), timeout=60)
        async def worker(name):
            while True:
                reply = await sock.write_readline(b"ECHO? %d\\n" % name)
                assert reply.startswith(b"%d," % name), (seed, name, reply)
        async def main(pause):
            workers = [asyncio.create_task(worker(name)) for name in range(3)]
            threading.Timer(pause, os.kill, (os.getpid(), signal.SIGINT)).start()
            await asyncio.gather(*workers)
        for number in range(30):
            try:
                asyncio.run(main(chance.uniform(0.001, 0.02)))
            except KeyboardInterrupt:
                print("interrupted")
        asyncio.run(sock.close())
    """
    assert outcome(python(program, instrument.port)) == 30 * "interrupted\n"


@clause("F5", "A2")
@pytest.mark.skipif(PYTHON27 is None, reason="no Python 2.7 here")
@flavours("py2")
def test_interrupts_of_python_27_leave_the_object_usable_and_hold_up_no_thread(instrument: Instrument) -> None:
    program = """
        import os, random, signal, sys, threading, time
        from sockio.py2 import TCP
        sys.setcheckinterval(1)  # a signal may strike at any instruction
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        sock = TCP("127.0.0.1", int(sys.argv[1]), timeout=60)
        over = threading.Event()
        def work(name):
            while not over.is_set():
                reply = sock.write_readline(b"ECHO? %s\\n" % name)
                assert reply.startswith(name + b","), (seed, name, reply)
        def other():
            while not over.is_set():
                try:
                    work(b"other")
                except EnvironmentError:
                    pass
        thread = threading.Thread(target=other)
        thread.start()
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        for number in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.01))
                try:
                    work(b"main")
                except EnvironmentError:
                    time.sleep(1)
            except KeyboardInterrupt:
                pass
        over.set()
        thread.join()
        sock.close()
        os.write(1, b"done\\n")
    """
    assert outcome(python(program, instrument.port, interpreter=PYTHON27 or "")) == "done\n"


@clause("F5", "A2")
@blocking  # Python 2.7: above
def test_an_interrupt_of_busy_calls_leaves_the_object_usable(instrument: Instrument, tcp: type[Any]) -> None:
    program = f"""
        import os, random, signal, sys
        {imported(tcp)}
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        sock = TCP("127.0.0.1", int(sys.argv[1]), timeout=60)
        calls = 0
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        for number in range(200):
            try:
                # Again after a second: Python swallows an interrupt that strikes while a destructor warns.
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.001, 0.01), 1)
                while True:
                    calls += 1
                    reply = sock.write_readline(b"ECHO? %d\\n" % calls)
                    assert reply.startswith(b"%d," % calls), (seed, calls, reply)
            except KeyboardInterrupt:
                signal.setitimer(signal.ITIMER_REAL, 0)
        sock.close()
        os.write(1, b"usable\\n")
    """
    # Python mentions what was torn before it was begun.
    process = python(program, instrument.port)
    output, complaints = ended(process)
    assert (process.returncode, output) == (0, "usable\n"), complaints


# F6


@clause("F6")
@in_programs
@pytest.mark.parametrize("where", ["reading", "turn", "connecting", "resolving", "backing off"])
def test_a_pending_call_does_not_hold_up_the_exit_of_the_interpreter(
    instrument: Instrument, tcp: type[Any], interpreter: str, where: str
) -> None:
    program = (
        INTERRUPTED
        + f"""
    {imported(tcp)}
    sock = TCP(host, port, timeout=None, retry=retry)
    calls = 1 + (where == "turn")
    for _ in range(calls):
        thread = threading.Thread(target=sock.write_readline, args=(b"DELAY? 3600\\n",))
        thread.daemon = True
        thread.start()
    while threading.active_count() <= calls + {tcp is Resolved}:
        time.sleep(0.001)  # 3.10 crashes if it exits while a daemon thread, anybody's, is being started
    os.write(1, b"ready\\n")
    sys.stdin.readline()
    """
    )
    check_exit(instrument, program, where, interpreter)


@clause("F6")
@flavours("aio")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("where", ["reading", "turn", "connecting", "resolving", "backing off"])
def test_a_pending_call_holds_up_neither_the_end_of_the_loop_nor_the_exit(
    instrument: Instrument, where: str, loop: str
) -> None:
    pytest.importorskip(loop)
    program = (
        INTERRUPTED
        + f"""
    import asyncio
    from {loop} import run
    from sockio.aio import TCP
    async def main():
        sock = TCP(host, port, retry=retry)
        pending = [asyncio.create_task(sock.write_readline(b"DELAY? 3600\\n")) for _ in range(2)]
        await asyncio.sleep(0.01)
        os.write(1, b"ready\\n")
        await asyncio.to_thread(sys.stdin.readline)
        return pending
    assert all(task.cancelled() for task in run(main()))
    """
    )
    check_exit(instrument, program, where)


@clause("F6", "T1")
@in_programs
def test_a_slow_resolver_does_not_hold_up_the_exit_after_a_timeout_in_threads(
    instrument: Instrument, tcp: type[Any], interpreter: str
) -> None:
    program = (
        INTERRUPTED
        + f"""
    {imported(tcp)}
    from sockio.common import ConnectionTimeoutError
    try:
        TCP(host, port).open(timeout=0.1)
    except ConnectionTimeoutError:
        os.write(1, b"timed out\\n")
    """
    )
    assert outcome(python(program, "resolving", instrument.port, interpreter=interpreter)) == "ready\ntimed out\n"


@clause("F6", "T1")
@flavours("aio")
def test_a_slow_resolver_does_not_hold_up_the_exit_after_a_timeout(instrument: Instrument) -> None:
    program = (
        INTERRUPTED
        + """
    import asyncio
    import sockio.aio
    from sockio.common import ConnectionTimeoutError
    async def main():
        await sockio.aio.TCP(host, port, timeout=0.1).write_readline(b"*IDN?\\n")
    try:
        asyncio.run(main())
    except ConnectionTimeoutError:
        print("timed out")
    """
    )
    assert outcome(python(program, "resolving", instrument.port)) == "ready\ntimed out\n"


def check_exit(instrument: Instrument, program: str, where: str, interpreter: str = sys.executable) -> None:
    if where == "connecting":
        instrument.hang()
    elif where == "backing off":
        instrument.refuse()
    process = python(program, where, instrument.port, interpreter=interpreter, stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    ready = 2 if where == "resolving" else 1
    assert [process.stdout.readline() for _ in range(ready)] == ready * ["ready\n"]
    if where in ("reading", "turn"):
        instrument.ledger.wait(lambda ledger: ledger.commands, BOUND)
    if interpreter == PYTHON27:
        time.sleep(0.05)  # pending means asleep: 2.7 may crash as it exits while a daemon thread is awake, anybody's
    process.stdin.write("\n")
    process.stdin.flush()
    _, complaints = ended(process)
    assert process.returncode == 0, complaints
    # Python 2.7 says so of any daemon thread that is awake at that moment.
    awake = complaints.count("(most likely raised during interpreter shutdown)") if interpreter == PYTHON27 else 0
    assert complaints.count("Traceback") == awake, complaints
