"""Chapter L of the contract: latency defaults."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from simulator import Instrument
from sockio.common import IPTOS_LOWDELAY, IPTOS_THROUGHPUT, ConnectionLostError
from tests.calls import IDENTITY
from tests.clauses import clause
from tests.flavours import Flavour, Sock
from tests.peers import Peer, received, segments_received, unplug

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks at what only Linux shows")


def opened(flavour: Flavour, where: Instrument | Peer, **options: Any) -> Sock:
    """Return an open object."""
    sock = flavour.tcp(where.host, where.port, **options)
    sock.open()
    return sock


def option(sock: Sock, level: int, name: int) -> int:
    """Return an option of the object's socket, as the operating system tells it."""
    value: int = sock.raw._link.sock.getsockopt(level, name)
    return value


def no_delay(sock: Sock) -> bool:
    return bool(option(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY))


def keep_alive(sock: Sock) -> tuple[int, int, int, int]:
    """Return idle time, interval, probes and the user timeout (in seconds); the object has keep-alive on."""
    assert option(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    names = socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT
    idle, interval, retry, milliseconds = (option(sock, socket.IPPROTO_TCP, name) for name in names)
    return idle, interval, retry, milliseconds // 1000


# L1


@clause("L1")
def test_nagles_algorithm_is_off(flavour: Flavour, instrument: Instrument) -> None:
    assert no_delay(opened(flavour, instrument))


@clause("L1")
def test_no_delay_false_leaves_nagles_algorithm_on(flavour: Flavour, instrument: Instrument) -> None:
    sock = opened(flavour, instrument, no_delay=False)
    assert not no_delay(sock)
    instrument.drop()
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert not no_delay(sock)


@clause("L1")
def test_nagles_algorithm_is_off_on_every_link(flavour: Flavour, instrument: Instrument) -> None:
    sock = opened(flavour, instrument)
    instrument.drop()
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert sock.connection_counter == 2
    assert no_delay(sock)


# L2


@clause("L2")
def test_the_type_of_service_is_low_delay(flavour: Flavour, instrument: Instrument) -> None:
    assert option(opened(flavour, instrument), socket.IPPROTO_IP, socket.IP_TOS) == IPTOS_LOWDELAY


@clause("L2")
def test_the_traffic_class_is_low_delay_on_ipv6(
    flavour: Flavour, instrument_factory: Callable[..., Instrument]
) -> None:
    instrument = instrument_factory(host="::1")
    assert option(opened(flavour, instrument), socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == IPTOS_LOWDELAY


@clause("L2")
@pytest.mark.parametrize(
    ("host", "level", "name"),
    [
        ("127.0.0.1", socket.IPPROTO_IP, socket.IP_TOS),
        ("::1", socket.IPPROTO_IPV6, getattr(socket, "IPV6_TCLASS", 0)),
    ],
)
def test_another_type_of_service_can_be_had_or_none(
    flavour: Flavour, instrument_factory: Callable[..., Instrument], host: str, level: int, name: int
) -> None:
    instrument = instrument_factory(host=host)
    assert option(opened(flavour, instrument, tos=IPTOS_THROUGHPUT), level, name) == IPTOS_THROUGHPUT
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as untouched:
        assert option(opened(flavour, instrument, tos=None), level, name) == untouched.getsockopt(level, name)


# L3


@clause("L3")
@linux
def test_keep_alive_is_on(flavour: Flavour, instrument: Instrument) -> None:
    assert keep_alive(opened(flavour, instrument)) == (60, 10, 3, 90)


@clause("L3")
@linux
def test_keep_alive_can_be_tuned(flavour: Flavour, instrument: Instrument) -> None:
    sock = opened(flavour, instrument, keep_alive={"active": 1, "idle": 7, "interval": 5, "retry": 4})
    assert keep_alive(sock) == (7, 5, 4, 27)
    assert keep_alive(opened(flavour, instrument, keep_alive={"idle": 7})) == (7, 10, 3, 37)
    assert keep_alive(opened(flavour, instrument, keep_alive=True)) == (60, 10, 3, 90)


@clause("L3")
@linux
@pytest.mark.parametrize("off", [False, {"active": 0}, {"active": 0, "idle": 7}, None])
def test_keep_alive_can_be_off(flavour: Flavour, instrument: Instrument, off: Any) -> None:
    sock = opened(flavour, instrument, keep_alive=off)
    assert not option(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert not option(sock, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


@clause("L3")
@linux
def test_an_unplugged_peer_is_noticed_by_keep_alive_with_and_without_unacknowledged_data(
    flavour: Flavour, peer: Peer
) -> None:
    quick = {"idle": 1, "interval": 1, "retry": 1}
    idle, busy = opened(flavour, peer, keep_alive=quick), opened(flavour, peer, keep_alive=quick)
    for _ in range(2):
        unplug(peer.accept())
    calls = [idle.start("readline"), busy.start("write_readline", b"*IDN?\n")]
    for call in calls:  # the system itself would take two hours, and a quarter of an hour
        error = call.error()
        assert isinstance(error, ConnectionLostError)
        assert isinstance(error.__cause__, OSError)
        assert error.__cause__.errno == errno.ETIMEDOUT
    assert not idle.connected()
    assert not busy.connected()


@clause("L3")
@pytest.mark.parametrize(
    "missing", ["TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "IP_TOS", "IPPROTO_IPV6"]
)
def test_options_that_the_platform_lacks_are_skipped(
    flavour: Flavour, instrument: Instrument, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delattr(flavour.imported("socket"), missing, raising=False)
    sock = opened(flavour, instrument)
    assert sock.write_readline(b"*IDN?\n") == IDENTITY
    assert no_delay(sock)


# L4


@clause("L4")
@linux
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("write", (b"A;B;C\n",)),
        ("writelines", ([b"A\n", b"B\n", b"C\n"],)),
        ("write_readline", (b"A;B;C\n",)),
        ("write_readlines", (b"A;B;C\n", 3)),
        ("writelines_readlines", ([b"A\n", b"B\n", b"C\n"],)),
    ],
)
def test_one_call_makes_one_segment(flavour: Flavour, peer: Peer, name: str, args: tuple[Any, ...]) -> None:
    sock = opened(flavour, peer)
    other_end = peer.accept()
    call = sock.start(name, *args)
    assert len(received(other_end, 6)) == 6
    other_end.sendall(b"a\nb\nc\n")
    call.result()
    assert segments_received(other_end) == 1
