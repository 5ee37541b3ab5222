"""What only the curio flavour does: its own timeouts and cancellation, its tasks, and the ends of its runs."""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from simulator import Delay, Instrument, Silence
from tests.clauses import clause, flavours
from tests.flavours import BOUND, eventually
from tests.logs import logged

if sys.version_info >= (3, 12):
    pytest.skip("curio works on Python 3.10 and 3.11 only", allow_module_level=True)

import curio
from curio.kernel import Kernel
from curio.task import ContextTask

import sockio
from sockio.common import ConnectionClosedError, ConnectionTimeoutError
from sockio.curio import TCP, _Attendant
from tests.contract.test_lifetime import (
    INTERRUPTED,
    WHERE,
    check_exit,
    check_interrupt,
    interrupted_everywhere,
    torn,
)
from tests.programs import ended, only_resource_warnings, outcome, python

pytestmark = flavours("curio")


def tcp(instrument: Instrument, **options: Any) -> TCP:
    return TCP(instrument.host, instrument.port, **options)


async def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < give_up
        await curio.sleep(0.001)


# Curio's own timeouts and cancellation


@clause("A2")
@pytest.mark.parametrize("timeout", [None, BOUND], ids=["no timeout of the call", "a longer one"])
def test_curios_timeout_of_a_request_is_curios_and_drops_the_link(instrument: Instrument, timeout: Any) -> None:
    async def main() -> None:
        async with tcp(instrument) as sock:
            with pytest.raises(curio.TaskTimeout):
                await curio.timeout_after(0.05, sock.write_readline(b"ECHO? late\n", timeout=timeout))
            assert await sock.write_readline(b"ECHO? next\n") == b"next,2\n"
            async with curio.ignore_after(0.05) as patience:
                await sock.write_readline(b"ECHO? late\n", timeout=timeout)
            assert patience.expired
            assert await sock.write_readline(b"ECHO? next\n") == b"next,4\n"

    instrument.inject(Delay(BOUND), count=2, command=b"ECHO? late")
    curio.run(main)
    assert instrument.ledger.links == [1, 2, 3]


@clause("A7")
def test_curios_timeout_of_a_plain_read_keeps_the_link_and_every_byte(instrument: Instrument) -> None:
    async def main() -> None:
        async with tcp(instrument) as sock:
            instrument.ledger.wait(lambda ledger: ledger.open_links)
            instrument.send(b"half ")
            await until(sock.in_waiting)
            assert await curio.ignore_after(0.05, sock.readline()) is None
            instrument.send(b"and half\n")
            assert await sock.readline() == b"half and half\n"

    curio.run(main)
    assert instrument.ledger.links == [1]


@clause("T1")
def test_a_call_that_times_out_inside_a_longer_timeout_of_curio_leaves_that_one_as_it_was(
    instrument: Instrument,
) -> None:
    async def main() -> None:
        async def ask() -> None:
            for _ in range(3):
                with pytest.raises(ConnectionTimeoutError):
                    await sock.write_readline(b"*IDN?\n", timeout=0.05)
            await sock.write_readline(b"*IDN?\n", timeout=BOUND)

        async with tcp(instrument) as sock:
            with pytest.raises(curio.TaskTimeout):
                await curio.timeout_after(0.5, ask)

    instrument.inject(Silence(), count=4)
    curio.run(main)


@clause("T1")
def test_a_call_times_out_where_curio_allows_no_cancellation(instrument: Instrument) -> None:
    async def main() -> None:
        sock = tcp(instrument)
        async with curio.disable_cancellation():
            with pytest.raises(ConnectionTimeoutError):
                await sock.write_readline(b"*IDN?\n", timeout=0.05)
            assert await curio.check_cancellation() is None
        await sock.close()

    instrument.inject(Silence())
    curio.run(main)


@clause("A3")
def test_a_task_cancelled_while_it_waits_for_its_turn_disturbs_nobody(instrument: Instrument) -> None:
    async def main() -> None:
        async with tcp(instrument) as sock:
            running = await curio.spawn(sock.write_readline, b"DELAY? 0.2\n")
            waiting = await curio.spawn(sock.write_readline, b"ECHO? never\n")
            late = await curio.spawn(curio.ignore_after, 0.05, sock.write_readline, b"ECHO? never\n")
            await until(lambda: len(sock.queues.reads) == 3)
            await waiting.cancel()
            assert await late.join() is None
            assert await running.join() == b"0.2\n"
            assert await sock.write_readline(b"ECHO? next\n") == b"next,1\n"

    curio.run(main)
    assert instrument.ledger.links == [1]


@clause("T1")
def test_a_later_call_may_have_the_earlier_deadline(instrument: Instrument) -> None:
    async def main() -> None:
        slow, quick = tcp(instrument), tcp(instrument)
        began = time.monotonic()
        waiting = await curio.spawn(slow.write_readline, b"DELAY? 3600\n")
        patient = await curio.spawn(curio.sleep, 0.01)  # so that the first one waits
        await patient.join()
        with pytest.raises(ConnectionTimeoutError):
            await quick.write_readline(b"DELAY? 3600\n", timeout=0.05)
        await waiting.cancel()
        assert time.monotonic() - began < BOUND
        await slow.close()
        await quick.close()

    curio.run(main)


# Scopes


@clause("A6")
@pytest.mark.parametrize("kernel", [Kernel, lambda: Kernel(taskcls=ContextTask)], ids=["tasks", "context tasks"])
def test_tasks_started_in_a_transaction_are_inside_it_and_nobody_else_is(
    instrument: Instrument, kernel: Callable[[], Any]
) -> None:
    replies: list[bytes] = []

    async def echo(sock: TCP, text: bytes) -> None:
        replies.append(await sock.write_readline(b"ECHO? %s\n" % text, timeout=BOUND))

    async def grandparent(sock: TCP, started: Any) -> None:
        await curio.sleep(0.01)
        await started.put(await curio.spawn(echo, sock, b"grandchild"))

    async def main() -> None:
        async with tcp(instrument) as sock:
            started = curio.Queue()
            async with sock.transaction():
                await other.put(sock)
                outside = await done.get()  # it queues while the transaction is on
                async with curio.TaskGroup() as group:
                    await group.spawn(echo, sock, b"child")
                await (await curio.spawn(grandparent, sock, started)).join()
                await (await started.get()).join()
                assert outside == "queued"
                assert len(replies) == 2
            await done.get()

    async def stranger() -> None:
        sock = await other.get()
        call = await curio.spawn(echo, sock, b"stranger")
        await until(lambda: len(sock.queues.reads) == 2)
        await done.put("queued")
        await call.join()
        await done.put("over")

    async def both() -> None:
        task = await curio.spawn(stranger)
        await main()
        await task.join()

    other, done = curio.Queue(), curio.Queue()
    with kernel() as running:
        running.run(both)
    assert [reply.partition(b",")[0] for reply in replies] == [b"child", b"grandchild", b"stranger"]


@clause("A6", "E1")
def test_an_event_callback_is_outside_of_the_transaction_in_which_the_link_was_lost(instrument: Instrument) -> None:
    async def main() -> None:
        async def reconnect(_: Any) -> None:
            again.append(await sock.write_readline(b"ECHO? again\n"))

        sock = tcp(instrument, on_connection_lost=reconnect)
        with pytest.raises(ConnectionTimeoutError):
            async with sock.transaction():
                await sock.write_readline(b"*IDN?\n", timeout=0.05)
        await until(lambda: again)
        sock.on_connection_lost = None
        await sock.close()

    again: list[bytes] = []
    instrument.inject(Silence())
    curio.run(main)
    assert again == [b"again,1\n"]


async def run_out_of_time() -> None:
    await curio.timeout_after(0.01, curio.sleep, BOUND)


async def end_cancelled() -> None:
    raise_cancelled()


def raise_cancelled() -> None:
    raise curio.TaskCancelled


@clause("E2", "E4")
@pytest.mark.parametrize("greet", [run_out_of_time, end_cancelled, raise_cancelled])
def test_a_cancellation_that_on_connection_made_does_not_catch_is_logged(
    instrument: Instrument, caplog: pytest.LogCaptureFixture, greet: Callable[[], Any]
) -> None:
    async def main() -> None:
        async with tcp(instrument, on_connection_made=greet) as sock:
            assert await sock.write_readline(b"ECHO? a\n") == b"a,1\n"

    curio.run(main)
    (record,) = logged(caplog)
    assert "on_connection_made failed" in record.message


@clause("E4")
def test_a_timeout_of_curio_that_an_event_callback_does_not_catch_is_logged(
    instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    async def lament(_: Any) -> None:
        await curio.timeout_after(0.01, curio.sleep, BOUND)

    async def main() -> None:
        async with tcp(instrument, on_connection_lost=lament):
            pass
        await until(lambda: logged(caplog))

    with caplog.at_level(logging.ERROR):
        curio.run(main)
    (record,) = logged(caplog)
    assert "callback failed" in record.message


# The ends of runs


@clause("C1")
def test_a_call_outside_of_any_kernel_says_so(instrument: Instrument) -> None:
    sock = tcp(instrument)
    assert not sock.connected()
    call = sock.write_readline(b"*IDN?\n")
    with pytest.raises(RuntimeError, match=r"curio\.TCP .* closed>: no running curio kernel: use it in curio\.run"):
        call.send(None)


@clause("F4")
@pytest.mark.parametrize("lasting", [True, False], ids=["a kernel for all runs", "a kernel each"])
def test_an_object_used_in_a_second_run_reconnects_if_the_kernel_is_another(
    instrument: Instrument, lasting: bool
) -> None:
    lost: list[Any] = []
    sock = tcp(instrument, on_connection_lost=lost.append)

    async def use() -> None:
        assert (await sock.write_readline(b"ECHO? a\n")).startswith(b"a,")
        async with curio.TaskGroup() as group:
            for _ in range(3):
                await group.spawn(sock.write_readline, b"ECHO? b\n")

    async def finish() -> None:
        await use()
        await sock.close()
        await until(lambda: len(lost) == (1 if lasting else 3))

    if lasting:
        with Kernel() as kernel:
            for work in (use, use, finish):
                kernel.run(work)
    else:
        for work in (use, use, finish):
            curio.run(work)
    assert instrument.ledger.links == ([1] if lasting else [1, 2, 3])
    instrument.ledger.wait(lambda ledger: not ledger.open_links)
    gc.collect()  # nothing that was left behind complains


@clause("F4", "F6")
def test_calls_that_an_ended_run_left_behind_hold_up_nobody(
    instrument: Instrument, caplog: pytest.LogCaptureFixture
) -> None:
    sock = tcp(instrument)

    async def begin() -> None:
        await sock.open()
        await curio.spawn(sock.readline)
        await curio.spawn(sock.write_readline, b"*IDN?\n")
        await until(lambda: len(sock.queues.reads) == 2)

    async def again() -> None:
        assert await sock.write_readline(b"ECHO? a\n", timeout=BOUND) == b"a,1\n"
        await sock.close()

    curio.run(begin)
    curio.run(again)
    gc.collect()
    assert not logged(caplog)


@clause("F6", "T1")
@pytest.mark.parametrize("used", ["before", "never"])
@pytest.mark.parametrize("shielded", [True, False], ids=["shielded", "open"])
def test_a_task_that_is_cancelled_at_the_end_of_a_run_may_still_use_an_object_and_its_timeouts(
    instrument: Instrument, used: str, shielded: bool
) -> None:
    ends: list[Any] = []

    async def careful(sock: TCP) -> None:
        try:
            await curio.sleep(BOUND)
        finally:
            assert await sock.write_readline(b"ECHO? off\n") == b"off,1\n"
            try:
                await sock.write_readline(b"DELAY? 3600\n", timeout=0.05)
            except ConnectionTimeoutError as exc:
                ends.append(exc)
            await sock.close()

    async def stubborn(sock: TCP) -> None:
        async with curio.disable_cancellation():
            try:
                await sock.write_readline(b"DELAY? 3600\n", timeout=0.3)
            except ConnectionTimeoutError as exc:
                ends.append(exc)
            await sock.close()

    async def main() -> None:
        await curio.spawn(careful, tcp(instrument, on_connection_lost=lambda _: None))
        if shielded:
            await curio.spawn(stubborn, tcp(instrument))
        if used == "before":
            other = tcp(instrument)
            await other.open()
            await other.close()
        await curio.sleep(0.05)

    curio.run(main)
    assert len(ends) == 1 + shielded


@clause("F6")
def test_a_name_is_resolved_for_a_task_that_is_cancelled_at_the_end_of_a_run(instrument: Instrument) -> None:
    replies: list[bytes] = []

    async def careful() -> None:
        try:
            await curio.sleep(BOUND)
        finally:
            async with TCP("localhost", instrument.port) as sock:
                replies.append(await sock.write_readline(b"ECHO? off\n"))

    async def main() -> None:
        await curio.spawn(careful)
        async with tcp(instrument):
            pass

    curio.run(main)
    assert replies == [b"off,1\n"]


@clause("F6", "E4")
def test_an_event_callback_under_way_is_cancelled_at_the_end_of_the_run(instrument: Instrument) -> None:
    steps: list[str] = []

    async def lament(_: Any) -> None:
        steps.append("began")
        try:
            await curio.sleep(BOUND)
        finally:
            steps.append("cancelled")

    async def last(sock: TCP) -> None:
        try:
            await curio.sleep(BOUND)
        finally:
            await sock.close()  # nobody is told any more
            await curio.sleep(0.01)

    async def main() -> None:
        async with tcp(instrument, on_connection_lost=lament):
            pass
        sock = tcp(instrument, on_connection_lost=lament)
        await sock.open()
        await until(lambda: steps)
        await curio.spawn(last, sock)

    curio.run(main)
    assert steps[0] == "began"
    assert steps.count("began") == steps.count("cancelled")


@clause("F2")
def test_every_kernel_gives_back_what_its_attendant_holds(instrument: Instrument) -> None:
    async def main() -> Any:
        async with tcp(instrument):
            return _Attendant.here()

    attendant = curio.run(main)
    attendant.call(print)  # does no harm
    assert attendant._rope.fileno() == attendant._clapper.fileno() == -1


@clause("F1", "F5")
@torn
def test_what_an_abandoned_kernel_left_in_the_middle_of_a_call_is_dropped_in_silence(
    instrument: Instrument, instrument_factory: Callable[..., Instrument], caplog: pytest.LogCaptureFixture
) -> None:
    hanging = instrument_factory()
    hanging.hang()

    async def forever() -> None:
        await curio.sleep(BOUND)

    async def begin() -> None:
        greeted = tcp(instrument, on_connection_made=forever)
        await curio.spawn(greeted.open)
        sock = tcp(instrument)
        await curio.spawn(transact, sock)
        await until(lambda: instrument.ledger.commands and len(instrument.ledger.links) == 2)
        await curio.spawn(tcp(hanging).open)
        await curio.sleep(0.05)

    async def transact(sock: TCP) -> None:
        async with sock.transaction():
            await sock.write_readline(b"DELAY? 3600\n")

    kernel = Kernel()
    kernel.run(begin)
    kernel._shutdown_funcs = None
    del kernel
    gc.collect()
    assert not logged(caplog)


@clause("C1")
def test_a_call_goes_on_when_a_connection_that_takes_its_time_is_there(instrument: Instrument) -> None:
    async def main() -> None:
        async with tcp(instrument) as sock:
            assert await sock.write_readline(b"ECHO? a\n", timeout=BOUND) == b"a,1\n"

    instrument.hang()
    accepting = threading.Timer(0.1, instrument.accept)
    accepting.start()
    curio.run(main)
    accepting.join(BOUND)


@clause("C2")
def test_close_wakes_a_task_of_another_object_nowhere(instrument: Instrument) -> None:
    async def main() -> None:
        sock, other = tcp(instrument), tcp(instrument)
        mine = await curio.spawn(sock.write_readline, b"DELAY? 3600\n")
        its = await curio.spawn(other.write_readline, b"DELAY? 0.2\n")
        await until(lambda: len(instrument.ledger.commands) == 2)
        await sock.close()
        with pytest.raises(curio.TaskError) as caught:
            await mine.join()
        assert isinstance(caught.value.__cause__, ConnectionClosedError)
        assert await its.join() == b"0.2\n"
        await other.close()

    curio.run(main)


@clause("F1")
@pytest.mark.parametrize("ended", [True, False], ids=["run over", "kernel left open"])
def test_nothing_but_the_warning_is_printed_when_the_interpreter_exits_with_an_open_object(
    instrument: Instrument, ended: bool
) -> None:
    program = """
        import sys
        from curio import Kernel
        from sockio.curio import TCP
        async def main():
            global sock
            sock = TCP("127.0.0.1", int(sys.argv[1]), on_connection_lost=print, on_eof_received=print)
            sock.cycle = sock
            await sock.write_readline(b"*IDN?\\n")
        kernel = Kernel()
        kernel.run(main)
        if sys.argv[2] == "True":
            kernel.run(shutdown=True)
        else:
            kernel._shutdown_funcs = None  # it would complain
    """
    only_resource_warnings(python(program, instrument.port, ended))


@clause("F5")
@pytest.mark.parametrize("where", WHERE)
def test_a_run_ends_at_once_with_keyboard_interrupt(instrument: Instrument, where: str) -> None:
    program = (
        INTERRUPTED
        + """
    import curio
    from sockio.curio import TCP
    greeting = [where == "callback"]
    async def greet():
        if greeting.pop():
            await sock.write_readline(b"DELAY? 3600\\n")
    sock = TCP(host, port, retry=retry, on_connection_made=greet if greeting[0] else None)
    async def main():
        if where == "turn":
            first = await curio.spawn(sock.write_readline, b"DELAY? 3600\\n")
            await curio.sleep(0.01)
        os.write(1, b"ready\\n")
        await sock.write_readline(b"DELAY? 3600\\n")
    async def again():
        print(await sock.write_readline(b"ECHO? again\\n", timeout=60))
        await sock.close()
    try:
        curio.run(main)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    sys.stdin.readline()
    sock.host = "127.0.0.1"
    greeting.append(False)
    curio.run(again)
    """
    )
    check_interrupt(instrument, program, where)


@clause("F5", "A2")
@torn
def test_an_interrupt_at_any_point_of_a_run_leaves_the_object_usable(
    instrument: Instrument, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("curio.kernel"), "disabled", True)  # pytest would keep what it tells
    sock = tcp(instrument)

    async def twice() -> None:
        await sock.write_readline(b"ECHO? x\n", timeout=BOUND)
        await sock.write_readline(b"ECHO? x\n")

    async def check(text: bytes) -> bytes:
        return await sock.write_readline(b"ECHO? %s\n" % text, timeout=BOUND)

    def run() -> None:
        kernel = Kernel()
        try:
            kernel.run(twice)
        finally:
            kernel._shutdown_funcs = None  # it is left as it is: a kernel that Ctrl-C has torn may not end in order

    count = 0
    for count, place in enumerate(interrupted_everywhere(run)):
        assert curio.run(check, b"%d" % count).startswith(b"%d," % count), place
    curio.run(sock.close)
    assert count > 100


@clause("F6")
@pytest.mark.parametrize("where", ["reading", "turn", "connecting", "resolving", "backing off"])
def test_a_pending_call_holds_up_neither_the_end_of_the_run_nor_the_exit(instrument: Instrument, where: str) -> None:
    program = (
        INTERRUPTED
        + """
    import curio
    from sockio.curio import TCP
    async def main():
        sock = TCP(host, port, retry=retry)
        pending = [await curio.spawn(sock.write_readline, b"DELAY? 3600\\n") for _ in range(2)]
        await curio.sleep(0.01)
        os.write(1, b"ready\\n")
        await curio.run_in_thread(sys.stdin.readline)
        return pending
    assert all(task.cancelled for task in curio.run(main))
    """
    )
    check_exit(instrument, program, where)


@clause("F6", "T1")
def test_a_slow_resolver_does_not_hold_up_the_exit_after_a_timeout(instrument: Instrument) -> None:
    program = (
        INTERRUPTED
        + """
    import curio
    from sockio.curio import TCP
    from sockio.common import ConnectionTimeoutError
    async def main():
        await TCP(host, port, timeout=0.1).write_readline(b"*IDN?\\n")
    try:
        curio.run(main)
    except ConnectionTimeoutError:
        print("timed out")
    """
    )
    assert outcome(python(program, "resolving", instrument.port)) == "ready\ntimed out\n"


def test_socket_for_url_makes_the_object_of_curio() -> None:
    make: Callable[..., Any] = sockio.socket_for_url
    sock = make("tcp://host:5025", b"\r\n", concurrency="curio")
    assert type(sock) is TCP
    assert (sock.host, sock.port, sock.eol) == ("host", 5025, b"\r\n")


def test_without_curio_the_import_says_what_to_do() -> None:
    program = "import sys; sys.modules['curio'] = None; import sockio.curio"
    _, complaints = ended(python(program, traced=True))
    assert "ImportError: sockio.curio needs curio" in complaints
    assert 'pip install "sockio[curio]"' in complaints
    assert "3.10 and 3.11" in complaints


@clause("A1")
def test_each_of_two_kernels_in_two_threads_has_an_attendant(instrument: Instrument) -> None:
    async def main() -> None:
        async with tcp(instrument, timeout=BOUND) as sock:
            for number in range(20):
                reply = await sock.write_readline(b"ECHO? %d\n" % number)
                assert reply.startswith(b"%d," % number)
            with pytest.raises(ConnectionTimeoutError):
                await sock.write_readline(b"DELAY? 3600\n", timeout=0.05)
        done.append(_Attendant.here())

    done: list[Any] = []
    threads = [threading.Thread(target=curio.run, args=(main,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND)
    eventually(lambda: len(done) == 2)
    assert done[0] is not done[1]
