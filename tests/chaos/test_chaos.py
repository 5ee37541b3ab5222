"""Storms, each from a seed: nobody gets a wrong reply, nothing is done twice, nothing hangs, nothing leaks.

``SOCKIO_CHAOS_ROUNDS=n`` weathers n storms in each flavour; ``SOCKIO_CHAOS_SEED=n`` begins with that one. A storm that
fails prints its seed. The choices replay from it; how threads and packets interleave is up to the machine.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from simulator import Instrument
from sockio.common import ConnectionEOFError, ConnectionLostError
from tests.chaos.journal import Journal
from tests.chaos.storm import Asker, Listener, Parrot, User, Weather, greet, some_object
from tests.clauses import clause
from tests.flavours import BOUND, Flavour, Sock

ROUNDS = int(os.environ.get("SOCKIO_CHAOS_ROUNDS", "3"))
FIRST_SEED = int(os.environ.get("SOCKIO_CHAOS_SEED", random.randrange(10**6)))
STEPS = 25
pytestmark = pytest.mark.usefixtures("untraced")


def works(sock: Sock) -> bool:
    """Whether an object has its reply."""
    if not sock.auto_reconnect and not sock.connected():
        sock.open()
    reply: bytes = sock.write_readline(b"ECHO? it works\n", timeout=BOUND)
    return reply == b"it works\n"


@clause("A1", "A2", "A4", "A6", "R2", "R3", "R7", "T1", "F2", "X1")
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_storm_leaves_no_reply_astray_no_command_repeated_and_no_object_broken(
    flavour: Flavour,
    number: int,
    instrument_factory: Callable[..., Instrument],
    caplog: pytest.LogCaptureFixture,
) -> None:
    seed = FIRST_SEED + number
    print(f"replay with SOCKIO_CHAOS_SEED={seed} SOCKIO_CHAOS_ROUNDS=1")
    caplog.set_level(logging.ERROR)
    chance = random.Random(seed)
    parrot, crier = instrument_factory(Parrot(), name="parrot"), instrument_factory(Parrot(), name="crier")
    journals = {parrot: Journal(), crier: Journal()}
    held_before = held_once_warm(flavour, crier)
    tasks_before = flavour.tasks()

    users: list[User] = []
    socks: list[Sock] = []
    notes_heard: list[list[bytes]] = []
    losses: dict[Sock, list[BaseException | None]] = {}
    for instrument, journal in journals.items():
        for _ in range(chance.randrange(1, 3)):
            lost: list[BaseException | None] = []
            sock = some_object(flavour, instrument, chance, on_connection_lost=lost.append)
            socks.append(sock)
            losses[sock] = lost
            heard: list[bytes] = []
            notes_heard.append(heard)
            if instrument is parrot and chance.random() < 0.5:
                sock.raw.on_connection_made = flavour.callback(partial(greet, sock, journal))
            for _ in range(chance.randrange(1, 4)):
                name = f"{seed} user {len(users)}"
                if instrument is parrot:
                    users.append(Asker(flavour, sock, journal, name))
                else:
                    users.append(Listener(flavour, sock, journal, name, heard))
    weather(users, Weather(parrot, crier, f"{seed} weather"))

    for instrument in (parrot, crier):
        instrument.heal()
    for sock in socks:
        try:
            assert works(sock)
        except (ConnectionLostError, ConnectionEOFError):  # the last fault struck a reply that was under way
            assert works(sock)
        sock.close()
    for instrument, journal in journals.items():
        instrument.ledger.wait(lambda ledger: not ledger.open_links, BOUND)
        journal.check(instrument.ledger)
    for heard in notes_heard:
        assert len(heard) == len(set(heard)), "a note was read twice"
    for record in caplog.records:  # what a callback raised
        raised = record.exc_info and record.exc_info[1]
        assert isinstance(raised, OSError), record.getMessage()
        assert record.name.startswith("sockio"), record.getMessage()
    wait_until(lambda: all(len(losses[sock]) >= sock.connection_counter for sock in socks), "losses untold")
    assert flavour.tasks() == tasks_before, "a task was left over"
    wait_until(lambda: held() <= held_before, "threads or descriptors left over")
    links = sum(len(instrument.ledger.links) for instrument in journals)
    assert sum(map(len, losses.values())) <= links, "a loss was told twice"


@clause("A5", "A8", "E3", "S2")
def test_a_stream_misses_nothing_of_its_link_though_others_have_moved_on_to_the_next(
    flavour: Flavour, instrument_factory: Callable[..., Instrument]
) -> None:
    instrument = instrument_factory(Parrot())
    lines = [b"%d\n" % number for number in range(60)]
    sock = flavour.tcp(instrument.host, instrument.port, timeout=BOUND)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(15):
            stream = sock.line_stream()
            sock.open()
            instrument.send(lines[0])
            assert next(stream) == lines[0]
            reading = pool.submit(list, stream)
            instrument.send(b"".join(lines[1:-1]))
            sock.write(b"SAY something\n")
            instrument.send(lines[-1])
            instrument.drop()
            while not reading.done():
                sock.write(b"SAY something\n")
            assert reading.result() == lines[1:]
            sock.close()


def weather(users: list[User], faults: Weather) -> None:
    """Let the users live while the faults rage."""
    over = threading.Event()
    with ThreadPoolExecutor(len(users) + 1) as pool:
        raging = pool.submit(faults.rage, over)
        try:
            for living in [pool.submit(user.live, STEPS) for user in users]:
                living.result()
        finally:
            over.set()
        raging.result()


def held_once_warm(flavour: Flavour, instrument: Instrument) -> int:
    """Return what is held after a first link: event loops and sockio's watcher keep what they open then."""
    told = threading.Event()
    sock = flavour.tcp(instrument.host, instrument.port, on_connection_lost=lambda _: told.set())
    sock.open()
    sock.close()
    assert told.wait(BOUND)  # the task that tells has ended, too, before anybody counts the tasks
    instrument.ledger.wait(lambda ledger: ledger.links and not ledger.open_links, BOUND)
    return held()


def held() -> int:
    """Return how many threads and descriptors this process holds."""
    gc.collect()
    return threading.active_count() + (len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0)


def wait_until(predicate: Callable[[], bool], otherwise: str) -> None:
    """Wait for what no event tells."""
    give_up = time.monotonic() + BOUND
    while not predicate():
        assert time.monotonic() < give_up, otherwise
        time.sleep(0.01)
