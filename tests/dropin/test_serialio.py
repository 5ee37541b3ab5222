"""serialio, unmodified: it builds on ``aio.TCP``, and is used from blocking code through ``sio.DefaultEventLoop``."""

from __future__ import annotations

import asyncio
import json
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.flavours import eventually

pytest.importorskip("serialio", reason="the packages that depend on sockio aren't installed: tox -e dropin")
connio = pytest.importorskip("connio")
serial = pytest.importorskip("serial")
rfc2217 = pytest.importorskip("serial.rfc2217")
vacuubrand = pytest.importorskip("vacuubrand.dcp3000")

VERSION = b"DCP 3000  V2.30\r\n"
TIMEOUT = 30


def serial_line(call: Any, kind: str, *args: Any, **options: Any) -> Any:
    """Make a serial line of that kind, async or (through ``DefaultEventLoop.proxy``) blocking."""
    flavour = {"async": "aio", "sync": "sio"}[call.concurrency]
    return import_module(f"serialio.{flavour}.{kind}").Serial(*args, **options)


def test_serial_tcp(call: Any, simulator: Callable[..., Any]) -> None:
    device = simulator("vacuubrand", "DCP3000")
    line = serial_line(call, "tcp", f"127.0.0.1:{device.port}", timeout=TIMEOUT)
    assert not line.is_open
    call(line.open)
    assert line.is_open
    assert call(line.write_readline, b"IN_VER\n") == VERSION
    assert call(line.write_readlines, b"IN_VER\nIN_VER\n", 2) == 2 * [VERSION]
    assert call(line.writelines_readlines, [b"IN_VER\n", b"IN_ERR\n"]) == [VERSION, b"00000\r\n"]
    call(line.write, b"IN_VER\n")
    assert call(line.read, 3) == VERSION[:3]
    assert call(line.readuntil, b"\r\n") == VERSION[3:]
    call(line.reset_input_buffer)
    assert call(line.read_all) == b""
    device.restart()
    assert call(line.write_readline, b"IN_VER\n") == VERSION
    call(line.close)
    assert not line.is_open
    call(line.close)


def test_connio_makes_one(simulator: Callable[..., Any]) -> None:
    device = simulator("vacuubrand", "DCP3000")

    async def main() -> None:
        line = connio.connection_for_url(f"serial-tcp://127.0.0.1:{device.port}", concurrency="async", timeout=TIMEOUT)
        assert await line.write_readline(b"IN_VER\n") == VERSION
        await line.close()

    asyncio.run(main())


def test_serial_tcp_that_returns_futures(simulator: Callable[..., Any]) -> None:
    device = simulator("vacuubrand", "DCP3000")
    tcp = import_module("serialio.sio.tcp")
    line = tcp.Serial(f"127.0.0.1:{device.port}", timeout=TIMEOUT, resolve_futures=False)
    futures = [line.write_readline(b"IN_VER\n") for _ in range(10)]
    assert [future.result(TIMEOUT) for future in futures] == 10 * [VERSION]
    future = line.readline()
    assert future.cancel()
    assert line.write_readline(b"IN_VER\n").result(TIMEOUT) == VERSION
    line.close().result(TIMEOUT)


def test_a_local_line(call: Any, tmp_path: Path) -> None:
    path = tmp_path / "line"
    transport = {"type": "serial", "url": str(path)}
    device = {"class": "DCP3000", "package": "vacuubrand.simulator", "name": "simulated", "transports": [transport]}
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"devices": [device]}), encoding="utf-8")
    with subprocess.Popen([sys.executable, "-m", "sinstruments", "-c", str(config)]) as server:
        try:
            eventually(path.is_symlink)
            line = serial_line(call, "posix", str(path), timeout=TIMEOUT)
            gauge = vacuubrand.DCP3000(line)
            assert call(gauge.pressure) == 1004.1
            call(gauge.on_setpoint, 1, 112.5)
            assert call(gauge.on_setpoint, 1) == 112.5
            call(line.close)
        finally:
            server.terminate()


class Bridge(socketserver.StreamRequestHandler):
    """pyserial's own end of RFC 2217, before a line whose ends are joined."""

    def handle(self) -> None:
        """Serve one link."""
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        writing = threading.Lock()

        class Connection:
            def write(_, data: bytes) -> None:
                with writing:
                    self.request.sendall(data)

        with serial.serial_for_url("loop://", timeout=0) as line:
            manager = rfc2217.PortManager(line, Connection())
            while data := self.request.recv(1024):
                line.write(b"".join(manager.filter(data)))
                if echo := line.read(1024):
                    self.request.sendall(b"".join(manager.escape(echo)))


class BridgeServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture
def bridge() -> Iterator[str]:
    """A serial line behind RFC 2217."""
    with BridgeServer(("127.0.0.1", 0), Bridge) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"rfc2217://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_rfc2217_writes_while_it_reads(call: Any, bridge: str) -> None:
    line = serial_line(call, "rfc2217", bridge, timeout=TIMEOUT)
    call(line.open)
    assert call(line.write_readline, b"one\n") == b"one\n"
    assert call(line.write, b"\xff\xfftwo\n") == 6
    assert call(line.read, 2) == b"\xff\xff"
    assert call(line.readline) == b"two\n"
    call(line.set_baudrate, 19200)
    assert line.baudrate == 19200
    assert call(line.write_readlines, b"a\nb\n", 2) == [b"a\n", b"b\n"]
    call(line.close)
    assert not line.is_open
