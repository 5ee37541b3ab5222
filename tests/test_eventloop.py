"""``sio.EventLoop``: an asyncio loop on a thread, and the proxies of what lives on it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import copy
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any

import pytest

import sockio.sio
from simulator import Instrument
from sockio.sio import DefaultEventLoop, EventLoop
from tests.flavours import BOUND
from tests.programs import outcome, python


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    """A loop of the test's own, stopped when it ends."""
    loop = EventLoop()
    yield loop
    if loop.thread is not None:
        loop.stop()


class Foreign:
    """An async object of another library."""

    kind = "foreign"

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.left_with: type[BaseException] | None = None
        self.on_instance = partial(self.add, 1)
        self.callable = Adder()
        self.started = threading.Event()
        self.cancelled = threading.Event()

    async def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        await asyncio.sleep(0)
        self.thread = threading.current_thread()
        return a + b

    def plain(self, *args: int, **kwargs: int) -> tuple[asyncio.AbstractEventLoop, tuple[int, ...], dict[str, int]]:
        """Need a running loop."""
        return asyncio.get_running_loop(), args, kwargs

    def starts_a_task(self) -> asyncio.Task[int]:
        return asyncio.create_task(self.add(20, 3))

    @property
    async def level(self) -> int:
        return await self.add(2, 2)

    async def for_ever(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def fail(self) -> None:
        raise LookupError("nothing there")

    async def __aenter__(self) -> Foreign:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.left_with = kind
        return kind is LookupError

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in range(3):
            await asyncio.sleep(0)
            yield number


class Adder:
    """A callable object."""

    async def __call__(self, a: int, b: int) -> int:
        return a + b


# The loop


def test_nothing_is_started_before_it_is_used(loop: EventLoop) -> None:
    assert (loop.master, loop.thread, loop.loop) == (True, None, None)
    loop.proxy(Foreign())
    assert (loop.thread, loop.loop) == (None, None)


def test_importing_the_blocking_flavour_doesnt_bring_asyncio() -> None:
    program = "import sys, sockio.sio; sys.exit('asyncio' in sys.modules)"
    if sys.version_info >= (3, 11):
        subprocess.run([sys.executable, "-c", program], check=True)
    assert not hasattr(sockio.sio, "nothing")


def test_a_coroutine_runs_on_a_daemon_thread(loop: EventLoop) -> None:
    foreign = Foreign()
    assert loop.run_coroutine(foreign.add(1, 2)).result(BOUND) == 3
    assert foreign.thread is loop.thread
    assert loop.thread is not None
    assert loop.thread.daemon


def test_many_threads_start_one_loop(loop: EventLoop) -> None:
    barrier = threading.Barrier(8)

    async def running() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def ask() -> asyncio.AbstractEventLoop:
        barrier.wait(BOUND)
        return loop.run_coroutine(running()).result(BOUND)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: ask(), range(8))) == {loop.loop}


def test_it_is_started_once_and_stopped_once(loop: EventLoop) -> None:
    loop.start()
    with pytest.raises(RuntimeError, match="runs already"):
        loop.start()
    loop.stop()
    with pytest.raises(RuntimeError, match="doesn't run"):
        loop.stop()


def test_after_stop_it_starts_again_when_used(loop: EventLoop) -> None:
    proxy = loop.proxy(Foreign())
    assert proxy.add(1, 2) == 3
    first = loop.thread
    loop.stop()
    assert first is not None
    assert not first.is_alive()
    assert (loop.thread, loop.loop) == (None, None)
    assert proxy.add(1, 2) == 3
    assert loop.thread is not first


def test_stop_cancels_what_runs_and_wakes_who_waits(loop: EventLoop) -> None:
    foreign = Foreign()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(loop.proxy(foreign).for_ever)
        assert foreign.started.wait(BOUND)
        loop.stop()
        assert foreign.cancelled.is_set()
        assert isinstance(waiting.exception(BOUND), concurrent.futures.CancelledError)


def test_the_loop_can_be_stopped_by_what_runs_on_it(loop: EventLoop) -> None:
    async def stop() -> threading.Thread:
        loop.stop()
        return threading.current_thread()

    loop.run_coroutine(stop()).result(BOUND).join(BOUND)
    assert loop.thread is None


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_asyncio_ends_a_loop_with_is_for_the_caller_alone(loop: EventLoop, kind: type[BaseException]) -> None:
    async def fail() -> None:
        raise kind

    async def go_on() -> int:
        return 1

    assert isinstance(loop.run_coroutine(fail()).exception(BOUND), kind)
    assert loop.run_coroutine(go_on()).result(BOUND) == 1


def test_a_cancelled_future_cancels_its_coroutine(loop: EventLoop) -> None:
    foreign = Foreign()
    future = loop.run_coroutine(foreign.for_ever())
    assert foreign.started.wait(BOUND)
    assert future.cancel()
    assert foreign.cancelled.wait(BOUND)


def test_a_loop_of_somebody_else_is_used_but_neither_started_nor_stopped() -> None:
    theirs = asyncio.new_event_loop()
    thread = threading.Thread(target=theirs.run_forever)
    thread.start()
    loop = EventLoop(theirs)
    assert (loop.master, loop.thread, loop.loop) == (False, None, theirs)
    assert loop.proxy(Foreign()).plain()[0] is theirs
    with pytest.raises(RuntimeError, match="start it where it was made"):
        loop.start()
    with pytest.raises(RuntimeError, match="stop it where it was made"):
        loop.stop()
    theirs.call_soon_threadsafe(theirs.stop)
    thread.join(BOUND)
    theirs.close()
    with pytest.raises(RuntimeError, match="closed"):  # and no warning of a coroutine that was never awaited
        loop.proxy(Foreign()).add(1, 2)


def test_what_is_no_coroutine_is_a_type_error(loop: EventLoop) -> None:
    with pytest.raises(TypeError):
        loop.run_coroutine(Foreign().add)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


# Proxies


def test_coroutine_functions_become_blocking_calls(loop: EventLoop) -> None:
    proxy = loop.proxy(Foreign())
    assert proxy.add(1, b=2) == 3
    assert proxy.on_instance(2) == 3
    assert proxy.callable(1, 2) == 3
    assert proxy.level == 4
    assert not inspect.iscoroutinefunction(proxy.add)
    assert (proxy.add.__name__, proxy.add.__doc__) == ("add", "Add two numbers.")
    with pytest.raises(LookupError, match="nothing there"):
        proxy.fail()


def test_or_calls_that_return_futures(loop: EventLoop) -> None:
    proxy = loop.proxy(Foreign(), resolve_futures=False)
    futures = [proxy.add(1, 2), proxy.on_instance(2), proxy.callable(1, 2), proxy.starts_a_task(), proxy.level]
    assert [future.result(BOUND) for future in futures] == [3, 3, 3, 23, 4]
    assert isinstance(proxy.fail().exception(BOUND), LookupError)


@pytest.mark.parametrize("resolve_futures", [True, False])
def test_plain_methods_are_called_on_the_loop_at_once(loop: EventLoop, resolve_futures: bool) -> None:
    running, args, kwargs = loop.proxy(Foreign(), resolve_futures).plain(1, a=2)
    assert running is loop.loop
    assert (args, kwargs) == ((1,), {"a": 2})


def test_what_a_plain_method_returns_is_awaited(loop: EventLoop) -> None:
    assert loop.proxy(Foreign()).starts_a_task() == 23


def test_attributes_are_read_and_assigned_through_the_proxy(loop: EventLoop) -> None:
    foreign = Foreign()
    proxy = loop.proxy(foreign)
    assert proxy.kind == "foreign"
    proxy.timeout = 3
    assert vars(foreign)["timeout"] == 3
    del proxy.timeout
    assert not hasattr(proxy, "timeout")
    assert "add" in dir(proxy)
    assert repr(proxy) == f"<proxy of {foreign!r}>"
    assert copy.copy(proxy).kind == "foreign"


def test_async_with_becomes_with(loop: EventLoop) -> None:
    proxy = loop.proxy(Foreign())
    with proxy as entered:
        assert entered is proxy
        proxy.left_with = "nothing yet"
    assert proxy.left_with is None
    with pytest.raises(KeyError), proxy:
        raise KeyError
    assert proxy.left_with is KeyError


def test_an_exception_that_aexit_swallows_is_swallowed(loop: EventLoop) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(loop.proxy(Foreign()))
        raise LookupError


def test_what_aenter_returns_is_entered(loop: EventLoop) -> None:
    with loop.proxy(Other()) as entered:
        assert type(entered) is object


class Other(Foreign):
    """An object that isn't what it enters."""

    async def __aenter__(self) -> Any:
        return object()


def test_async_for_becomes_for(loop: EventLoop) -> None:
    assert list(loop.proxy(Foreign())) == [0, 1, 2]


def test_on_its_own_loop_a_proxy_raises_instead_of_waiting_for_itself(loop: EventLoop) -> None:
    proxy = loop.proxy(Foreign())

    async def use(call: Callable[[], object]) -> object:
        return call()

    with pytest.raises(RuntimeError, match="await the object"):
        loop.run_coroutine(use(lambda: proxy.add(1, 2))).result(BOUND)
    assert loop.run_coroutine(use(proxy.plain)).result(BOUND) == (loop.loop, (), {})


# A TCP object on the loop


def test_tcp_lives_on_the_loop(loop: EventLoop, instrument: Instrument) -> None:
    with loop.tcp(instrument.host, instrument.port, timeout=BOUND) as sock:
        assert sock.write_readline(b"ECHO? x\n") == b"x,1\n"
        assert sock.connected()
        instrument.restart()
        assert sock.write_readline(b"ECHO? y\n", timeout=BOUND) == b"y,2\n"
        assert (sock.connection_counter, sock.host) == (2, instrument.host)
        sock.timeout = 0
        with pytest.raises(TimeoutError):
            sock.write_readline(b"*IDN?\n")
        sock.timeout = BOUND
        sock.write(b"DATA? 3\n")
        assert [len(line) > 1 for _, line in zip(range(3), sock, strict=False)] == 3 * [True]
    assert not sock.is_open


def test_tcp_that_returns_futures(loop: EventLoop, instrument: Instrument) -> None:
    sock = loop.tcp(instrument.host, instrument.port, False, timeout=BOUND)
    futures = [sock.write_readline(b"ECHO? %d\n" % number) for number in range(5)]
    assert [future.result(BOUND) for future in futures] == [b"%d,%d\n" % (n, n + 1) for n in range(5)]
    sock.close().result(BOUND)


# The process around it


def test_a_pending_call_doesnt_hold_up_the_exit() -> None:
    program = """
    import asyncio, threading
    from sockio.sio import DefaultEventLoop
    started = threading.Event()
    async def for_ever():
        started.set()
        await asyncio.Event().wait()
    future = DefaultEventLoop.run_coroutine(for_ever())
    threading.Thread(target=future.result, daemon=True).start()
    started.wait()
    """
    assert outcome(python(program, traced=True)) == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT for one process")
def test_ctrl_c_ends_a_call_that_waits_and_cancels_it(instrument: Instrument) -> None:
    program = """
    import sys
    from sockio.sio import DefaultEventLoop
    sock = DefaultEventLoop.tcp("127.0.0.1", int(sys.argv[1]))
    try:
        sock.write_readline(b"DELAY? 3600\\n")
    except KeyboardInterrupt:
        print(sock.write_readline(b"ECHO? again\\n", timeout=60))
    sock.close()
    """
    process = python(program, instrument.port)
    instrument.ledger.wait(lambda ledger: ledger.commands, BOUND)
    process.send_signal(signal.SIGINT)
    assert outcome(process) == "b'again,1\\n'\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_fork_the_child_starts_a_loop_of_its_own(instrument: Instrument) -> None:
    program = """
    import os, sys, warnings
    from sockio.sio import DefaultEventLoop, EventLoop
    warnings.simplefilter("ignore", DeprecationWarning)  # a thread (the loop's) runs while this program forks
    unused = EventLoop()
    sock = DefaultEventLoop.tcp("127.0.0.1", int(sys.argv[1]), timeout=60)
    sock.write_readline(b"ECHO? before\\n")
    child = os.fork()
    if not child:
        assert DefaultEventLoop.thread is None
        os.write(1, sock.write_readline(b"ECHO? child\\n"))
        sock.close()
        DefaultEventLoop.stop()
        sys.exit()
    os.waitpid(child, 0)
    os.write(1, sock.write_readline(b"ECHO? parent\\n"))
    assert sock.connection_counter == 1
    sock.close()
    """
    assert sorted(outcome(python(program, instrument.port, traced=True)).split()) == ["child,2", "parent,3"]


def test_the_default_loop_is_one_for_all() -> None:
    assert isinstance(DefaultEventLoop, EventLoop)
    assert DefaultEventLoop.master
