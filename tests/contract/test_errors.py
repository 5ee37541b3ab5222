"""Chapter X of the contract: errors."""

from __future__ import annotations

import asyncio
import copy
import errno
import logging
import math
import pickle
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import sockio
import sockio.aio
from simulator import Instrument
from simulator.faults import Cut, Reset, Silence
from sockio.common import (
    WIRE,
    ConnectionClosedError,
    ConnectionEOFError,
    ConnectionLostError,
    ConnectionTimeoutError,
    LimitOverrunError,
    LinkError,
)
from tests.calls import CALLS, IDENTITY, READS, REQUESTS, callers
from tests.clauses import clause
from tests.flavours import FLAVOURS, Flavour, eventually
from tests.logs import logged
from tests.peers import Peer, received

Failure = Callable[[Flavour, Instrument], BaseException]

#: Those that were in sockio 0.15, too, and raised asyncio's errors.
OF_015 = [flavour for flavour in FLAVOURS if flavour.name in ("aio", "sio", "futures")]


def error_of(call: Callable[..., Any], *args: Any, **options: Any) -> BaseException:
    """Return what a call raises."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        call(*args, **options)
    return caught.value


# The failures of a link, one function each.


def end_of_the_link(flavour: Flavour, instrument: Instrument) -> BaseException:
    instrument.inject(Cut(after=3))
    return error_of(flavour.tcp(instrument.host, instrument.port).write_readline, b"*IDN?\n")


def reset(flavour: Flavour, instrument: Instrument) -> BaseException:
    instrument.inject(Reset(after=3))
    return error_of(flavour.tcp(instrument.host, instrument.port).write_readline, b"*IDN?\n")


def silence(flavour: Flavour, instrument: Instrument) -> BaseException:
    instrument.inject(Silence())
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    return error_of(sock.write_readline, b"*IDN?\n", timeout=0.05)


def overlong_line(flavour: Flavour, instrument: Instrument) -> BaseException:
    return error_of(flavour.tcp(instrument.host, instrument.port, buffer_size=3).write_readline, b"*IDN?\n")


def close_meanwhile(flavour: Flavour, instrument: Instrument) -> BaseException:
    instrument.inject(Silence())
    sock = flavour.tcp(instrument.host, instrument.port)
    call = sock.start("write_readline", b"*IDN?\n")
    instrument.ledger.wait(lambda ledger: ledger.commands)
    sock.close()
    return call.error()


def not_open(flavour: Flavour, instrument: Instrument) -> BaseException:
    sock = flavour.tcp(instrument.host, instrument.port, auto_reconnect=False)
    return error_of(sock.write_readline, b"*IDN?\n")


def refused(flavour: Flavour, instrument: Instrument) -> BaseException:
    instrument.refuse()
    return error_of(flavour.tcp(instrument.host, instrument.port).write_readline, b"*IDN?\n")


def black_hole(flavour: Flavour, instrument: Instrument) -> BaseException:
    instrument.hang()
    sock = flavour.tcp(instrument.host, instrument.port)
    return error_of(sock.write_readline, b"*IDN?\n", timeout=0.05)


def dropped_on_accept(flavour: Flavour, instrument: Instrument) -> BaseException:
    instrument.drop_on_accept(100)
    return error_of(flavour.tcp(instrument.host, instrument.port).write_readline, b"*IDN?\n")


FAILURES: list[tuple[Failure, type[BaseException]]] = [
    (end_of_the_link, ConnectionEOFError),
    (reset, ConnectionLostError),
    (silence, ConnectionTimeoutError),
    (overlong_line, LimitOverrunError),
    (close_meanwhile, ConnectionClosedError),
    (not_open, ConnectionClosedError),
    (refused, ConnectionRefusedError),
    (black_hole, ConnectionTimeoutError),
    (dropped_on_accept, LinkError),
]
each_failure = pytest.mark.parametrize(("failure", "kind"), FAILURES, ids=[failure.__name__ for failure, _ in FAILURES])


# X1


@clause("X1")
@each_failure
def test_every_failure_is_a_connection_error(
    flavour: Flavour, instrument: Instrument, failure: Failure, kind: type[BaseException]
) -> None:
    error = failure(flavour, instrument)
    assert isinstance(error, kind)
    assert isinstance(error, ConnectionError)
    assert isinstance(error, OSError)


@clause("X1")
@each_failure
def test_errors_tell_whether_the_request_was_sent(
    flavour: Flavour, instrument: Instrument, failure: Failure, kind: type[BaseException]
) -> None:
    error = failure(flavour, instrument)
    sent = failure not in (not_open, refused, black_hole)
    if failure is not dropped_on_accept:
        assert getattr(error, "request_sent", None) is sent


@clause("X1")
@each_failure
def test_errors_pickle_and_copy(
    flavour: Flavour, instrument: Instrument, failure: Failure, kind: type[BaseException]
) -> None:
    error = failure(flavour, instrument)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert again.args == error.args
        assert vars(again) == vars(error)


@clause("X1")
@pytest.mark.parametrize(
    "kind",
    [
        LinkError,
        ConnectionEOFError,
        ConnectionLostError,
        ConnectionClosedError,
        ConnectionTimeoutError,
        LimitOverrunError,
        sockio.aio.IncompleteReadError,
    ],
)
def test_errors_keep_their_attributes_when_pickled_and_print_their_message_alone(
    flavour: Flavour, kind: type[LinkError]
) -> None:
    error = kind("it broke", b"12.", True)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert type(again) is kind
        assert (str(again), again.partial, again.request_sent) == ("it broke", b"12.", True)
    assert repr(error) == f"{kind.__name__}('it broke')"
    assert (kind().partial, kind().request_sent) == (b"", False)


@clause("X1")
def test_the_end_of_the_link_is_a_connection_eof_error_for_every_call(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    for name, args in {**READS, **REQUESTS}.items():
        sock.open()
        if name in READS:
            call = sock.start(name, *args)
            eventually(lambda: callers(sock) == 1)
            instrument.drop()
        else:
            instrument.inject(Cut(after=0))
            call = sock.start(name, *args)
        assert isinstance(call.error(), ConnectionEOFError)
        sock.close()


@clause("X1")
def test_timeouts_are_caught_as_asyncios_and_as_builtin(flavour: Flavour, instrument: Instrument) -> None:
    for failure in (silence, black_hole):
        error = failure(flavour, instrument)
        assert isinstance(error, asyncio.TimeoutError)
        assert isinstance(error, TimeoutError)


@clause("X1")
@pytest.mark.parametrize(("name", "args", "expected"), [("readexactly", (10,), 10), ("readuntil", (b";",), None)])
@pytest.mark.parametrize("flavour", OF_015, indirect=True)
def test_the_end_inside_an_exact_read_is_also_asyncios_incomplete_read_error(
    flavour: Flavour, peer: Peer, name: str, args: tuple[Any, ...], expected: int | None
) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    other_end = peer.accept()
    other_end.sendall(b"12.5")
    other_end.close()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        getattr(sock, name)(*args)
    error: Any = caught.value
    assert issubclass(type(error), ConnectionEOFError)
    assert issubclass(type(error), EOFError)
    assert (error.partial, error.expected) == (b"12.5", expected)
    again = pickle.loads(pickle.dumps(error))
    assert (again.partial, again.expected, str(again)) == (b"12.5", expected, str(error))


@clause("X1")
@pytest.mark.parametrize("flavour", OF_015, indirect=True)
def test_so_is_the_end_inside_a_block_of_a_stream(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    other_end = peer.accept()
    other_end.sendall(b"123456")
    other_end.close()
    blocks = sock.block_stream(4)
    assert next(blocks) == b"1234"
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        next(blocks)
    error: Any = caught.value
    assert issubclass(type(error), ConnectionEOFError)
    assert (error.partial, error.expected) == (b"56", 4)


@clause("X1")
def test_a_lost_link_has_the_systems_error_as_its_cause(flavour: Flavour, instrument: Instrument) -> None:
    error = reset(flavour, instrument)
    assert isinstance(error, ConnectionResetError)
    assert isinstance(error.__cause__, OSError)
    assert error.__cause__.errno == errno.ECONNRESET


@clause("X1")
def test_a_failed_connect_is_the_systems_error(flavour: Flavour, instrument: Instrument) -> None:
    error = refused(flavour, instrument)
    assert type(error) is ConnectionRefusedError
    assert error.errno == errno.ECONNREFUSED


# X2

ADVICE = r"check|raise|call open\(\)|connects? again|see \.partial"


@clause("X2")
@each_failure
def test_messages_name_the_peer_the_call_and_what_to_do(
    flavour: Flavour, instrument: Instrument, failure: Failure, kind: type[BaseException]
) -> None:
    message = str(failure(flavour, instrument))
    assert f"{instrument.host}:{instrument.port}" in message
    assert "write_readline" in message
    assert re.search(ADVICE, message), message
    assert "None" not in message
    assert "\n" not in message


@clause("X2")
def test_the_message_names_every_call(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=0.01)
    for name, args in {**READS, **REQUESTS}.items():
        instrument.inject(Silence())
        with pytest.raises(ConnectionTimeoutError, match=rf"^{name} on {instrument.host}:{instrument.port}: "):
            getattr(sock, name)(*args)
    instrument.refuse()
    sock.close()
    for name, args in CALLS.items():
        message = str(error_of(getattr(sock, name), *args))
        assert re.search(rf"\b{name}\b.*{instrument.host}:{instrument.port}", message), message
    message = str(error_of(sock.open))
    assert re.search(rf"\bopen\b.*{instrument.host}:{instrument.port}", message), message


@clause("X2")
def test_the_message_shows_what_was_cut_off(flavour: Flavour, instrument: Instrument) -> None:
    assert repr(IDENTITY[:3]).lstrip("b") in str(end_of_the_link(flavour, instrument))


@clause("X2")
def test_messages_stay_short_however_much_was_cut_off(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    call = sock.start("readexactly", 2**20)
    other_end = peer.accept()
    other_end.sendall(bytes(2**19))
    other_end.close()
    error = call.error()
    assert isinstance(error, ConnectionEOFError)
    assert len(error.partial) == 2**19
    assert len(str(error)) < 500


@clause("X2")
def test_an_ipv6_peer_is_named_too(flavour: Flavour, instrument_factory: Callable[..., Instrument]) -> None:
    instrument = instrument_factory(host="::1")
    assert f"::1:{instrument.port}" in str(refused(flavour, instrument))


# X3

BAD_ARGUMENTS: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    *((name, ("*IDN?\n", *args[1:]), {}, TypeError, "bytes") for name, args in CALLS.items() if "write" in name),
    *((name, (None, *args[1:]), {}, TypeError, "bytes") for name, args in CALLS.items() if "write" in name),
    *((name, (5, *args[1:]), {}, TypeError, "bytes") for name, args in CALLS.items() if "write" in name),
    ("writelines", (b"*IDN?\n",), {}, TypeError, "list"),
    ("writelines", (["*IDN?\n"],), {}, TypeError, "bytes"),
    ("writelines", ([b"*RST\n", 5],), {}, TypeError, "bytes"),
    ("writelines_readlines", (b"*IDN?\n",), {}, TypeError, "list"),
    ("writelines_readlines", (["*IDN?\n"],), {}, TypeError, "bytes"),
    *((name, args, {"eol": b""}, ValueError, "eol.*empty") for name, args in CALLS.items() if "readline" in name),
    *((name, args, {"eol": "\n"}, TypeError, "eol.*bytes") for name, args in CALLS.items() if "readline" in name),
    *((name, args, {"eol": 10}, TypeError, "eol.*bytes") for name, args in CALLS.items() if "readline" in name),
    ("readuntil", (b"",), {}, ValueError, "separator.*empty"),
    ("readuntil", ("\n",), {}, TypeError, "separator.*bytes"),
    ("read", (-2,), {}, ValueError, "-2"),
    ("read", (1.5,), {}, TypeError, "1.5"),
    ("read", ("1",), {}, TypeError, "'1'"),
    ("readexactly", (-1,), {}, ValueError, "-1"),
    ("readexactly", (None,), {}, TypeError, "None"),
    ("readlines", (-1,), {}, ValueError, "-1"),
    ("readlines", (2.0,), {}, TypeError, "2.0"),
    ("write_read", (b"*IDN?\n", -2), {}, ValueError, "-2"),
    ("write_readlines", (b"*IDN?\n", -1), {}, ValueError, "-1"),
    ("writelines_readlines", ([b"*IDN?\n"], -1), {}, ValueError, "-1"),
    *((name, args, {"timeout": math.nan}, ValueError, "timeout.*NaN") for name, args in CALLS.items()),
    *((name, args, {"timeout": 10**400}, ValueError, "timeout.*None.*10000") for name, args in CALLS.items()),
    *((name, args, {"timeout": "1"}, TypeError, "timeout.*'1'") for name, args in CALLS.items()),
    *((name, args, {"timeout": [1]}, TypeError, "timeout") for name, args in CALLS.items()),
]


@clause("X3")
def test_wrong_arguments_of_a_call_raise_before_anything_is_sent_and_change_nothing(
    flavour: Flavour, instrument: Instrument
) -> None:
    closed = flavour.tcp(instrument.host, instrument.port)
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    instrument.ledger.wait(lambda ledger: ledger.links == [1])
    instrument.send(b"unread\n")
    eventually(lambda: flavour.call(sock.raw.in_waiting) == 7)
    for name, args, options, kind, message in BAD_ARGUMENTS:
        for which in (sock, closed):
            error = error_of(getattr(which, name), *args, **options)
            assert type(error) is kind, (name, args, options, error)
            assert re.search(message, str(error)), (name, args, options, error)
        assert sock.in_waiting() == 7
    assert not closed.connected()
    assert sock.connected()
    assert sock.readline() == b"unread\n"
    assert sock.write_readline(b"ECHO? x\n") == b"x,1\n"
    assert instrument.ledger.commands == [b"ECHO? x"]
    assert instrument.ledger.links == [1]


@clause("X3")
def test_a_wrong_timeout_of_open_raises_before_it_connects(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    with pytest.raises(ValueError, match="NaN"):
        sock.open(timeout=math.nan)
    with pytest.raises(TypeError, match="timeout"):
        sock.open(timeout="1")
    assert not sock.connected()
    sock.open()
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert instrument.ledger.links == [1]


@clause("X3")
@pytest.mark.parametrize(
    ("stream", "args", "options", "kind"),
    [
        ("LineStream", (b"",), {}, ValueError),
        ("LineStream", ("\n",), {}, TypeError),
        ("BlockStream", (0,), {}, ValueError),
        ("BlockStream", (-1,), {}, ValueError),
        ("BlockStream", (b"",), {}, ValueError),
        ("BlockStream", ("x",), {}, TypeError),
        ("BlockStream", (1.5,), {}, TypeError),
    ],
)
def test_wrong_arguments_of_a_stream_raise_at_once(
    flavour: Flavour,
    instrument: Instrument,
    stream: str,
    args: tuple[Any, ...],
    options: dict[str, Any],
    kind: type[Exception],
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    with pytest.raises(kind):
        getattr(flavour.module, stream)(sock.raw, *args, **options)
    assert not sock.connected()


@clause("X3")
@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"host": ""}, ValueError, "host"),
        ({"host": None}, TypeError, "host.*None"),
        ({"host": b"127.0.0.1"}, TypeError, "host.*b'127.0.0.1'"),
        ({"port": 0}, ValueError, "port.*0"),
        ({"port": 65536}, ValueError, "port.*65536"),
        ({"port": -1}, ValueError, "port.*-1"),
        ({"port": "scpi"}, TypeError, "port.*'scpi'"),
        ({"port": None}, TypeError, "port.*None"),
        ({"port": 5025.5}, TypeError, "port.*5025.5"),
        ({"eol": b""}, ValueError, "eol.*empty"),
        ({"eol": "\n"}, TypeError, "eol.*bytes"),
        ({"buffer_size": 0}, ValueError, "buffer_size.*0"),
        ({"buffer_size": -1}, ValueError, "buffer_size.*-1"),
        ({"buffer_size": 1e6}, TypeError, "buffer_size.*1000000.0"),
        ({"tos": "low"}, TypeError, "tos.*'low'"),
        ({"tos": -1}, ValueError, "tos.*-1"),
        ({"tos": 256}, ValueError, "tos.*256"),
        ({"timeout": math.nan}, ValueError, "timeout.*NaN"),
        ({"timeout": 10**400}, ValueError, "timeout.*None.*10000"),
        ({"timeout": "1"}, TypeError, "timeout.*'1'"),
        ({"timeout": True}, TypeError, "timeout.*True"),
        ({"connection_timeout": math.nan}, ValueError, "connection_timeout.*NaN"),
        ({"connection_timeout": "1"}, TypeError, "connection_timeout.*'1'"),
        ({"keep_alive": "on"}, TypeError, "keep_alive.*'on'"),
        ({"keep_alive": {"idel": 5}}, ValueError, "keep_alive.*'idel'.*idle"),
        ({"keep_alive": {"idle": 0}}, ValueError, "keep_alive.*idle.*0"),
        ({"keep_alive": {"idle": 1.5}}, ValueError, "keep_alive.*idle.*1.5"),
        ({"retry": 3}, TypeError, "retry.*Retry.*3"),
        ({"stale_input": "drop"}, ValueError, "stale_input.*'drop'"),
        ({"on_connection_made": 5}, TypeError, "callback.*5"),
        ({"on_connection_lost": "x"}, TypeError, "callback.*'x'"),
        ({"on_eof_received": []}, TypeError, r"callback.*\[\]"),
    ],
)
def test_wrong_arguments_of_the_object_raise_at_once(
    flavour: Flavour, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    ((name, value),) = options.items()
    if isinstance(value, bytes) and flavour.variant == "py2-2.7":
        pytest.skip("these bytes are a str there")
    if name.startswith("on_") and name not in flavour.callbacks:
        pytest.skip("this flavour doesn't tell of that event")
    arguments = {"host": "127.0.0.1", "port": 5025, **options}
    with pytest.raises(kind, match=message):
        flavour.call(flavour.module.TCP, **arguments)


@clause("X3")
def test_a_wrong_value_assigned_later_raises_at_the_call_and_can_be_put_right(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    for name, bad, good, kind in (
        ("timeout", "1", 5, TypeError),
        ("timeout", math.nan, None, ValueError),
        ("timeout", 10**400, None, ValueError),
        ("eol", "\n", b"\n", TypeError),
        ("eol", b"", b"\n", ValueError),
    ):
        setattr(sock.raw, name, bad)
        with pytest.raises(kind, match=name):
            sock.write_readline(b"*IDN?\n")
        setattr(sock.raw, name, good)
        assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert instrument.ledger.links == [1]


@clause("X3")
@pytest.mark.parametrize("url", ["udp://host:1", "tcp://:5025", "tcp://host:0", "tcp://host:65536", "host:5025"])
def test_a_wrong_url_is_a_value_error(flavour: Flavour, url: str) -> None:
    with pytest.raises(ValueError, match=r"tcp://host:port|[Pp]ort"):
        flavour.module.socket_for_url(url)
    with pytest.raises(ValueError, match=r"tcp://host:port|[Pp]ort"):
        sockio.socket_for_url(url)


@clause("X3")
def test_reading_nothing_is_not_wrong(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    assert sock.read(0) == b""
    assert sock.readexactly(0) == b""
    assert sock.readlines(0) == []
    assert sock.writelines([]) is None
    assert sock.write(b"") is None
    assert sock.write_readline(b"*IDN?\n") == IDENTITY


# X4


@clause("X4")
def test_repr_tells_host_port_and_state(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    name = f"<{flavour.module.__name__}.TCP 127.0.0.1:{instrument.port}"
    assert repr(sock.raw) == f"{name} closed>"
    sock.open()
    assert repr(sock.raw) == f"{name} connected>"
    instrument.drop()
    eventually(lambda: not flavour.call(sock.raw.connected))
    assert repr(sock.raw) == f"{name} ended>"
    sock.close()
    assert repr(sock.raw) == f"{name} closed>"


@clause("X4")
def test_debug_shows_the_life_of_links(
    flavour: Flavour, instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sockio")
    sock = flavour.tcp(instrument.host, instrument.port)
    instrument.refuse()
    error_of(sock.open)
    instrument.accept()
    sock.open()
    instrument.drop()
    sock.write_readline(b"*IDN?\n")
    sock.close()
    records = logged(caplog)
    assert all(f"{instrument.host}:{instrument.port}" in record.getMessage() for record in records)
    story = [record.getMessage() for record in records]
    for told, expected in zip(story, ["attempt 1 failed.*refused", "up", "ended.*peer", "up", "ended"], strict=True):
        assert re.search(expected, told), story


@clause("X4")
def test_nothing_is_logged_without_trouble_above_debug(
    flavour: Flavour, instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.write_readline(b"*IDN?\n")
    instrument.drop()
    sock.write_readline(b"*IDN?\n")
    sock.close()
    assert not logged(caplog)


class Trace(logging.Filter):
    """Puts together what the wire trace tells, and keeps it from every handler, pytest's too: it is long."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = {"<<": bytearray(), ">>": bytearray()}
        self.peers: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        assert isinstance(record.args, tuple)
        *_, data = record.args
        assert isinstance(data, bytes)
        peer, direction, _ = record.getMessage().split(maxsplit=2)
        self.peers.add(peer)
        self.bytes[direction] += data
        return False


@pytest.fixture
def trace(flavour: Flavour) -> Iterator[Trace]:
    """The wire trace, switched on."""
    trace = Trace()
    logger = logging.getLogger("sockio.wire")
    logger.addFilter(trace)
    levels = {logger, flavour.imported("logging").getLogger("sockio.wire")}
    for each in levels:
        each.setLevel(WIRE)
    yield trace
    for each in levels:
        each.setLevel(logging.NOTSET)
    logger.removeFilter(trace)


@clause("X4")
def test_the_wire_trace_shows_every_byte(flavour: Flavour, peer: Peer, trace: Trace) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    other_end = peer.accept()
    requests = [b"*IDN?\n", bytes(range(256)) * 2**16, b"last\n"]
    replies = [b"one\n", bytes(range(256)) * 2**14, b"two\n"]
    for request, reply in zip(requests, replies, strict=True):
        call = sock.start("write", request)
        assert received(other_end, len(request)) == request
        call.result()
        call = sock.start("readexactly", len(reply))
        other_end.sendall(reply)
        assert call.result() == reply
    assert trace.bytes["<<"] == b"".join(requests)
    assert trace.bytes[">>"] == b"".join(replies)
    assert trace.peers == {f"{peer.host}:{peer.port}"}


@clause("X4")
def test_the_wire_trace_costs_nothing_when_it_is_off(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    assert flavour.is_untraced(sock)
