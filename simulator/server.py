"""An instrument on the network: a device, a port, its links and their faults, usable from any thread.

Every public method hands its work to the shared loop (`background`), and returns when it is done; all state belongs to
that loop, so that nothing here needs a lock but for operations that wait in the middle.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING

from simulator import background
from simulator.faults import EndOfLink, Fault, Orders, check_bytes, check_count
from simulator.ledger import Ledger
from simulator.link import Link, readable
from simulator.listener import Listener
from simulator.multimeter import Multimeter

if TYPE_CHECKING:
    from typing_extensions import Self

    from simulator.device import Device


class Instrument:
    """A simulated instrument that listens on a real socket.

    Use it in a `with` or `async with` block (of any async library), or call `start()` and `stop()`. Every method may be
    called from any thread, and from async code: each blocks for a moment only.

    Args:
        device: what executes the messages (see `simulator.device.Device`); a new `Multimeter` by default.
        host: name or address to listen on; loopback unless told otherwise.
        port: 0 takes any free port, and keeps it over `restart()`.
        name: for messages and reports.
        eol: the terminator of messages, both ways.

    Raises:
        TypeError: no device, host or terminator.
        ValueError: bad port or terminator.
        OSError: the host cannot be resolved.

    Attributes:
        host: as it was given.
        name: as it was given.
        ledger: what happened.
    """

    def __init__(
        self,
        device: Device | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        name: str = "dmm",
        eol: bytes = b"\n",
    ) -> None:
        if device is not None and not callable(getattr(device, "execute", None)):
            raise TypeError(f"device must have a method execute(message), not {device!r}")
        if not isinstance(host, str):
            raise TypeError(f"host must be a name or an address, not {host!r}")
        check_bytes("eol", eol)
        if not eol:
            raise ValueError("eol is empty: give the terminator of messages, like b'\\n'")
        if port not in range(65536):
            raise ValueError(f"port must be a number from 0 (any free one) to 65535, not {port!r}")
        self.host = host
        self.name = name
        self.ledger: Ledger = Ledger()
        self._device = Multimeter() if device is None else device
        self._eol = eol
        self._listener = Listener(host, port)
        self._links: set[Link] = set()
        self._last_link = 0
        self._orders = Orders()
        self._turned_away: list[EndOfLink] = []
        self._reading = asyncio.Event()
        self._reading.set()
        self._started = False
        self._accepting: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    @property
    def port(self) -> int:
        """The port; 0 until the first start if any free one was asked for."""
        return self._listener.port

    @property
    def address(self) -> str:
        """Like `127.0.0.1:5025`, or `[::1]:5025`."""
        return f"{self._bracketed}:{self.port}"

    @property
    def url(self) -> str:
        """Like `tcp://127.0.0.1:5025`."""
        return f"tcp://{self.address}"

    @property
    def resource(self) -> str:
        """The VISA resource name, like `TCPIP::127.0.0.1::5025::SOCKET`."""
        return f"TCPIP::{self._bracketed}::{self.port}::SOCKET"

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def __repr__(self) -> str:
        return f"<Instrument {self.name} on {self.address}, {'started' if self._started else 'stopped'}>"

    # -- its life

    def start(self) -> Self:
        """Listen. No effect if it does already.

        Returns:
            The instrument itself.

        Raises:
            OSError: the port is in use, or not ours to use.
        """
        background.run(self._start())
        return self

    def stop(self) -> None:
        """Close the port and every link (FIN). The state of the device and the ledger stay. No effect if stopped."""
        background.run(self._stop())

    def restart(self) -> None:
        """Stop if started, then start on the same port, with the same device: its state stays."""
        background.run(self._restart())

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(self, *_: object) -> None:
        self.stop()

    # -- faults on replies

    def inject(self, fault: Fault, count: int = 1, command: bytes | None = None) -> None:
        """Order a fault for the next `count` replies, after the faults that wait already.

        Args:
            fault: one of `simulator.faults`.
            count: number of replies.
            command: only replies to messages that begin with these bytes.

        Raises:
            TypeError: not a fault, or `command` not bytes.
            ValueError: `count` is not a positive number.
        """
        if not isinstance(fault, Fault):
            raise TypeError(f"fault must be one of simulator.faults, like Cut(after=3), not {fault!r}")
        check_count("count", count, 1)
        prefix = b"" if command is None else command
        check_bytes("command", prefix)

        async def order() -> None:
            self._orders.add(fault, count, prefix)
            self._note(f"{fault} ordered for {count} replies to {prefix!r}...")

        background.run(order())

    # -- faults at once

    def drop(self) -> None:
        """End every link now (FIN)."""
        background.run(self._strike(EndOfLink("drop()")))

    def reset(self) -> None:
        """Reset every link now (RST)."""
        background.run(self._strike(EndOfLink("reset()", reset=True)))

    def send(self, data: bytes) -> None:
        """Send unsolicited bytes on every link, after the reply that is being sent there, if any.

        Raises:
            TypeError: `data` is not bytes.
            TimeoutError: a link takes no bytes.
        """
        check_bytes("data", data)
        background.run(self._send(data))

    def refuse(self) -> None:
        """Refuse new connections (ECONNREFUSED) until `accept()`. The port stays ours, and the links stay.

        Raises:
            RuntimeError: not started (so do `hang` and `accept`).
        """
        background.run(self._set_port("refuse()", self._listener.refuse))

    def hang(self) -> None:
        """Leave new connections hanging until `accept()`; links stay.

        On Linux a client that connects gets no answer, so that it times out; one that still waits at `accept()` gets in
        when its system tries again, a second or more later. On other systems it may be connected and find silence.
        """
        background.run(self._set_port("hang()", self._listener.hang))

    def accept(self) -> None:
        """Take connections again after `refuse()` or `hang()`."""
        background.run(self._set_port("accept()", self._listener.listen))

    def pause_reading(self) -> None:
        """Never read from now on, on any link, old or new: the clients' windows fill up. Until `resume_reading()`."""
        background.run(self._set_reading(False))

    def resume_reading(self) -> None:
        """Read again, and execute what has come meanwhile."""
        background.run(self._set_reading(True))

    def drop_on_accept(self, count: int = 1) -> None:
        """Accept the next `count` connections and end them at once (FIN)."""
        background.run(self._turn_away(count, EndOfLink("drop_on_accept()")))

    def reset_on_accept(self, count: int = 1) -> None:
        """Accept the next `count` connections and reset them at once (RST)."""
        background.run(self._turn_away(count, EndOfLink("reset_on_accept()", reset=True)))

    def heal(self) -> None:
        """Forget every ordered fault, and undo `refuse`, `hang`, `pause_reading` and `..._on_accept`."""
        background.run(self._heal())

    # -- from here on everything runs on the shared loop

    async def _start(self) -> None:
        async with self._changing:
            if not self._started:
                self._listener.listen()
                self._accepting = asyncio.get_running_loop().create_task(self._accept_links())
                self._started = True
                self.ledger.record("server", detail=f"started on {self.address}")

    async def _stop(self) -> None:
        async with self._changing:
            if self._started:
                await self._stop_accepting()
                self._listener.close()
                self._started = False
                self.ledger.record("server", detail="stopped")
                await self._end_links(EndOfLink("stop()"))

    async def _restart(self) -> None:
        await self._stop()
        await self._start()

    async def _set_port(self, fault: str, change: Callable[[], None]) -> None:
        async with self._changing:
            if not self._started:
                raise RuntimeError(f"{self.name}.{fault}: the instrument is stopped, start() it first")
            await self._stop_accepting()
            change()
            if change == self._listener.listen:
                self._accepting = asyncio.get_running_loop().create_task(self._accept_links())
            self._note(fault)

    async def _accept_links(self) -> None:
        listening = self._listener.socket
        assert listening is not None
        while True:
            await readable(listening)
            try:
                self._accept_waiting()
            except OSError as error:
                self._note(f"accept: {error}")
                await asyncio.sleep(0.1)

    def _accept_waiting(self) -> None:
        """Make links of the connections that the kernel has already made."""
        while (connection := self._listener.accept()) is not None:
            self._last_link += 1
            link = Link(connection, self._last_link, self._device, self._eol, self.ledger, self._orders, self._reading)
            self._links.add(link)
            link.task.add_done_callback(partial(self._forget, link))
            if self._turned_away:
                link.end(self._turned_away.pop(0))

    def _forget(self, link: Link, _: asyncio.Task[None]) -> None:
        self._links.discard(link)

    async def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accept_waiting()
            self._accepting.cancel()
            await asyncio.wait({self._accepting})
            self._accepting = None

    def _all_links(self) -> list[Link]:
        if self._accepting is not None:
            self._accept_waiting()
        return list(self._links)

    async def _strike(self, ending: EndOfLink) -> None:
        self._note(ending.cause)
        await self._end_links(ending)

    async def _end_links(self, ending: EndOfLink) -> None:
        links = self._all_links()
        for link in links:
            link.end(ending)
        await asyncio.gather(*(link.task for link in links), return_exceptions=True)

    async def _send(self, data: bytes) -> None:
        async def once() -> AsyncIterator[bytes]:
            yield data

        self._note(f"send({data!r})")
        sending = [link.send_later(0, once()) for link in self._all_links() if not link.ending]
        await asyncio.gather(*sending, return_exceptions=True)  # each ends with its link at the latest

    async def _set_reading(self, reading: bool) -> None:
        if reading:
            self._reading.set()
        else:
            self._reading.clear()
        self._note("resume_reading()" if reading else "pause_reading()")

    async def _turn_away(self, count: int, ending: EndOfLink) -> None:
        check_count("count", count, 1)
        self._all_links()  # those that are connected already stay
        self._turned_away += count * [ending]
        self._note(f"{ending.cause}, {count} times")

    async def _heal(self) -> None:
        self._orders.clear()
        self._turned_away.clear()
        self._reading.set()
        if self._started and self._accepting is None:
            await self._set_port("accept()", self._listener.listen)
        self._note("heal()")

    def _note(self, fault: str) -> None:
        self.ledger.record("fault", detail=fault)
