"""What all flavours share: the retry policy, socket options, ports and URLs."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sockio
import sockio.aio
import sockio.futures
import sockio.sio
import sockio.trio
from sockio.common import (
    DFT_KEEP_ALIVE,
    IPTOS_LOWDELAY,
    Retry,
    address_of_url,
    checked_port,
    configure_socket,
    keep_alive_options,
)

CHANCES = st.floats(0, 1, exclude_max=True)
POLICIES = st.builds(
    Retry,
    attempts=st.none() | st.integers(1, 10**6),
    delay=st.floats(0, 1e6),
    factor=st.floats(1, 1e3),
    max_delay=st.floats(0, 1e6),
    jitter=st.floats(0, 1),
)


# Retry


def test_the_default_policy_is_one_attempt() -> None:
    assert not Retry().allows(1)


def test_attempts_counts_the_first_one_too() -> None:
    assert [Retry(attempts=3).allows(failures) for failures in (1, 2, 3)] == [True, True, False]


@given(st.integers(1, 10**9))
def test_attempts_none_allows_any_number(failures: int) -> None:
    assert Retry(attempts=None).allows(failures)


def test_pauses_grow_exponentially_up_to_the_longest() -> None:
    retry = Retry(delay=0.5, factor=2, max_delay=3, jitter=0)
    assert [retry.pause(failures, 0.5) for failures in (1, 2, 3, 4, 5)] == [0.5, 1, 2, 3, 3]


def test_jitter_only_shortens_a_pause_by_its_share() -> None:
    retry = Retry(delay=1, jitter=0.25)
    assert [retry.pause(1, chance) for chance in (0, 0.5, 1)] == [1, 0.875, 0.75]


@given(POLICIES, st.integers(1, 10**9), CHANCES)
def test_a_pause_is_never_negative_nor_longer_than_max_delay(retry: Retry, failures: int, chance: float) -> None:
    assert 0 <= retry.pause(failures, chance) <= retry.max_delay


@given(POLICIES)
def test_the_repr_of_a_policy_makes_it_again(retry: Retry) -> None:
    assert vars(eval(repr(retry))) == vars(retry)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attempts", 0),
        ("attempts", -1),
        ("delay", -0.1),
        ("factor", 0.5),
        ("max_delay", -1),
        ("jitter", -0.1),
        ("jitter", 1.1),
        ("delay", float("nan")),
    ],
)
def test_a_bad_policy_names_what_is_wrong(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"Retry\({name}={value!r}\): must be"):
        Retry(**{name: value})  # type: ignore[arg-type]


# Ports


@pytest.mark.parametrize("port", [1, 5025, 65535, "5025"])
def test_a_port_is_a_number(port: int | str) -> None:
    assert checked_port(port) == int(port)


@pytest.mark.parametrize("port", [0, -1, 65536, "0", "70000"])
def test_a_port_out_of_range_is_a_value_error(port: int | str) -> None:
    with pytest.raises(ValueError, match=f"from 1 to 65535, not {port!r}"):
        checked_port(port)


@pytest.mark.parametrize("port", ["scpi", "", None, 5025.0, b"5025", True])
def test_a_port_that_is_no_number_is_a_type_error(port: Any) -> None:
    with pytest.raises(TypeError, match="port must be a number"):
        checked_port(port)


# Keep-alive


def test_none_leaves_keep_alive_alone() -> None:
    assert keep_alive_options(None) is None


@pytest.mark.parametrize("on", [True, 1, {}, {"active": 1}])
def test_keep_alive_is_completed_from_the_default(on: Any) -> None:
    assert keep_alive_options(on) == DFT_KEEP_ALIVE


@pytest.mark.parametrize("off", [False, 0, {"active": 0}, {"active": False}])
def test_keep_alive_can_be_off(off: Any) -> None:
    assert keep_alive_options(off) == {**DFT_KEEP_ALIVE, "active": 0}


def test_the_default_is_never_changed() -> None:
    mine = {"idle": 5}
    options = keep_alive_options(mine)
    assert options == {**DFT_KEEP_ALIVE, "idle": 5}
    assert mine == {"idle": 5}
    assert DFT_KEEP_ALIVE == {"active": 1, "idle": 60, "retry": 3, "interval": 10}


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ("on", TypeError, "a bool, a dict or None, not 'on'"),
        ([60], TypeError, r"not \[60\]"),
        ({"idel": 60}, ValueError, "unknown name 'idel'; use active, idle, interval, retry"),
        ({"idle": 0}, ValueError, "idle must be a positive whole number, not 0"),
        ({"retry": -1}, ValueError, "retry must be a positive whole number, not -1"),
        ({"interval": 0.5}, ValueError, "interval must be a positive whole number, not 0.5"),
        ({"active": -1}, ValueError, "active must be"),
    ],
)
def test_wrong_keep_alive_names_what_is_wrong(wrong: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        keep_alive_options(wrong)


# Socket options


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        yield sock


def test_options_are_set(sock: socket.socket) -> None:
    configure_socket(sock, keep_alive=keep_alive_options({"idle": 7, "interval": 5, "retry": 4}))
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == IPTOS_LOWDELAY
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 27_000


def test_the_traffic_class_is_set_on_ipv6() -> None:
    with socket.socket(socket.AF_INET6) as sock:
        configure_socket(sock)
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS) == IPTOS_LOWDELAY


def test_what_is_not_asked_for_is_left_alone(sock: socket.socket) -> None:
    configure_socket(sock, no_delay=False, tos=None, keep_alive=None)
    with socket.socket() as untouched:
        for level, name in (
            (socket.IPPROTO_TCP, socket.TCP_NODELAY),
            (socket.IPPROTO_IP, socket.IP_TOS),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        ):
            assert sock.getsockopt(level, name) == untouched.getsockopt(level, name)


def test_where_the_idle_time_has_another_name_it_is_set_by_that(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "TCP_KEEPALIVE", socket.TCP_KEEPIDLE, raising=False)  # as on macOS
    monkeypatch.delattr(socket, "TCP_KEEPIDLE")
    configure_socket(sock, keep_alive=keep_alive_options({"idle": 7}))
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPALIVE) == 7  # type: ignore[attr-defined,unused-ignore]


def test_what_the_platform_lacks_is_skipped(sock: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IP_TOS", "IPV6_TCLASS", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"):
        monkeypatch.delattr(socket, name)
    configure_socket(sock, keep_alive=keep_alive_options(True))
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# URLs


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("tcp://127.0.0.1:5025", ("127.0.0.1", 5025)),
        ("tcp://instrument.test:1/", ("instrument.test", 1)),
        ("tcp://[::1]:65535", ("::1", 65535)),
        ("TCP://host:5025", ("host", 5025)),
    ],
)
def test_a_url_has_an_address(url: str, address: tuple[str, int]) -> None:
    assert address_of_url(url) == address


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("udp://host:5025", "unsupported scheme 'udp'"),
        ("host:5025", "unsupported scheme 'host'"),
        ("", "unsupported scheme ''"),
        ("tcp://host", "'tcp://host' has no port: use tcp://host:port"),
        ("tcp://:5025", "'tcp://:5025' has no host: use tcp://host:port"),
        ("tcp://", "'tcp://' has no host"),
        ("tcp://host:0", "1 to 65535, not 0"),
        ("tcp://host:65536", "'tcp://host:65536': Port .*: use tcp://host:port"),
        ("tcp://host:scpi", "'tcp://host:scpi': Port .*: use tcp://host:port"),
    ],
)
def test_a_wrong_url_says_what_is_wrong(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        address_of_url(url)


@pytest.mark.parametrize(
    ("concurrency", "kind"),
    [
        (None, sockio.aio.TCP),
        ("async", sockio.aio.TCP),
        ("asyncio", sockio.aio.TCP),
        ("futures", sockio.futures.TCP),
        ("sync", sockio.sio.TCP),
        ("syncio", sockio.sio.TCP),
        ("trio", sockio.trio.TCP),
    ],
)
def test_socket_for_url_makes_the_object_of_a_flavour(concurrency: str | None, kind: type) -> None:
    options: dict[str, Any] = {} if concurrency is None else {"concurrency": concurrency}
    make: Callable[..., Any] = sockio.socket_for_url
    sock = make("tcp://host:5025", timeout=3, eol=b"\r\n", **options)
    assert (sock.host, sock.port, sock.timeout, sock.eol) == ("host", 5025, 3, b"\r\n")
    assert type(sock) is kind


def test_socket_for_url_passes_positional_arguments_on() -> None:
    assert sockio.aio.socket_for_url("tcp://host:5025", b"\r\n").eol == b"\r\n"


def test_an_unknown_concurrency_says_which_there_are() -> None:
    with pytest.raises(ValueError, match=r"'threads'.*asyncio"):
        sockio.socket_for_url("tcp://host:5025", concurrency="threads")
