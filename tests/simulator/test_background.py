"""The shared loop."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time

import pytest

from simulator import Instrument, background

from .conftest import Client


def test_all_instruments_share_one_daemon_thread() -> None:
    with Instrument(), Instrument():
        threads = [thread for thread in threading.enumerate() if thread.name == "simulator"]
        assert len(threads) == 1
        assert threads[0].daemon


def test_a_device_that_calls_its_own_instrument_gets_an_error_instead_of_a_deadlock() -> None:
    class Suicidal:
        def execute(self, message: bytes) -> bytes:
            try:
                instrument.drop()
            except RuntimeError as error:
                return str(error).encode()
            return b"dropped"

    with Instrument(Suicidal()) as instrument:
        client = Client(instrument)
        assert b"a device cannot call the methods of its instrument" in client.ask(b"drop")
        client.close()


def test_a_device_that_blocks_is_named_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, leave = threading.Event(), threading.Event()

    class Blocking:
        def execute(self, message: bytes) -> None:
            entered.set()
            leave.wait(10)

    with Instrument(Blocking()) as instrument:
        client = Client(instrument)
        client.send(b"block\n")
        assert entered.wait(10)
        with monkeypatch.context() as patch:
            patch.setattr(background, "PATIENCE", 0.01)
            with pytest.raises(TimeoutError, match=r"blocks in execute\(\)"):
                instrument.drop()
        leave.set()
        client.close()


def test_stopping_the_loop_cancels_what_runs_on_it() -> None:
    loop = background._Background()
    cancelled = threading.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    started = time.monotonic()
    asyncio.run_coroutine_threadsafe(endless(), loop.loop)
    loop.stop()
    assert cancelled.is_set()
    assert not loop.thread.is_alive()
    assert loop.loop.is_closed()
    assert time.monotonic() - started < 10


def test_an_interpreter_that_forgets_to_stop_an_instrument_ends_all_the_same() -> None:
    program = """
import socket
from simulator import Instrument
instrument = Instrument().start()
with socket.create_connection((instrument.host, instrument.port)) as client:
    client.sendall(b"*IDN?\\nDELAY? 60\\n")
    print(client.recv(100).count(b","))
"""
    command = [sys.executable, "-W", "ignore::ResourceWarning", "-c", program]  # it did leave its socket open
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_serves_instruments_of_its_own_and_leaves_those_of_its_parent() -> None:
    program = """
import os, socket
from simulator import Instrument

def identify(instrument):
    with socket.create_connection((instrument.host, instrument.port), timeout=10) as client:
        client.sendall(b"*IDN?\\n")
        return client.recv(100).count(b",")

with Instrument() as parent:
    assert identify(parent) == 3
    child = os.fork()
    if not child:
        with Instrument() as own:
            assert identify(own) == 3
        os._exit(identify(parent))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    parent.restart()
    assert identify(parent) == 3
"""
    command = [sys.executable, "-W", "error", "-W", "ignore:.*fork:DeprecationWarning", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
