"""The server: its life, its links, and what travels on them when nothing goes wrong."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import pytest

from simulator import Instrument, Multimeter, Raw, Wait
from simulator.device import Piece
from simulator.link import LONGEST_MESSAGE
from simulator.listener import Listener
from simulator.multimeter import IDENTITY, PATTERN, readings

from .conftest import Client

Connect = Callable[[Instrument], Client]


def test_it_tells_where_it_is() -> None:
    with Instrument(name="scope") as instrument:
        assert instrument.host == "127.0.0.1"
        assert instrument.port > 0
        assert instrument.url == f"tcp://127.0.0.1:{instrument.port}"
        assert instrument.resource == f"TCPIP::127.0.0.1::{instrument.port}::SOCKET"
        assert repr(instrument) == f"<Instrument scope on 127.0.0.1:{instrument.port}, started>"
    assert repr(instrument).endswith("stopped>")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_it_serves_ipv4_ipv6_and_names(host: str, connect: Connect) -> None:
    with Instrument(host=host) as instrument:
        assert connect(instrument).ask(b"*IDN?") == IDENTITY + b"\n"


def test_an_ipv6_address_is_in_brackets() -> None:
    with Instrument(host="::1") as instrument:
        assert instrument.url == f"tcp://[::1]:{instrument.port}"
        assert instrument.resource == f"TCPIP::[::1]::{instrument.port}::SOCKET"


def test_starting_and_stopping_twice_changes_nothing(connect: Connect) -> None:
    instrument = Instrument()
    instrument.stop()
    port = instrument.start().port
    assert instrument.start().port == port
    assert connect(instrument).ask(b"*OPC?") == b"1\n"
    instrument.stop()
    instrument.stop()
    assert [entry.detail for entry in instrument.ledger.entries if entry.event == "server"] == [
        f"started on 127.0.0.1:{port}",
        "stopped",
    ]


def test_stopping_ends_every_link_and_closes_the_port(dmm: Instrument, connect: Connect) -> None:
    clients = [connect(dmm) for _ in range(3)]
    dmm.stop()
    assert [client.read() for client in clients] == [b"", b"", b""]
    with pytest.raises(ConnectionRefusedError):
        connect(dmm)
    assert dmm.ledger.open_links == []


def test_a_restart_keeps_port_and_state_and_drops_the_links(dmm: Instrument, connect: Connect) -> None:
    port = dmm.port
    before = connect(dmm)
    assert before.ask(b"ECHO? a") == b"a,1\n"
    for number in range(2, 12):
        dmm.restart()
        assert before.read() == b""
        before = connect(dmm)
        assert before.ask(b"ECHO? a") == b"a,%d\n" % number
    assert dmm.port == port
    assert dmm.ledger.links == list(range(1, 12))


def test_stop_and_restart_is_an_outage_on_the_same_port(dmm: Instrument, connect: Connect) -> None:
    port = dmm.port
    dmm.stop()
    dmm.restart()
    assert dmm.port == port
    assert connect(dmm).ask(b"*OPC?") == b"1\n"


def test_async_with_starts_and_stops(connect: Connect) -> None:
    async def main() -> None:
        async with Instrument() as instrument:
            reader, writer = await asyncio.open_connection(instrument.host, instrument.port)
            writer.write(b"*OPC?\n")
            assert await reader.readline() == b"1\n"
            await instrument.ledger.wait_async(lambda ledger: ledger.count(b"*OPC?") == 1)
            writer.close()
            await writer.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            connect(instrument)

    asyncio.run(main())


def test_threads_may_start_and_stop_at_the_same_time(connect: Connect) -> None:
    instrument = Instrument().start()
    methods = 5 * [instrument.start, instrument.stop, instrument.restart]
    threads = [threading.Thread(target=method) for method in methods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    instrument.start()
    assert connect(instrument).ask(b"*OPC?") == b"1\n"
    instrument.stop()


def test_a_port_in_use_is_an_error_that_tells_the_remedy(dmm: Instrument) -> None:
    with pytest.raises(OSError, match=rf"cannot listen on 127.0.0.1 port {dmm.port} .*: choose another") as caught:
        Instrument(port=dmm.port).start()
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("host", ["no such host", "no..host", 64 * "x"])
def test_a_host_that_is_nowhere_is_an_error_that_names_it(host: str) -> None:
    with pytest.raises(OSError, match=f"'{host}' cannot be resolved \\(.+\\)"):
        Instrument(host=host)


def test_an_address_of_another_machine_is_an_error_that_tells_the_remedy() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1 .*: choose an address of this machine"):
        Instrument(host="192.0.2.1").start()


def test_what_is_no_device_and_no_host_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"device must have a method execute\(message\), not '127.0.0.1'"):
        Instrument("127.0.0.1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="host must be a name or an address, not None"):
        Instrument(host=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range_is_an_error(port: int) -> None:
    with pytest.raises(ValueError, match=f"not {port}"):
        Instrument(port=port)


def test_a_port_that_was_never_bound_closes_without_effect() -> None:
    listener = Listener("127.0.0.1", 0)
    listener.close()
    assert listener.port == 0


def test_a_terminator_must_be_bytes_and_not_empty() -> None:
    with pytest.raises(ValueError, match="eol is empty"):
        Instrument(eol=b"")
    with pytest.raises(TypeError, match=r"eol must be bytes, not '\\n'"):
        Instrument(eol="\n")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_commands_of_several_links_are_numbered_in_the_order_in_which_they_are_executed(
    dmm: Instrument, connect: Connect
) -> None:
    clients = [connect(dmm) for _ in range(3)]
    answers = [client.ask(b"ECHO? x") for _ in range(5) for client in clients]
    assert answers == [b"x,%d\n" % number for number in range(1, 16)]
    assert dmm.ledger.links == [1, 2, 3]
    commands = [entry for entry in dmm.ledger.entries if entry.event == "command"]
    assert [entry.link for entry in commands] == 5 * [1, 2, 3]


def test_a_delayed_command_leaves_the_other_links_alone(dmm: Instrument, connect: Connect) -> None:
    busy, other = connect(dmm), connect(dmm)
    busy.send(b"ECHO? a;DELAY? 86400;ECHO? b\n")
    dmm.ledger.wait(lambda ledger: len(ledger.commands) == 1)
    assert other.ask(b"ECHO? c") == b"c,2\n"


def test_a_delayed_answer_comes_whole(client: Client) -> None:
    assert client.ask(b"*OPC?;DELAY? 0.01;ECHO? a") == b"1;0.01;a,1\n"


def test_pipelined_commands_are_answered_in_order(client: Client) -> None:
    client.send(b"".join(b"ECHO? %d\n" % number for number in range(500)))
    assert [client.readline() for _ in range(500)] == [b"%d,%d\n" % (number, number + 1) for number in range(500)]


def test_a_message_may_arrive_in_pieces(client: Client, dmm: Instrument) -> None:
    for piece in (b"*I", b"DN?", b"\n*OPC?", b"\n"):
        client.send(piece)
    assert client.readline() == IDENTITY + b"\n"
    assert client.readline() == b"1\n"
    assert dmm.ledger.commands == [b"*IDN?", b"*OPC?"]


def test_blank_messages_are_no_commands(client: Client, dmm: Instrument) -> None:
    client.send(b"\n \n\r\n")
    assert client.ask(b"*OPC?") == b"1\n"
    assert dmm.ledger.commands == [b"*OPC?"]


def test_the_terminator_may_have_any_length(connect: Connect) -> None:
    with Instrument(eol=b"<end>") as instrument:
        client = connect(instrument)
        client.send(b"*OPC?<e")
        client.send(b"nd>ECHO? \n<end>")
        assert client.read(len(b"1<end>,1<end>")) == b"1<end>,1<end>"


def test_a_stream_is_sent_line_by_line(client: Client) -> None:
    assert client.ask(b"DATA? 20000") == next(readings()) + b"\n"
    rest = list(islice(readings(), 1, 20000))
    assert [client.readline() for _ in range(19999)] == [reading + b"\n" for reading in rest]
    assert client.ask(b"*OPC?") == b"1\n"


def test_raw_bytes_are_sent_without_terminator(client: Client) -> None:
    client.send(b"RAW? 200000\n")
    assert client.read(200_000) == (4 * PATTERN)[:200_000]
    assert client.ask(b"*OPC?") == b"1\n"


def test_a_stream_that_nobody_reads_is_made_no_further_and_leaves_other_links_alone(connect: Connect) -> None:
    made = 0

    class Endless:
        def execute(self, message: bytes) -> Iterator[Piece]:
            nonlocal made
            if message == b"made":
                yield b"%d" % made
                return
            while True:
                made += 1
                yield Raw(bytes(2**16))

    with Instrument(Endless()) as instrument:
        greedy, other = connect(instrument), connect(instrument)
        greedy.send(b"go\n")
        instrument.ledger.wait(lambda ledger: ledger.count(b"go") == 1)
        before, now = -1, 0
        while before != now:
            before, now = now, int(other.ask(b"made"))
            threading.Event().wait(0.05)
        assert 0 < now < 1000


def test_a_device_may_return_one_answer_or_nothing(connect: Connect) -> None:
    class Plain:
        def execute(self, message: bytes) -> bytes | None:
            return message if message.endswith(b"?") else None

    with Instrument(Plain()) as instrument:
        client = connect(instrument)
        client.send(b"a\n")
        assert client.ask(b"b?") == b"b?\n"
        assert instrument.ledger.commands == [b"a", b"b?"]


def test_what_comes_before_a_wait_is_sent_before_it(connect: Connect) -> None:
    class Twice:
        def execute(self, message: bytes) -> Iterator[Piece]:
            yield b"now"
            yield Wait(86400)
            yield b"later"

    class Never:
        def execute(self, message: bytes) -> Iterator[Piece]:
            yield Wait(0)

    with Instrument(Twice()) as twice, Instrument(Never()) as never:
        assert connect(twice).ask(b"go") == b"now\n"
        silent = connect(never)
        silent.send(b"go\n")
        never.ledger.wait(lambda ledger: ledger.count(b"go") == 1)
        silent.socket.shutdown(socket.SHUT_WR)
        assert silent.read() == b""


def test_a_device_that_fails_ends_the_link_and_is_logged(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def execute(self, message: bytes) -> None:
            raise ZeroDivisionError

    with Instrument(Broken()) as instrument:
        client = connect(instrument)
        assert client.ask(b"go") == b""
        instrument.ledger.wait(lambda ledger: ledger.entries[-1].detail == "the device failed")
        assert instrument.ledger.commands == []
        assert "link 1 ends because the device failed" in caplog.text
        assert "ZeroDivisionError" in caplog.text


def test_a_device_that_answers_text_is_told_to_answer_bytes(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    class Talker:
        def execute(self, message: bytes) -> Any:
            return "ok"

    with Instrument(Talker()) as instrument:
        assert connect(instrument).ask(b"go") == b""
        assert "a device answers bytes, not 'ok'" in caplog.text


def test_a_message_without_end_ends_the_link(client: Client, dmm: Instrument) -> None:
    client.send((LONGEST_MESSAGE - 100) * b"x")
    client.send(b"\n")
    assert client.ask(b"*OPC?") == b"1\n"
    client.send((LONGEST_MESSAGE + 1) * b"x")
    dmm.ledger.wait(lambda ledger: ledger.open_links == [])
    assert dmm.ledger.entries[-1].detail == f"more than {LONGEST_MESSAGE} bytes without a terminator"


def test_a_client_that_only_closes_its_sending_side_still_gets_its_answers(client: Client, dmm: Instrument) -> None:
    client.send(b"*OPC?\nDELAY? 0.01\n*IDN?\nhalf")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.read() == b"1\n0.01\n" + IDENTITY + b"\n"
    assert dmm.ledger.commands == [b"*OPC?", b"DELAY? 0.01", b"*IDN?"]


def test_a_client_that_closes_is_on_record(client: Client, dmm: Instrument) -> None:
    assert client.ask(b"*OPC?") == b"1\n"
    client.close()
    dmm.ledger.wait(lambda ledger: ledger.entries[-1].detail == "closed by peer")
    assert dmm.ledger.open_links == []


def test_a_client_that_resets_the_link_ends_a_command_that_takes_its_time(client: Client, dmm: Instrument) -> None:
    client.send(b"DELAY? 86400\n")
    dmm.ledger.wait(lambda ledger: ledger.count(b"DELAY? 86400") == 1)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    dmm.ledger.wait(lambda ledger: "reset by peer" in ledger.entries[-1].detail)


def test_a_client_that_leaves_in_the_middle_of_a_stream_is_on_record(client: Client, dmm: Instrument) -> None:
    client.ask(b"DATA? 1e9")
    client.close()
    dmm.ledger.wait(lambda ledger: ledger.entries[-1].event == "closed")
    assert dmm.ledger.entries[-1].detail.startswith("lost: ")


def test_a_hundred_links_are_served(dmm: Instrument, connect: Connect) -> None:
    clients = [connect(dmm) for _ in range(100)]
    for client in clients:
        client.send(b"ECHO? x\n")
    assert sorted(int(client.readline()[2:]) for client in clients) == list(range(1, 101))


def test_a_failure_to_accept_is_on_record_and_passes(
    dmm: Instrument, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = Listener.accept
    failures = [OSError(errno.EMFILE, "Too many open files")]

    def fail_once(self: Listener) -> socket.socket | None:
        if failures:
            raise failures.pop()
        return accept(self)

    monkeypatch.setattr(Listener, "accept", fail_once)
    assert connect(dmm).ask(b"*OPC?") == b"1\n"
    assert "Too many open files" in str(dmm.ledger)


def test_a_device_belongs_to_its_instrument(connect: Connect) -> None:
    with Instrument(Multimeter(seed=1)) as one, Instrument(Multimeter(seed=2)) as two:
        assert connect(one).ask(b"READ?") == next(readings(1)) + b"\n"
        assert connect(two).ask(b"READ?") == next(readings(2)) + b"\n"
