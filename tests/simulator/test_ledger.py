"""The ledger, without an instrument."""

from __future__ import annotations

import asyncio
import threading

import pytest

from simulator import Entry, Ledger


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.record("opened", 1)
    ledger.record("command", 1, command=b"*IDN?")
    ledger.record("opened", 2)
    ledger.record("command", 2, command=b"READ?")
    ledger.record("command", 1, command=b"*IDN?")
    ledger.record("fault", detail="drop()")
    ledger.record("closed", 1, detail="drop()")
    return ledger


def test_entries_are_in_order_with_increasing_times(ledger: Ledger) -> None:
    assert [entry.index for entry in ledger.entries] == list(range(7))
    times = [entry.time for entry in ledger.entries]
    assert times == sorted(times)
    assert ledger.entries[3] == Entry(3, times[3], "command", 2, b"READ?")


def test_views_show_commands_and_links(ledger: Ledger) -> None:
    assert ledger.commands == [b"*IDN?", b"READ?", b"*IDN?"]
    assert ledger.count(b"*IDN?") == 2
    assert ledger.count(b"*IDN") == 0
    assert ledger.links == [1, 2]
    assert ledger.open_links == [2]


def test_clear_forgets_all_but_the_open_links(ledger: Ledger) -> None:
    ledger.clear()
    assert ledger.entries == []
    assert ledger.links == []
    assert ledger.open_links == [2]
    assert str(ledger) == "(empty)"


def test_it_prints_one_entry_a_line(ledger: Ledger) -> None:
    lines = str(ledger).splitlines()
    assert len(lines) == 7
    assert lines[1].endswith("1  link 1    command  b'*IDN?'")
    assert lines[5].endswith("5            fault    drop()")


def test_waiting_for_what_is_true_returns_at_once(ledger: Ledger) -> None:
    ledger.wait(lambda ledger: ledger.count(b"READ?") == 1, timeout=0)
    asyncio.run(ledger.wait_async(lambda ledger: ledger.count(b"READ?") == 1))


def test_waiting_ends_when_it_becomes_true(ledger: Ledger) -> None:
    looks: list[int] = []
    looked = threading.Event()

    def three(ledger: Ledger) -> bool:
        looks.append(ledger.count(b"*IDN?"))
        looked.set()
        return looks[-1] == 3

    def write() -> None:
        looked.wait(10)
        ledger.record("command", 2, command=b"*IDN?")

    writer = threading.Thread(target=write)
    writer.start()
    ledger.wait(three)
    writer.join(10)
    assert looks == [2, 3]


def test_waiting_async_leaves_the_loop_running(ledger: Ledger) -> None:
    async def main() -> None:
        waiting = asyncio.create_task(ledger.wait_async(lambda ledger: ledger.count(b"*IDN?") == 4))
        for _ in range(2):
            await asyncio.sleep(0)
            await asyncio.to_thread(ledger.record, "command", 2, command=b"*IDN?")
        await waiting

    asyncio.run(main())


def test_a_wait_that_fails_prints_the_ledger(ledger: Ledger) -> None:
    with pytest.raises(TimeoutError, match=r"within 0.01 s; the ledger:\n(.*\n){6}.*closed   drop"):
        ledger.wait(lambda ledger: ledger.count(b"READ?") == 2, timeout=0.01)


def test_an_async_wait_that_fails_prints_the_ledger(ledger: Ledger) -> None:
    with pytest.raises(TimeoutError, match=r"within 0.01 s; the ledger:\n(.*\n){6}.*closed   drop"):
        asyncio.run(ledger.wait_async(lambda ledger: ledger.count(b"READ?") == 2, timeout=0.01))
