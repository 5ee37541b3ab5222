"""The names, arguments and examples of sockio 0.15 are here, too. The tables were written down from its source."""

from __future__ import annotations

import asyncio
import enum
import gc
import inspect
import re
import threading
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

import sockio
import sockio.aio
import sockio.common
import sockio.futures
import sockio.py2
import sockio.sio
from simulator import Instrument
from sockio._race import Race
from tests.flavours import BOUND, eventually

#: What programs import. (Left out: what only 0.15 itself used, see docs/migration.md.)
NAMES = {
    "sockio": "__version__ socket_for_url",
    "sockio.common": (
        "IPTOS_NORMAL IPTOS_LOWDELAY IPTOS_THROUGHPUT IPTOS_RELIABILITY IPTOS_MINCOST DEFAULT_LIMIT log "
        "ConnectionEOFError ConnectionTimeoutError"
    ),
    "sockio.aio": "TCP LineStream BlockStream socket_for_url ConnectionEOFError ConnectionTimeoutError DFT_KEEP_ALIVE",
    "sockio.sio": "TCP EventLoop DefaultEventLoop socket_for_url",
}

#: The arguments of each method, in their order, with their defaults.
METHODS = {
    "open": "",
    "close": "",
    "connected": "",
    "at_eof": "",
    "in_waiting": "",
    "reset_input_buffer": "",
    "read": "n=-1",
    "readline": "eol=None",
    "readlines": "n, eol=None",
    "readexactly": "n",
    "readuntil": "separator=b'\\n'",
    "readbuffer": "",
    "write": "data",
    "writelines": "lines",
    "write_read": "data, n=-1",
    "write_readline": "data, eol=None",
    "write_readlines": "data, n, eol=None",
    "writelines_readlines": "lines, n=None, eol=None",
}
PLAIN = {"connected", "at_eof", "in_waiting", "reset_input_buffer"}
TAKE_TIMEOUT = METHODS.keys() - PLAIN - {"close"}

ATTRIBUTES = (
    "host port eol buffer_size auto_reconnect connection_counter on_connection_made on_connection_lost on_eof_received "
    "no_delay tos connection_timeout timeout keep_alive"
)

TCP_ARGUMENTS = (
    "host, port, eol=b'\\n', auto_reconnect=True, on_connection_made=None, on_connection_lost=None, "
    "on_eof_received=None, buffer_size=1048576, no_delay=True, tos=16, connection_timeout=None, timeout=None, "
    "keep_alive={'active': 1, 'idle': 60, 'retry': 3, 'interval': 10}"
)


def positional(function: Callable[..., Any]) -> str:
    """Return the arguments that can be given by position, without types."""
    parameters = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    return ", ".join(str(parameter) for parameter in plain if parameter.kind in kinds and parameter.name != "self")


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in NAMES for name in NAMES[module].split()])
def test_a_name_is_there(module: str, name: str) -> None:
    assert getattr(import_module(module), name) is not None


@pytest.mark.parametrize("module", [sockio.aio, sockio.sio], ids=["aio", "sio"])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_the_same_arguments_in_the_same_order(module: Any, name: str) -> None:
    method = getattr(module.TCP, name)
    assert positional(method) == METHODS[name]
    assert ("timeout" in inspect.signature(method).parameters) == (name in TAKE_TIMEOUT)
    assert inspect.iscoroutinefunction(method) == (module is sockio.aio and name not in PLAIN)


def test_tcp_takes_the_same_arguments_in_the_same_order() -> None:
    assert positional(sockio.aio.TCP) == TCP_ARGUMENTS
    assert positional(sockio.sio.TCP) == "host, port, resolve_futures=True"
    everything: dict[str, Any] = dict.fromkeys(
        ("on_connection_made", "on_connection_lost", "on_eof_received", "timeout")
    )
    assert sockio.sio.TCP("a.test", 1, True, eol=b"\r", tos=0, keep_alive=False, **everything).eol == b"\r"


@pytest.mark.parametrize("module", [sockio.aio, sockio.sio], ids=["aio", "sio"])
def test_attributes_can_be_read_and_assigned(module: Any) -> None:
    sock = module.TCP("a.test", 1)
    for name in ATTRIBUTES.split():
        setattr(sock, name, getattr(sock, name))
    assert sock.is_open is False
    assert isinstance(module.TCP.is_open, property)
    sock._lock = object()  # serialio's way of switching 0.15's lock off


class Whole:
    """A whole number that is no ``int``, as numpy's are not."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self.number == other

    def __lt__(self, other: int) -> bool:
        return self.number < other

    __hash__ = None  # type: ignore[assignment]


class Port(enum.IntEnum):
    SCPI = 5025


@pytest.mark.parametrize("module", [sockio.sio, sockio.py2], ids=["sio", "py2"])
def test_any_whole_number_is_one(module: Any, instrument: Instrument) -> None:
    assert module.TCP("a.test", Port.SCPI).port == 5025
    keep_alive = {"active": True, "idle": Whole(30), "retry": None}
    sock = module.TCP(instrument.host, Whole(instrument.port), buffer_size=2**20, keep_alive=keep_alive, timeout=30)
    with sock:
        assert len(sock.write_readlines(b"DATA? 2\n", Whole(2))) == 2
        sock.write(b"*IDN?\n")
        identity = sock.readexactly(Whole(3)) + sock.readline()
        assert identity == sock.write_readline(b"*IDN?\n")


def test_streams_take_the_same_arguments_in_the_same_order() -> None:
    assert positional(sockio.aio.LineStream).startswith("tcp, eol=None")
    assert positional(sockio.aio.BlockStream).startswith("tcp, limit")


def test_the_event_loop_has_the_same_methods() -> None:
    assert positional(sockio.sio.EventLoop) == "loop=None"
    assert positional(sockio.sio.EventLoop.run_coroutine) == "coro"
    assert positional(sockio.sio.EventLoop.proxy) == "obj, resolve_futures=True"
    assert positional(sockio.sio.EventLoop.tcp) == "host, port, resolve_futures=True"
    assert positional(sockio.sio.EventLoop.start) == positional(sockio.sio.EventLoop.stop) == ""
    assert {"master", "thread", "loop"} <= vars(sockio.sio.DefaultEventLoop).keys()


@pytest.mark.parametrize("concurrency", ["async", "asyncio", "sync", "syncio"])
def test_socket_for_url_takes_the_same_concurrencies(concurrency: str) -> None:
    sock = sockio.socket_for_url("tcp://a.test:5000", concurrency=concurrency, eol=b"\r")
    assert (sock.host, sock.port, sock.eol) == ("a.test", 5000, b"\r")
    assert inspect.iscoroutinefunction(sock.write_readline) == concurrency.startswith("a")
    module = sockio.aio if concurrency.startswith("a") else sockio.sio
    assert isinstance(module.socket_for_url("tcp://a.test:5000"), module.TCP)


def test_errors_are_connection_errors() -> None:
    assert issubclass(sockio.common.ConnectionEOFError, ConnectionError)
    assert issubclass(sockio.common.ConnectionTimeoutError, ConnectionError)
    assert issubclass(sockio.common.ConnectionTimeoutError, asyncio.TimeoutError)  # as its README had it


def test_a_plain_callback_has_run_when_close_returns(instrument: Instrument) -> None:
    async def main() -> None:
        causes: list[Any] = []
        sock = sockio.aio.TCP(instrument.host, instrument.port, on_connection_lost=causes.append)
        for links in range(1, 3):
            await sock.open()
            await sock.close()
            assert causes == links * [None]
        await sock.close()
        assert causes == [None, None]

    asyncio.run(main())


class ProactorLike(asyncio.SelectorEventLoop):
    """A loop that doesn't tell when a socket is ready, as Windows' own."""

    add_reader = asyncio.AbstractEventLoop.add_reader
    add_writer = asyncio.AbstractEventLoop.add_writer


def test_the_loop_of_windows_will_do(instrument: Instrument, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Any] = []
    is_connected = Race._is_connected

    def connected_later(race: Race, sock: Any) -> bool:
        looks.append(sock)
        return len(looks) > 3 and is_connected(race, sock)

    async def main() -> None:
        one, other = (sockio.aio.TCP(instrument.host, instrument.port, timeout=BOUND) for _ in range(2))
        async with one, other:
            assert await one.write_readline(b"ECHO? a\n") == b"a,1\n"
            assert await other.write_readline(b"ECHO? b\n") == b"b,2\n"
            links: list[Any] = [one._link, other._link]
            assert links[0]._chunk is not links[1]._chunk

    monkeypatch.setattr(Race, "_is_connected", connected_later)
    loop = ProactorLike()
    loop.run_until_complete(main())
    loop.close()


@pytest.mark.parametrize("make", [sockio.sio.TCP, sockio.futures.TCP], ids=["sio", "futures"])
def test_coroutine_functions_may_be_callbacks_of_blocking_code(
    make: Any, instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []

    async def made() -> None:
        await asyncio.sleep(0.01)
        seen.append("made")
        raise RuntimeError("is logged")

    async def lost(cause: object) -> None:
        await asyncio.sleep(0.01)
        seen.append(cause)

    sock = make(instrument.host, instrument.port, on_connection_made=made, on_connection_lost=lost)
    with sock:
        assert sock.connected()
        assert seen == ["made"]
    assert "is logged" in caplog.text
    eventually(lambda: seen == ["made", None])


@pytest.mark.parametrize("make", [sockio.sio.TCP, sockio.futures.TCP], ids=["sio", "futures"])
def test_a_coroutine_that_takes_too_long_is_cancelled(make: Any, instrument: Instrument) -> None:
    cancelled = threading.Event()

    async def made() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    sock = make(instrument.host, instrument.port, on_connection_made=made, connection_timeout=0.1)
    with pytest.raises(TimeoutError), sock:
        pass
    assert cancelled.wait(BOUND)
    assert not sock.connected()


# The examples of its README

BEGIN = """
import asyncio
from sockio.aio import TCP

async def main():
    sock = TCP('acme.example.com', 5000)
"""

README = {
    "asyncio": BEGIN
    + """
    # Assuming a SCPI complient on the other end we can ask for:
    reply = await sock.write_readline(b'*IDN?\\n')
    print(reply)

asyncio.run(main())
""",
    "classic": """
from sockio.sio import TCP

sock = TCP('acme.example.com', 5000)
reply = sock.write_readline(b'*IDN?\\n')
print(reply)
""",
    "futures": """
from sockio.sio import TCP

sock = TCP('acme.example.com', 5000, resolve_futures=False)
reply = sock.write_readline(b'*IDN?\\n').result()
print(reply)
""",
    "py2": """
from sockio.py2 import TCP

sock = TCP('acme.example.com', 5000)
reply = sock.write_readline(b'*IDN?\\n').result()
print(reply)
""",
    "auto-reconnection": BEGIN
    + """
    reply = await sock.write_readline(b'*IDN?\\n')
    print(reply)
    kill_the_server_connection_and_bring_it_back_to_life()
    reply = await sock.write_readline(b'*IDN?\\n')
    print(reply)

asyncio.run(main())
""",
    "timeout": """
import asyncio
from sockio.aio import TCP

async def main():
    sock = TCP('acme.example.com', 5000, connection_timeout=10, timeout=10)
    try:
        reply = await sock.write_readline(b'DELAY? 3600\\n', timeout=0.1)
    except asyncio.TimeoutError:
        print("timeout")

asyncio.run(main())
""",
    "custom EOL": """
import asyncio
from sockio.aio import TCP

async def main():
    sock = TCP('acme.example.com', 5000, eol=b'\\r')
    reply = await sock.write_readline(b'*IDN?\\n', eol=b'\\n')
    print(reply)

asyncio.run(main())
""",
    "connection event callbacks": """
import asyncio
from sockio.aio import TCP

async def connected():
    await sock.write(b'*CLS\\n')
    await sock.write(b'*RST\\n')

async def main():
    global sock
    sock = TCP('acme.example.com', 5000, on_connection_made=connected)
    print(await sock.write_readline(b'*IDN?\\n'))

asyncio.run(main())
""",
    "streams": """
import asyncio
from sockio.aio import TCP

async def main():
    sock = TCP('acme.example.com', 5000, eol=b'\\n')
    await sock.write(b'DATA? 3\\n')
    n = 0
    async for line in sock:
        print(line)
        n += 1
        if n == 3: break

asyncio.run(main())
""",
}


@pytest.mark.parametrize("name", README)
def test_an_example_runs(name: str, instrument: Instrument, capsys: pytest.CaptureFixture[str]) -> None:
    program = README[name].replace("acme.example.com", instrument.host).replace("5000", str(instrument.port))
    namespace: dict[str, Any] = {"kill_the_server_connection_and_bring_it_back_to_life": instrument.restart}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the examples don't close what they opened
        exec(compile(program, f"README: {name}", "exec"), namespace)
        namespace.clear()
        gc.collect()
    shown = capsys.readouterr().out
    assert re.fullmatch(r"(b'.+\\n'\n|timeout\n)+", shown), shown
    if name == "connection event callbacks":
        assert instrument.ledger.commands == [b"*CLS", b"*RST", b"*IDN?"]
