"""A simulated multimeter on a real socket, the plug pulled in the middle, and one object that carries on.

Run it with ``./run demo``, or ``python examples/demo.py`` where sockio is installed. It takes about five seconds.
"""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import sys
import time

import sockio
import sockio.aio
import sockio.sio
from simulator import Instrument

LINES = 300_000
REQUEST = f"DATA? {LINES}"
ROUNDS = 1_000
READINGS = 6
PULLED, BACK = 2, 4  # the readings between which the instrument is off


def show(what: str, result: str = "") -> None:
    print(f"  {what:<22}{result}".rstrip(), flush=True)


def text(reply: bytes) -> str:
    return reply.decode().rstrip()


def no_answer(error: OSError) -> str:
    return f"no answer: {type(error).__name__}"


def pull_the_plug(instrument: Instrument, reading: int) -> None:
    """Switch the instrument off before one reading, and on again before a later one."""
    if reading == PULLED:
        instrument.stop()
        show("(the plug is pulled)")
    elif reading == BACK:
        instrument.restart()
        show("(and put back)")


class LineCount:
    """Counts the lines of a stream, on a terminal before the eyes of the reader."""

    def __init__(self) -> None:
        self.lines = 0
        self._live = sys.stdout.isatty()
        self._start = time.perf_counter()

    def add(self) -> bool:
        """Count one more; return whether that was the last."""
        self.lines += 1
        if self._live and self.lines % 1_000 == 0:
            print(f"\r  {REQUEST:<22}{self.lines:,} lines", end="", flush=True)
        return self.lines == LINES

    def show(self) -> None:
        seconds = time.perf_counter() - self._start
        print("\r" * self._live, end="")
        show(REQUEST, f"{self.lines:,} lines in {seconds:.2f} s")


def round_trip(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e6:.0f} us (median of {len(seconds):,} times *IDN?)"


async def with_asyncio(instrument: Instrument) -> str:
    async with sockio.aio.TCP(instrument.host, instrument.port, timeout=5) as meter:
        show("*IDN?", text(await meter.write_readline(b"*IDN?\n")))
        for reading in range(READINGS):
            pull_the_plug(instrument, reading)
            try:
                show("READ?", text(await meter.write_readline(b"READ?\n")))
            except OSError as error:
                show("READ?", no_answer(error))
            await asyncio.sleep(0.1)
        show("", f"the same object, now on its link number {meter.connection_counter}")

        await meter.write(f"{REQUEST}\n".encode())
        count = LineCount()
        async for _ in meter:
            if count.add():
                break
        count.show()

        took: list[float] = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            await meter.write_readline(b"*IDN?\n")
            took.append(time.perf_counter() - start)
        return round_trip(took)


def with_blocking_calls(instrument: Instrument) -> str:
    with sockio.sio.TCP(instrument.host, instrument.port, timeout=5) as meter:
        show("*IDN?", text(meter.write_readline(b"*IDN?\n")))
        for reading in range(READINGS):
            pull_the_plug(instrument, reading)
            try:
                show("READ?", text(meter.write_readline(b"READ?\n")))
            except OSError as error:
                show("READ?", no_answer(error))
            time.sleep(0.1)
        show("", f"the same object, now on its link number {meter.connection_counter}")

        meter.write(f"{REQUEST}\n".encode())
        count = LineCount()
        for _ in meter:
            if count.add():
                break
        count.show()

        took: list[float] = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            meter.write_readline(b"*IDN?\n")
            took.append(time.perf_counter() - start)
        return round_trip(took)


def with_a_bare_socket(instrument: Instrument) -> str:
    """The same question without any library: what is left is the network and the instrument."""
    took: list[float] = []
    with socket.create_connection((instrument.host, instrument.port)) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(ROUNDS):
            start = time.perf_counter()
            link.sendall(b"*IDN?\n")
            while not link.recv(4096).endswith(b"\n"):
                pass
            took.append(time.perf_counter() - start)
    return round_trip(took)


def main() -> None:
    with Instrument() as instrument:
        print(f"sockio {sockio.__version__} and a simulated multimeter on {instrument.url}")
        print("\nasyncio: sockio.aio")
        aio = asyncio.run(with_asyncio(instrument))
        print("\nblocking: sockio.sio")
        sio = with_blocking_calls(instrument)
        print("\nround trip, most of it the simulated instrument's own time")
        show("asyncio", aio)
        show("blocking", sio)
        show("a bare socket", with_a_bare_socket(instrument))


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # nobody reads on, as in ``./run demo | head``; the interpreter must not try again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
