"""What a user of ``sockio.sio`` writes, and the types that checkers must see. Only checked, never run."""

# pyright: strict

from __future__ import annotations

from typing_extensions import assert_type

from sockio.common import Retry
from sockio.sio import TCP, BlockStream, ConnectionEOFError, LineStream, socket_for_url


def use() -> None:
    sock = TCP("host", 5025, eol=b"\r\n", timeout=1, connection_timeout=None, keep_alive=False, retry=Retry(attempts=3))
    assert_type(socket_for_url("tcp://host:5025", timeout=1), TCP)
    assert_type(TCP("host", 5025, resolve_futures=True), TCP)

    assert_type(sock.open(timeout=2), None)
    assert_type(sock.read(10), bytes)
    assert_type(sock.readline(b"\r", timeout=None), bytes)
    assert_type(sock.readlines(2), list[bytes])
    assert_type(sock.readexactly(4), bytes)
    assert_type(sock.readuntil(b";"), bytes)
    assert_type(sock.readbuffer(), bytes)
    assert_type(sock.readblock(), bytes)
    assert_type(sock.write(b"x", idempotent=True), None)
    assert_type(sock.writelines([b"a\n", b"b\n"]), None)
    assert_type(sock.write_read(b"x", 10), bytes)
    assert_type(sock.write_readline(b"*IDN?\n", timeout=0.5), bytes)
    assert_type(sock.write_readlines(b"x", 2), list[bytes])
    assert_type(sock.writelines_readlines([b"a\n", b"b\n"]), list[bytes])
    assert_type(sock.write_readblock(b"x"), bytes)
    assert_type(sock.close(), None)

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
        sock.readline()
    except ConnectionEOFError as error:
        assert_type(error.partial, bytes)
        assert_type(error.request_sent, bool)
