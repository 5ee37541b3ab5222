"""Instrument drivers made for sockio 0.15, unmodified, against the simulators that they bring."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import sockio
import sockio.aio
import sockio.sio

connio = pytest.importorskip("connio", reason="the packages that depend on sockio aren't installed: tox -e dropin")
cryocon = pytest.importorskip("cryocon")
gepace = pytest.importorskip("gepace")
julabo = pytest.importorskip("julabo")
vacuubrand = pytest.importorskip("vacuubrand.dcp3000")
xia_pfcu = pytest.importorskip("xia_pfcu")

TIMEOUT = 30


@contextmanager
def connected(call: Any, simulator: Any, **options: Any) -> Iterator[Any]:
    """Connect as the drivers' documentation shows."""
    options = {"concurrency": call.concurrency, "timeout": TIMEOUT, **options}
    connection = connio.connection_for_url(simulator.url, **options)
    yield connection
    call(connection.close)


@pytest.mark.parametrize(
    ("concurrency", "kind"),
    [
        ("async", sockio.aio.TCP),
        ("asyncio", sockio.aio.TCP),
        ("sync", sockio.sio.TCP),
        ("syncio", sockio.sio.TCP),
    ],
)
def test_connio_makes_objects_of_this_sockio(concurrency: str, kind: Any) -> None:
    connection = connio.connection_for_url("tcp://127.0.0.1:5000", concurrency=concurrency, eol=b"\r", timeout=3)
    assert type(connection) is kind
    assert (connection.host, connection.port, connection.eol, connection.timeout) == ("127.0.0.1", 5000, b"\r", 3)
    with pytest.raises(ValueError, match="concurrency"):
        connio.connection_for_url("tcp://127.0.0.1:5000", concurrency="none")
    with pytest.raises(ValueError, match="scheme"):
        connio.connection_for_url("udp://127.0.0.1:5000", concurrency=concurrency)


def test_cryocon(call: Any, simulator: Callable[..., Any]) -> None:
    with connected(call, simulator("cryocon", "CryoCon")) as connection:
        cryo = cryocon.CryoCon(connection)
        cryo.io_period = 0
        assert call(cryo.idn) == "Cryo-con,24C,204683,1.01A"
        assert call(cryo["A"].unit) == "K"
        assert call(cryo["B"].name, "sample") == "sample"
        assert call(cryo[1].source) == "A"
        assert call(cryo.control, True) is True
        assert call(cryo.control) is True
        if call.concurrency == "sync":
            assert "HW_REVISION: 12A4FE" in repr(cryo)


def test_cryocon_asks_several_things_in_one_request(simulator: Callable[..., Any]) -> None:
    device = simulator("cryocon", "CryoCon")

    def ask(cryo: Any) -> None:
        cryo.idn()
        cryo.hw_revision()

    blocking = sockio.sio.TCP("127.0.0.1", device.port, timeout=TIMEOUT)
    with blocking, (cryo := cryocon.CryoCon(blocking)) as group:
        ask(cryo)
    assert group.replies == ["Cryo-con,24C,204683,1.01A", "12A4FE"]

    async def main() -> None:
        async with sockio.aio.TCP("127.0.0.1", device.port, timeout=TIMEOUT) as connection:
            async with (cryo := cryocon.CryoCon(connection)) as group:
                ask(cryo)
            assert group.replies == ["Cryo-con,24C,204683,1.01A", "12A4FE"]

    asyncio.run(main())


def test_gepace(call: Any, simulator: Callable[..., Any]) -> None:
    with connected(call, simulator("gepace", "Pace")) as connection:
        pace = gepace.Pace(connection)
        assert call(pace.idn).startswith("GE Druck,PACE5000")
        assert call(pace[1].src_pressure_rate) == 2.0
        assert call(pace[1].src_pressure_rate, 3.5) == 3.5
        assert 34 < call(pace[1].pressure) < 36
        assert call(pace.startup_mode)[1] == 100.0


@pytest.mark.parametrize("scheme", ["tcp", "serial-tcp"])
def test_julabo_opens_by_itself_and_doesnt_reconnect(call: Any, simulator: Callable[..., Any], scheme: str) -> None:
    device = simulator("julabo", "JulaboCF")
    connection = julabo.connection_for_url(
        f"{scheme}://127.0.0.1:{device.port}",
        concurrency={"sync": "syncio", "async": "asyncio"}[call.concurrency],
        auto_reconnect=False,
        timeout=TIMEOUT,
    )
    bath = julabo.JulaboCF(connection)
    with pytest.raises(ConnectionError):
        call(bath.identification)
    call(connection.open)
    assert call(bath.identification) == "JULABO CRYOCOMPACT CF31 VERSION 5.0"
    assert call(bath.bath_temperature) == 29.45
    call(bath.set_point_1, 34.56)
    assert call(bath.set_point_1) == 34.56
    call(bath.start)
    assert call(bath.status) == "03 REMOTE START"
    device.restart()
    for _ in range(2):
        with pytest.raises(ConnectionError) as lost:
            call(bath.identification)
        assert not isinstance(lost.value, TimeoutError)
    call(connection.open)
    assert call(bath.self_tunning) == julabo.SelfTunning.Off
    call(connection.close)


def test_vacuubrand(call: Any, simulator: Callable[..., Any]) -> None:
    with connected(call, simulator("vacuubrand", "DCP3000")) as connection:
        gauge = vacuubrand.DCP3000(connection)
        assert call(gauge.version) == "DCP 3000  V2.30"
        assert call(gauge.pressure) == 1004.1
        assert call(gauge.transducer_pressures) == [362, 234, 278, 213]
        call(gauge.on_setpoint, 1, 112.5)
        assert call(gauge.on_setpoint, 1) == 112.5
        assert call(gauge.errors) == []


def test_xia_pfcu_whose_replies_end_in_three_bytes_and_have_many_lines(
    call: Any, simulator: Callable[..., Any]
) -> None:
    with connected(call, simulator("xia_pfcu", "PFCU", shutter_mode=True), eol=b";\r\n") as connection:
        shutter = xia_pfcu.PFCU(connection)
        assert call(shutter.shutter_status) == xia_pfcu.ShutterStatus.Closed
        call(shutter.open_shutter)
        assert call(shutter.shutter_status) == xia_pfcu.ShutterStatus.Open
        info = call(shutter.info)
        assert [channel["nb"] for channel in info["channels"]] == [1, 2, 3, 4]
        assert (info["shutter_enabled"], info["shutter_status"]) == (True, "Open")
        call(shutter.disable_shutter)
        with pytest.raises(xia_pfcu.PFCUError, match="disabled"):
            call(shutter.open_shutter)


def test_a_message_that_nobody_asked_for_isnt_taken_for_a_reply(call: Any, simulator: Callable[..., Any]) -> None:
    with connected(call, simulator("xia_pfcu", "PFCU", shutter_mode=True), eol=b";\r\n") as connection:
        shutter = xia_pfcu.PFCU(connection)
        call(shutter.start_exposure, 0.02)  # its end is announced in the middle of what follows
        enough = time.monotonic() + 0.2
        while time.monotonic() < enough:
            assert call(shutter.filters_status) in ([0, 0, 0, 0], [0, 0, 1, 0])


def test_messages_that_nobody_asked_for_can_be_streamed(simulator: Callable[..., Any]) -> None:
    device = simulator("xia_pfcu", "PFCU", shutter_mode=True)
    options: dict[str, Any] = {"eol": b";\r\n", "timeout": TIMEOUT}
    with sockio.sio.TCP("127.0.0.1", device.port, **options) as connection:
        xia_pfcu.PFCU(connection).start_exposure(0.2)
        assert next(iter(connection)) == b"%PFCU15 End of Exposure DONE;\r\n"

    async def main() -> None:
        async with sockio.aio.TCP("127.0.0.1", device.port, **options) as connection:
            await xia_pfcu.PFCU(connection).start_exposure(0.2)
            assert await anext(aiter(connection)) == b"%PFCU15 End of Exposure DONE;\r\n"

    asyncio.run(main())


def test_an_object_survives_the_restart_of_its_simulator(call: Any, simulator: Callable[..., Any]) -> None:
    device = simulator("vacuubrand", "DCP3000")
    with connected(call, device) as connection:
        gauge = vacuubrand.DCP3000(connection)
        for links in range(1, 5):
            assert call(gauge.pressure) == 1004.1
            assert connection.connection_counter == links
            device.restart()
        device.stop()
        with pytest.raises(OSError, match="refused"):
            call(gauge.pressure)
        device.start()
        assert call(gauge.pressure) == 1004.1


def test_many_drivers_share_an_object(simulator: Callable[..., Any]) -> None:
    device = simulator("vacuubrand", "DCP3000")
    requests = {b"IN_SP_1%d\n" % channel: b"%d.0 mbar\r\n" % (100 * channel) for channel in (1, 2, 3, 4)}
    with sockio.sio.TCP("127.0.0.1", device.port, timeout=TIMEOUT) as connection:
        for channel in (1, 2, 3, 4):
            connection.write(b"OUT_SP_1%d %d.0 mbar\n" % (channel, 100 * channel))
        with ThreadPoolExecutor(8) as pool:
            asked = 25 * list(requests)
            replies = list(pool.map(connection.write_readline, asked))
        assert replies == [requests[request] for request in asked]

    async def main() -> None:
        async with sockio.aio.TCP("127.0.0.1", device.port, timeout=TIMEOUT) as connection:
            replies = await asyncio.gather(*map(connection.write_readline, asked))
        assert replies == [requests[request] for request in asked]

    asyncio.run(main())


def test_this_sockio_is_what_they_use() -> None:
    assert not sockio.__version__.startswith("0.")
