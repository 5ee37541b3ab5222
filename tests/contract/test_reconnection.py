"""Chapter R of the contract: reconnection."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from simulator import Instrument
from simulator.faults import Cut, Delay, Fault, Reset, Silence
from sockio.common import (
    ConnectionClosedError,
    ConnectionEOFError,
    ConnectionLostError,
    ConnectionTimeoutError,
    LinkError,
    Retry,
)
from tests.calls import callers
from tests.clauses import clause
from tests.flavours import Flavour, Script, Sock, eventually
from tests.peers import Names, Peer, received, unplug

ECHO = b"ECHO? a\n"
#: The calls that expect a reply, each asking for the same.
QUERIES: list[tuple[str, tuple[Any, ...]]] = [
    ("write_read", (ECHO, 100)),
    ("write_readline", (ECHO,)),
    ("write_readlines", (ECHO, 1)),
    ("writelines_readlines", ([ECHO],)),
]
WRITES: list[tuple[str, tuple[Any, ...]]] = [("write", (ECHO,)), ("writelines", ([ECHO],))]
ENDINGS = ["drop", "reset"]
#: For calls that must come to an end by themselves, but for a defect.
GENEROUS = 30.0

each_query = pytest.mark.parametrize(("call", "args"), QUERIES, ids=[call for call, _ in QUERIES])
each_request = pytest.mark.parametrize(("call", "args"), QUERIES + WRITES, ids=[call for call, _ in QUERIES + WRITES])
each_ending = pytest.mark.parametrize("ending", ENDINGS)


def end_has_arrived(sock: Sock) -> bool:
    """Whether this host has received the end of the link, noticed or not."""
    link = sock.raw._link
    if link is None:
        return True
    poller = sock.flavour.imported("select").poll()
    try:
        poller.register(link.sock, select.POLLRDHUP)
    except (OSError, ValueError):  # closed already
        return True
    return bool(poller.poll(0))


def end_link(sock: Sock, instrument: Instrument, ending: str) -> None:
    """Let the instrument end the link, and wait until this host knows."""
    getattr(instrument, ending)()
    eventually(lambda: end_has_arrived(sock))


def refused(names: Names, instrument: Instrument) -> str:
    """Return a name whose address refuses connections; its look-ups are the attempts."""
    names["dmm.test"] = [(instrument.host, instrument.port)]
    instrument.refuse()
    return "dmm.test"


def send_prompt(sock: Sock, instrument: Instrument) -> None:
    """Have the instrument begin a new link with an unfinished message, which arrives before a request goes out."""
    earlier = sock.raw.connection_counter
    instrument.ledger.wait(lambda ledger: len(ledger.links) > earlier)
    instrument.send(b"dmm> ")
    eventually(lambda: sock.raw.in_waiting())


def make_broken(sock: Sock, code: int) -> None:
    """Let the next bytes that are sent meet an error of the operating system."""

    def send(_: bytes) -> int:
        raise OSError(code, os.strerror(code))

    sock.raw._link.send = send


def silence_is_fatal(sock: Sock) -> None:
    """Have the kernel give up a link whose bytes are not acknowledged, as keep-alive does in the end, but sooner."""
    sock.raw._link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)


# -- R1


@clause("R1")
@each_ending
@each_request
def test_an_end_received_while_idle_costs_no_request(
    flavour: Flavour, instrument: Instrument, call: str, args: tuple[Any, ...], ending: str
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)

    def script() -> Script:
        yield sock.raw.write_readline(b"*IDN?\n")
        end_link(sock, instrument, ending)  # the event loop has no chance to run meanwhile
        return (yield getattr(sock.raw, call)(*args))

    assert flavour.start(script).result() in (b"a,1\n", [b"a,1\n"], None)
    instrument.ledger.wait(lambda ledger: ledger.count(b"ECHO? a") == 1)
    assert instrument.ledger.links == [1, 2]
    assert sock.connection_counter == 2


@clause("R1")
@each_ending
def test_an_end_is_noticed_however_often_and_whoever_saw_it_first(
    flavour: Flavour, instrument: Instrument, ending: str
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    for number in range(1, 21):
        assert sock.write_readline(ECHO) == b"a,%d\n" % number
        end_link(sock, instrument, ending)
    assert instrument.ledger.links == list(range(1, 21))


@clause("R1")
@each_ending
def test_connected_and_at_eof_tell_the_truth_at_once(flavour: Flavour, instrument: Instrument, ending: str) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    seen: list[object] = []

    def look() -> None:
        seen.append((sock.raw.connected(), sock.raw.is_open, sock.raw.at_eof()))

    def script() -> Script:
        yield sock.raw.write_readline(b"*IDN?\n")
        look()
        end_link(sock, instrument, ending)
        look()

    flavour.start(script).result()
    assert seen == [(True, True, False), (False, False, True)]


@clause("R1")
def test_a_link_that_has_ended_is_at_eof_when_all_it_brought_is_read(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    sock.open()
    instrument.send(b"last words\n")
    end_link(sock, instrument, "drop")
    assert not sock.connected()
    assert not sock.at_eof()
    assert sock.in_waiting() == 11
    assert sock.readline() == b"last words\n"
    assert sock.at_eof()
    assert not sock.connected()


@clause("R1")
@pytest.mark.parametrize("left", [b"whole\n", b"unfinished"])
def test_an_end_behind_unread_bytes_is_noticed_too(flavour: Flavour, instrument: Instrument, left: bytes) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    sock.open()

    def script() -> Script:
        instrument.send(left)
        end_link(sock, instrument, "drop")
        return (yield sock.raw.write_readline(ECHO))

    assert flavour.start(script).result() == b"a,1\n"
    assert instrument.ledger.links == [1, 2]


# -- R2


@clause("R2")
@pytest.mark.parametrize("fault", [Cut(0), Cut(2), Reset(0), Reset(2)], ids=str)
def test_after_any_end_in_a_reply_the_next_call_recovers(
    flavour: Flavour, instrument: Instrument, fault: Fault
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    instrument.inject(fault)
    with pytest.raises(LinkError):
        sock.write_readline(b"*IDN?\n")
    assert sock.write_readline(ECHO) == b"a,1\n"
    assert instrument.ledger.links == [1, 2]


@clause("R2", "R3")
@pytest.mark.parametrize(
    "code", [errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN]
)
@each_request
def test_whatever_error_a_send_meets_is_a_lost_link_and_the_next_call_recovers(
    flavour: Flavour, instrument: Instrument, code: int, call: str, args: tuple[Any, ...]
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    sock.open()
    flavour.call(make_broken, sock, code)
    with pytest.raises(ConnectionLostError) as caught:
        getattr(sock, call)(*args)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == code
    assert not caught.value.request_sent
    assert sock.write_readline(ECHO) == b"a,1\n"
    assert instrument.ledger.links == [1, 2]


@clause("R2", "R3")
def test_a_reset_under_a_blocked_write_is_survived(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port, timeout=GENEROUS)
    writing = sock.start("write", bytes(2**25))
    link = peer.accept()
    assert received(link, 10) == bytes(10)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    link.close()
    error = writing.error()
    assert isinstance(error, ConnectionLostError)
    assert error.request_sent
    asking = sock.start("write_readline", ECHO)
    link = peer.accept()
    assert received(link, len(ECHO)) == ECHO
    link.sendall(b"a,1\n")
    assert asking.result() == b"a,1\n"


@clause("R2", "R7", "T3")
@pytest.mark.parametrize("waiting_in", ["write_readline", "write"])
def test_an_unplugged_device_that_the_kernel_gives_up_is_a_lost_link(
    flavour: Flavour, peer: Peer, waiting_in: str
) -> None:
    sock = flavour.tcp(peer.host, peer.port, timeout=GENEROUS)
    sock.open()
    unplug(peer.accept())
    flavour.call(silence_is_fatal, sock)
    with pytest.raises(ConnectionLostError) as caught:
        getattr(sock, waiting_in)(ECHO if waiting_in == "write_readline" else bytes(2**25))
    assert not isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ETIMEDOUT
    assert caught.value.request_sent
    asking = sock.start("write_readline", ECHO)
    link = peer.accept()
    assert received(link, len(ECHO)) == ECHO
    link.sendall(b"a,1\n")
    assert asking.result() == b"a,1\n"


@clause("R2", "T3")
def test_a_plain_read_that_the_kernel_gives_up_is_a_lost_link(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port, timeout=GENEROUS)
    sock.open()
    unplug(peer.accept())
    flavour.call(silence_is_fatal, sock)
    sock.write(b"into the void\n")
    error = sock.start("readline").error()
    assert isinstance(error, ConnectionLostError)
    assert not isinstance(error, TimeoutError)
    assert isinstance(error.__cause__, OSError)
    assert error.__cause__.errno == errno.ETIMEDOUT
    asking = sock.start("write_readline", ECHO)
    link = peer.accept()
    assert received(link, len(ECHO)) == ECHO
    link.sendall(b"a,1\n")
    assert asking.result() == b"a,1\n"


# -- R3


@clause("R3")
@pytest.mark.parametrize("fault", [Cut(0), Cut(2), Reset(0), Reset(2)], ids=str)
@each_query
def test_a_request_is_never_sent_again_by_itself(
    flavour: Flavour, instrument: Instrument, call: str, args: tuple[Any, ...], fault: Fault
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS, retry=Retry(5, delay=0.01))
    instrument.inject(fault)
    if call == "write_read":
        args = (ECHO,)  # up to the end of the link
    if call == "write_read" and fault == Cut(2):
        assert getattr(sock, call)(*args) == b"a,"
    else:
        with pytest.raises(ConnectionEOFError if isinstance(fault, Cut) else ConnectionLostError) as caught:
            getattr(sock, call)(*args)
        assert caught.value.request_sent
    assert sock.write_readline(b"*IDN?\n")
    assert instrument.ledger.commands == [b"ECHO? a", b"*IDN?"]


@clause("R3")
@each_query
def test_a_request_without_reply_is_not_sent_again(
    flavour: Flavour, instrument: Instrument, call: str, args: tuple[Any, ...]
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, retry=Retry(None, delay=0.01))
    sock.open()
    instrument.inject(Silence())
    with pytest.raises(ConnectionTimeoutError) as caught:
        getattr(sock, call)(*args, timeout=0.1)
    assert caught.value.request_sent
    assert sock.write_readline(b"*IDN?\n")
    assert instrument.ledger.commands == [b"ECHO? a", b"*IDN?"]


@clause("R3")
def test_a_request_under_way_when_the_object_is_closed_was_sent(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    asking = sock.start("write_readline", b"DELAY? 60\n")
    instrument.ledger.wait(lambda ledger: ledger.count(b"DELAY? 60"))
    sock.close()
    error = asking.error()
    assert isinstance(error, ConnectionClosedError)
    assert error.request_sent


@clause("R3")
def test_a_write_that_was_stuck_and_let_go_a_little_was_sent(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    link = peer.accept()
    connection = sock.raw._link.sock

    def fill() -> None:
        try:
            while True:
                connection.send(bytes(2**16))
        except BlockingIOError:
            pass

    def is_full() -> bool:
        fill()
        return not flavour.imported("select").select([], [connection], [], 0.1)[1]

    eventually(is_full)
    writing = sock.start("write", bytes(2**25), timeout=0.4)
    assert received(link, 2**20)
    assert isinstance(writing.error(), ConnectionTimeoutError)
    assert writing.error().request_sent  # type: ignore[attr-defined]


@clause("R3")
def test_an_error_before_the_first_byte_says_that_nothing_was_sent(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    errors: list[Any] = []

    def fails(**options: Any) -> None:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            sock.write_readline(ECHO, **options)
        errors.append(caught.value)

    instrument.refuse()
    fails()
    instrument.hang()
    fails(timeout=0.05)
    instrument.accept()
    fails(timeout=0)
    asking = sock.start("write_readline", b"DELAY? 60\n")
    instrument.ledger.wait(lambda ledger: ledger.count(b"DELAY? 60"))
    fails(timeout=0.05)
    waiting = sock.start("write_readline", ECHO)
    eventually(lambda: callers(sock) == 2)
    sock.close()
    errors.append(waiting.error())
    assert isinstance(asking.error(), ConnectionClosedError)
    sock.raw.auto_reconnect = False
    fails()
    sock.open()
    end_link(sock, instrument, "drop")
    fails()
    assert [error.request_sent for error in errors] == 7 * [False]
    assert instrument.ledger.count(b"ECHO? a") == 0


# -- R4


@clause("R4")
@pytest.mark.parametrize("fault", [Cut(0), Reset(0), Cut(2), Reset(2)], ids=str)
@each_query
def test_an_idempotent_request_is_sent_again_on_a_new_link(
    flavour: Flavour, instrument: Instrument, call: str, args: tuple[Any, ...], fault: Fault
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    instrument.inject(fault)
    if call == "write_read":
        args = (ECHO, 1) if not getattr(fault, "after", 0) else (ECHO, 100)
    reply = getattr(sock, call)(*args, idempotent=True)
    if call == "write_read":
        assert reply in (b"a", b"a,")
        return
    assert reply in (b"a,2\n", [b"a,2\n"])
    assert instrument.ledger.commands == [b"ECHO? a", b"ECHO? a"]
    assert instrument.ledger.links == [1, 2]


@clause("R4")
@pytest.mark.parametrize(("call", "args"), WRITES)
def test_an_idempotent_write_is_sent_again_on_a_new_link(
    flavour: Flavour, instrument: Instrument, call: str, args: tuple[Any, ...]
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    sock.open()
    flavour.call(make_broken, sock, errno.ECONNRESET)
    getattr(sock, call)(*args, idempotent=True)
    instrument.ledger.wait(lambda ledger: ledger.count(b"ECHO? a") == 1)
    assert instrument.ledger.links == [1, 2]


@clause("R4")
@pytest.mark.parametrize("attempts", [1, 3])
def test_an_idempotent_request_is_sent_again_as_often_as_the_policy_allows(
    flavour: Flavour, instrument: Instrument, attempts: int
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS, retry=Retry(attempts, delay=0.01))
    instrument.inject(Cut(2), count=50)
    with pytest.raises(ConnectionEOFError) as caught:
        sock.write_readline(ECHO, idempotent=True)
    assert caught.value.request_sent
    assert instrument.ledger.count(b"ECHO? a") == attempts + 1


@clause("R4", "E2")
def test_an_idempotent_request_goes_on_after_a_link_that_was_dead_before_it_was_sent(
    flavour: Flavour, instrument: Instrument
) -> None:
    greeted: list[None] = []

    def greet() -> None:
        greeted.append(None)
        if len(greeted) == 1:
            instrument.ledger.wait(lambda ledger: ledger.links)
            instrument.drop()
            eventually(lambda: not sock.raw.connected())

    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=flavour.callback(greet))
    assert sock.write_readline(ECHO, idempotent=True) == b"a,1\n"
    assert instrument.ledger.links == [1, 2]


@clause("R4", "T1")
def test_an_idempotent_request_is_sent_again_until_its_deadline(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, retry=Retry(None, delay=0.01, factor=1))
    instrument.inject(Cut(2), count=100_000)
    with pytest.raises(ConnectionTimeoutError) as caught:
        sock.write_readline(ECHO, idempotent=True, timeout=1)
    assert caught.value.request_sent
    assert f"write_readline on {instrument.host}:{instrument.port}" in str(caught.value)
    assert instrument.ledger.count(b"ECHO? a") > 1


@clause("R4", "R5")
def test_an_idempotent_request_waits_for_a_device_that_refuses_for_a_while(
    flavour: Flavour, instrument: Instrument, names: Names
) -> None:
    sock = flavour.tcp("dmm.test", instrument.port, timeout=GENEROUS, retry=Retry(None, delay=0.01))
    names["dmm.test"] = [(instrument.host, instrument.port)]
    sock.open()
    instrument.refuse()
    instrument.inject(Cut(0))
    asking = sock.start("write_readline", ECHO, idempotent=True)
    eventually(lambda: len(names.lookups) > 3)
    instrument.accept()
    assert asking.result() == b"a,2\n"


@clause("R3", "R4")
def test_an_idempotent_request_whose_reconnect_fails_says_that_it_was_sent(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    sock.open()
    instrument.refuse()
    instrument.inject(Cut(0))
    with pytest.raises(ConnectionRefusedError) as caught:
        sock.write_readline(ECHO, idempotent=True)
    assert instrument.ledger.count(b"ECHO? a") == 1
    assert caught.value.request_sent  # type: ignore[attr-defined]


@clause("R4")
def test_an_idempotent_request_closed_while_it_waits_to_be_sent_again_names_itself(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, retry=Retry(None, delay=1000, max_delay=1000))
    instrument.inject(Cut(0), count=2)
    asking = sock.start("write_readline", ECHO, idempotent=True)
    instrument.ledger.wait(lambda ledger: ledger.count(b"ECHO? a") == 2 and not ledger.open_links)
    eventually(lambda: sock.raw._bells)  # it backs off
    sock.close()
    error = asking.error()
    assert isinstance(error, ConnectionClosedError)
    assert error.request_sent
    assert f"write_readline on {instrument.host}:{instrument.port}" in str(error)


@clause("R4")
def test_time_that_is_up_is_no_reason_to_send_an_idempotent_request_again(
    flavour: Flavour, instrument: Instrument
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, retry=Retry(5, delay=0.01))
    sock.open()
    instrument.inject(Silence())
    with pytest.raises(ConnectionTimeoutError):
        sock.write_readline(ECHO, idempotent=True, timeout=0.1)
    assert sock.write_readline(b"*IDN?\n")
    assert instrument.ledger.commands == [b"ECHO? a", b"*IDN?"]


# -- R5


@clause("R5")
@pytest.mark.parametrize(("retry", "attempts"), [({}, 1), ({"retry": Retry(4, delay=0.001)}, 4)], ids=["default", "4"])
def test_so_many_attempts_are_made_to_connect_and_no_more(
    flavour: Flavour, instrument: Instrument, names: Names, retry: dict[str, Retry], attempts: int
) -> None:
    sock = flavour.tcp(refused(names, instrument), instrument.port, timeout=GENEROUS, **retry)
    for calls, ask in enumerate((sock.open, lambda: sock.write_readline(ECHO)), start=1):
        with pytest.raises(ConnectionRefusedError):
            ask()
        assert len(names.lookups) == calls * attempts
    instrument.accept()
    assert sock.write_readline(ECHO) == b"a,1\n"


@clause("R5", "Q4")
@pytest.mark.parametrize(("retry", "attempts"), [({}, 1), ({"retry": Retry(4, delay=0.001)}, 4)], ids=["default", "4"])
def test_a_new_link_with_an_unfinished_message_is_a_failed_attempt(
    flavour: Flavour, instrument: Instrument, retry: dict[str, Retry], attempts: int
) -> None:
    prompt = flavour.callback(lambda: send_prompt(sock, instrument))
    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=prompt, timeout=GENEROUS, **retry)
    with pytest.raises(ConnectionLostError, match=r"unfinished message.*on_connection_made") as caught:
        sock.write_readline(ECHO)
    assert not caught.value.request_sent
    assert instrument.ledger.links == list(range(1, attempts + 1))
    assert instrument.ledger.commands == []


@clause("R5", "Q4")
def test_after_a_new_link_with_an_unfinished_message_there_is_a_pause(flavour: Flavour, instrument: Instrument) -> None:
    prompt = flavour.callback(lambda: send_prompt(sock, instrument))
    retry = Retry(None, delay=1000, max_delay=1000)
    sock = flavour.tcp(instrument.host, instrument.port, on_connection_made=prompt, retry=retry)
    with pytest.raises(ConnectionTimeoutError) as caught:
        sock.write_readline(ECHO, timeout=3)  # most of it is the pause, however late the device is
    assert isinstance(caught.value.__cause__, ConnectionLostError)
    assert not caught.value.request_sent
    assert instrument.ledger.links == [1]


@clause("R5", "Q4")
def test_attempts_count_together_whether_they_fail_before_or_after_there_is_a_link(
    flavour: Flavour, instrument: Instrument, names: Names
) -> None:
    def prompt_once() -> None:
        send_prompt(sock, instrument)
        instrument.refuse()

    sock = flavour.tcp(
        refused(names, instrument),
        instrument.port,
        on_connection_made=flavour.callback(prompt_once),
        retry=Retry(4, delay=0.2, factor=1),
        timeout=GENEROUS,
    )
    asking = sock.start("write_readline", ECHO)
    eventually(lambda: names.lookups)
    instrument.accept()
    assert isinstance(asking.error(), ConnectionRefusedError)
    assert len(names.lookups) == 4
    assert instrument.ledger.links == [1]


@clause("R5")
def test_without_a_number_attempts_go_on_until_the_deadline(
    flavour: Flavour, instrument: Instrument, names: Names
) -> None:
    retry = Retry(None, delay=0.01, factor=1)
    sock = flavour.tcp(refused(names, instrument), instrument.port, timeout=0.3, retry=retry)
    with pytest.raises(ConnectionTimeoutError) as caught:
        sock.write_readline(ECHO)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert len(names.lookups) > 2


@clause("R5", "R7")
def test_attempts_go_on_until_a_device_that_refused_accepts(
    flavour: Flavour, instrument: Instrument, names: Names
) -> None:
    sock = flavour.tcp(refused(names, instrument), instrument.port, retry=Retry(None, delay=0.01, factor=1))
    asking = sock.start("write_readline", ECHO)
    eventually(lambda: len(names.lookups) > 4)
    assert not asking.done()
    instrument.accept()
    assert asking.result() == b"a,1\n"
    assert sock.connection_counter == 1


@clause("R5")
def test_pauses_between_attempts_grow_exponentially_up_to_the_longest(
    flavour: Flavour, instrument: Instrument, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock = flavour.tcp(refused(names, instrument), instrument.port, retry=Retry(5, 0.03, 2, 0.1, 0.5))
    monkeypatch.setattr(sock.raw, "_random", lambda: 0.0)
    with pytest.raises(ConnectionRefusedError):
        sock.open()
    gaps = [after - before for before, after in pairwise(names.times)]
    assert len(gaps) == 4
    assert all(gap > pause - 0.005 for gap, pause in zip(gaps, [0.03, 0.06, 0.1, 0.1], strict=True)), gaps


@clause("R5")
def test_the_longest_pause_holds(flavour: Flavour, instrument: Instrument) -> None:
    retry = Retry(6, delay=0.01, factor=1e100, max_delay=0.02)
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS, retry=retry)
    instrument.refuse()
    with pytest.raises(ConnectionRefusedError):
        sock.open()


@clause("R5")
def test_a_pause_is_a_function_of_the_failures_and_of_chance(flavour: Flavour) -> None:
    assert flavour.module.TCP("127.0.0.1", 1).retry.attempts == 1
    retry = Retry(attempts=3, delay=1, factor=3, max_delay=10, jitter=0.2)
    assert [retry.pause(failures, 0) for failures in (1, 2, 3, 4, 100_000)] == [1, 3, 9, 10, 10]
    assert retry.pause(1, 0.5) == pytest.approx(0.9)
    assert retry.pause(4, 1) == pytest.approx(8)
    assert [retry.allows(failures) for failures in (1, 2, 3, 4)] == [True, True, False, False]
    assert Retry(None).allows(10**9)
    assert eval(repr(retry)).__dict__ == retry.__dict__


@clause("R5")
@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"delay": -1},
        {"delay": float("nan")},
        {"factor": 0.5},
        {"max_delay": -1},
        {"jitter": 2},
        {"jitter": -0.1},
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused(flavour: Flavour, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        flavour.module.TCP("127.0.0.1", 1, retry=Retry(**wrong))


def option_of_a_wrong_value(names: Names) -> dict[str, Any]:
    names["dmm.test"] = [("127.0.0.1", 1)]
    return {"host": "dmm.test", "keep_alive": {"idle": 100_000}}


def impossible_name(_: Names) -> dict[str, Any]:
    return {"host": f"{'x' * 64}.test"}


@clause("R5")
@pytest.mark.parametrize("mistake", [option_of_a_wrong_value, impossible_name])
def test_what_cannot_heal_is_not_retried(
    flavour: Flavour, names: Names, mistake: Callable[[Names], dict[str, Any]]
) -> None:
    sock = flavour.tcp(port=1, retry=Retry(None, delay=0.01), timeout=GENEROUS, **mistake(names))
    with pytest.raises(ValueError, match=r"."):
        sock.write(ECHO)
    assert len(names.lookups) <= 1


@clause("R5", "T2")
def test_a_resolver_that_answers_late_disturbs_no_later_attempt(
    flavour: Flavour, instrument: Instrument, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    names["dmm.test"] = [(instrument.host, instrument.port)]

    def answer(host: str, *args: Any, **options: Any) -> Any:
        answers = names.getaddrinfo(host, *args, **options)
        if host == "dmm.test":  # the first lookup answers during the second, which goes on until there is a third
            awaited = 2 if len(names.lookups) == 1 else 3
            eventually(lambda: len(names.lookups) >= awaited)
        return answers

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    retry = Retry(attempts=None, delay=0.001, factor=1)
    sock = flavour.tcp("dmm.test", instrument.port, connection_timeout=0.2, retry=retry)
    assert sock.write_readline(ECHO, timeout=GENEROUS) == b"a,1\n"


# -- R6


@clause("R6")
@pytest.mark.parametrize("fault", [Cut(0), Cut(2), Reset(0)], ids=str)
def test_without_auto_reconnect_a_lost_request_is_the_last_until_open(
    flavour: Flavour, instrument: Instrument, fault: Fault
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, auto_reconnect=False, timeout=GENEROUS)
    sock.open()
    instrument.inject(fault)
    with pytest.raises(LinkError) as caught:
        sock.write_readline(ECHO, idempotent=True)
    assert caught.value.request_sent
    every_call_fails(sock)
    assert instrument.ledger.links == [1]
    assert instrument.ledger.commands == [b"ECHO? a"]
    sock.open()
    assert sock.write_readline(ECHO) == b"a,2\n"


@clause("R6")
@each_ending
@each_request
def test_without_auto_reconnect_a_loss_while_idle_raises_at_the_next_call(
    flavour: Flavour, instrument: Instrument, call: str, args: tuple[Any, ...], ending: str
) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, auto_reconnect=False, timeout=GENEROUS)
    sock.open()
    end_link(sock, instrument, ending)
    with pytest.raises(ConnectionEOFError if ending == "drop" else ConnectionLostError) as caught:
        getattr(sock, call)(*args)
    assert not caught.value.request_sent
    every_call_fails(sock)
    assert instrument.ledger.links == [1]
    assert instrument.ledger.commands == []
    sock.open()
    assert sock.write_readline(ECHO) == b"a,1\n"


@clause("R6")
def test_without_auto_reconnect_a_loss_raises_for_those_who_wait_too(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, auto_reconnect=False, timeout=GENEROUS)
    sock.open()
    asking = [sock.start("write_readline", b"DELAY? 60\n")]
    instrument.ledger.wait(lambda ledger: ledger.count(b"DELAY? 60"))
    asking += [sock.start("write_readline", ECHO) for _ in range(3)]
    eventually(lambda: callers(sock) == 4)
    instrument.drop()
    assert all(isinstance(running.error(), LinkError) for running in asking)
    assert instrument.ledger.commands == [b"DELAY? 60"]
    assert instrument.ledger.links == [1]
    sock.open()
    assert sock.write_readline(ECHO) == b"a,1\n"


def every_call_fails(sock: Sock) -> None:
    """Check that no call connects."""
    reads: list[tuple[str, tuple[Any, ...]]] = [
        ("read", (1,)),
        ("readline", ()),
        ("readlines", (1,)),
        ("readexactly", (1,)),
        ("readuntil", (b"\n",)),
        ("readbuffer", ()),
    ]
    for call, args in QUERIES + WRITES + reads:
        with pytest.raises(ConnectionClosedError, match=r"open\(\)") as caught:
            getattr(sock, call)(*args)
        assert not caught.value.request_sent
    assert not sock.connected()


# -- R7


@clause("R7")
def test_a_device_that_restarts_on_its_port_is_survived(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    for number in range(1, 6):
        assert sock.write_readline(ECHO) == b"a,%d\n" % number
        instrument.restart()
    assert sock.connection_counter == 5


@clause("R7")
def test_a_device_that_restarts_under_a_call_is_survived(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    asking = sock.start("write_readline", b"DELAY? 60\n")
    instrument.ledger.wait(lambda ledger: ledger.count(b"DELAY? 60"))
    instrument.restart()
    assert isinstance(asking.error(), ConnectionEOFError)
    assert sock.write_readline(ECHO) == b"a,1\n"
    assert instrument.ledger.count(b"DELAY? 60") == 1


@clause("R7")
def test_a_device_that_is_off_for_a_while_is_survived(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    sock.open()
    instrument.stop()
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            sock.write_readline(ECHO)
    instrument.start()
    assert sock.write_readline(ECHO) == b"a,1\n"


@clause("R7")
def test_a_device_that_is_unplugged_is_survived(flavour: Flavour, peer: Peer) -> None:
    sock = flavour.tcp(peer.host, peer.port)
    sock.open()
    unplug(peer.accept())
    with pytest.raises(ConnectionTimeoutError) as caught:
        sock.write_readline(ECHO, timeout=0.1)
    assert caught.value.request_sent
    asking = sock.start("write_readline", ECHO)
    link = peer.accept()
    assert received(link, len(ECHO)) == ECHO
    link.sendall(b"a,1\n")
    assert asking.result() == b"a,1\n"


@clause("R7")
def test_a_device_that_hangs_in_every_way_is_survived(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=0.1)
    sock.open()
    instrument.pause_reading()
    instrument.hang()
    for _ in range(2):  # first the link is silent, then no other is to be had
        with pytest.raises(ConnectionTimeoutError):
            sock.write_readline(ECHO)
    instrument.heal()
    assert sock.write_readline(b"*IDN?\n", timeout=GENEROUS)


@clause("R7")
@each_ending
def test_a_device_that_drops_idle_clients_is_survived(flavour: Flavour, instrument: Instrument, ending: str) -> None:
    sock = flavour.tcp(instrument.host, instrument.port, timeout=GENEROUS)
    for number in range(1, 6):
        assert sock.write_readline(ECHO) == b"a,%d\n" % number
        getattr(instrument, ending)()  # whether or not it has arrived when the next request goes out
        eventually(lambda: end_has_arrived(sock))
    instrument.inject(Delay(0.05))
    assert sock.write_readline(ECHO) == b"a,6\n"
