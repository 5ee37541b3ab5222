"""What a user of ``sockio.futures`` writes, and the types that checkers must see. Only checked, never run."""

# pyright: strict

from __future__ import annotations

from concurrent.futures import Future

from typing_extensions import assert_type

from sockio import sio
from sockio.common import Retry
from sockio.futures import TCP, BlockStream, ConnectionEOFError, LineStream, socket_for_url


def use(either: bool) -> None:
    sock = TCP("host", 5025, eol=b"\r\n", timeout=1, connection_timeout=None, keep_alive=False, retry=Retry(attempts=3))
    assert_type(socket_for_url("tcp://host:5025", timeout=1), TCP)
    assert_type(sio.TCP("host", 5025, resolve_futures=False), TCP)
    assert_type(sio.socket_for_url("tcp://host:5025", resolve_futures=False), TCP)
    assert_type(sio.TCP("host", 5025, resolve_futures=either), sio.TCP | TCP)
    assert_type(sio.socket_for_url("tcp://host:5025", resolve_futures=either), sio.TCP | TCP)

    assert_type(sock.open(timeout=2), Future[None])
    assert_type(sock.read(10), Future[bytes])
    assert_type(sock.readline(b"\r", timeout=None), Future[bytes])
    assert_type(sock.readlines(2), Future[list[bytes]])
    assert_type(sock.readexactly(4), Future[bytes])
    assert_type(sock.readuntil(b";"), Future[bytes])
    assert_type(sock.readbuffer(), Future[bytes])
    assert_type(sock.readblock(), Future[bytes])
    assert_type(sock.write(b"x", idempotent=True), Future[None])
    assert_type(sock.writelines([b"a\n", b"b\n"]), Future[None])
    assert_type(sock.write_read(b"x", 10), Future[bytes])
    assert_type(sock.write_readline(b"*IDN?\n", timeout=0.5), Future[bytes])
    assert_type(sock.write_readlines(b"x", 2), Future[list[bytes]])
    assert_type(sock.writelines_readlines([b"a\n", b"b\n"]), Future[list[bytes]])
    assert_type(sock.write_readblock(b"x"), Future[bytes])
    assert_type(sock.close(), Future[None])

    assert_type(sock.host, str)
    assert_type(sock.port, int)
    assert_type(sock.eol, bytes)
    assert_type(sock.timeout, float | None)
    assert_type(sock.retry, Retry)
    assert_type(sock.connection_counter, int)
    assert_type(sock.is_open, bool)
    assert_type(sock.connected(), bool)
    assert_type(sock.at_eof(), bool)
    assert_type(sock.in_waiting(), int)
    assert_type(sock.reset_input_buffer(), None)

    with sock as same, same.transaction(timeout=1) as inside:
        assert_type(same, TCP)
        assert_type(inside, TCP)
    for line in sock:
        assert_type(line, bytes)
    for line in LineStream(sock, b"\r", reconnect=True, timeout=1):
        assert_type(line, bytes)
    for block in BlockStream(sock, 512):
        assert_type(block, bytes)
    try:
        sock.readline().result()
    except ConnectionEOFError as error:
        assert_type(error.partial, bytes)
        assert_type(error.request_sent, bool)
