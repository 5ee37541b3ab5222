"""async_modbus, unmodified, against the server of umodbus, on which it builds."""

from __future__ import annotations

import asyncio
import socketserver
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

async_modbus = pytest.importorskip(
    "async_modbus", reason="the packages that depend on sockio aren't installed: tox -e dropin"
)
umodbus_server = pytest.importorskip("umodbus.server.tcp")

TIMEOUT = 30


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a modbus server with a register and a coil at every address."""
    registers: dict[int, int] = defaultdict(int)
    server: Any = umodbus_server.get_server(Server, ("127.0.0.1", 0), umodbus_server.RequestHandler)

    def read(slave_id: int, function_code: int, address: int) -> int:
        return registers[address]

    def write(slave_id: int, function_code: int, address: int, value: int) -> None:
        registers[address] = value

    server.route(slave_ids=[1], function_codes=[1, 3], addresses=range(100))(read)
    server.route(slave_ids=[1], function_codes=[5, 6, 15, 16], addresses=range(100))(write)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_async_modbus(port: int) -> None:
    async def main() -> None:
        client = async_modbus.modbus_for_url(f"tcp://127.0.0.1:{port}", {"timeout": TIMEOUT})
        assert await client.write_registers(1, 10, [1, 2, 3]) == 3
        for value in range(10):
            assert await client.write_register(1, 12, value) == value
            assert list(await client.read_holding_registers(1, 10, 3)) == [1, 2, value]
        assert await client.write_coils(1, 20, [1, 0, 1]) == 3
        assert list(await client.read_coils(1, 20, 3)) == [1, 0, 1]
        with pytest.raises(Exception, match="address"):
            await client.read_holding_registers(1, 500, 1)
        assert list(await client.read_coils(1, 20, 1)) == [1]
        await client.stream.close()

    asyncio.run(main())
