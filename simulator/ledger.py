"""The ledger: the far end's own record of what happened, so that a test need not believe the client.

One list holds everything (commands, the life of the links, the faults) in the order in which it happened; the rest are
views of it. It is written by the thread of the server and read from any other.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Event = Literal["command", "opened", "closed", "fault", "server"]


@dataclass(frozen=True)
class Entry:
    """One thing that happened.

    Attributes:
        index: position in the ledger, from 0.
        time: `time.monotonic()` when it happened.
        event: `command` (executed), `opened` or `closed` (a link), `fault` (ordered or applied) or `server`
            (started, stopped).
        link: number of the link, from 1, or `None` when it concerns none.
        command: the message that was executed, without its terminator; empty for the other events.
        detail: why a link was closed, which fault it was.
    """

    index: int
    time: float
    event: Event
    link: int | None = None
    command: bytes = b""
    detail: str = ""

    def __str__(self) -> str:
        link = "" if self.link is None else f"link {self.link}"
        what = repr(self.command) if self.event == "command" else self.detail
        return f"{self.index:5}  {link:9} {self.event:8} {what}".rstrip()


class Ledger:
    """A thread-safe record of every command executed, every link and every fault.

    It grows with what it records: `clear()` it in a run that is long enough to matter.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: list[Entry] = []
        self._open: list[int] = []
        self._listeners: list[Callable[[], None]] = []

    def record(self, event: Event, link: int | None = None, *, command: bytes = b"", detail: str = "") -> None:
        """Append an entry and wake whoever waits for it."""
        with self._changed:
            self._entries.append(Entry(len(self._entries), time.monotonic(), event, link, command, detail))
            if link is not None and event == "opened":
                self._open.append(link)
            elif link is not None and event == "closed":
                self._open.remove(link)
            self._changed.notify_all()
            for listener in self._listeners:
                listener()

    @property
    def entries(self) -> list[Entry]:
        """Everything that happened, in order."""
        with self._changed:
            return list(self._entries)

    @property
    def commands(self) -> list[bytes]:
        """The messages executed, in order, those of all links together."""
        return [entry.command for entry in self.entries if entry.event == "command"]

    @property
    def links(self) -> list[int]:
        """The numbers of the links accepted, in order."""
        return [entry.link for entry in self.entries if entry.event == "opened" and entry.link is not None]

    @property
    def open_links(self) -> list[int]:
        """The numbers of the links that are open now."""
        with self._changed:
            return list(self._open)

    def count(self, command: bytes) -> int:
        """How many times exactly this message was executed."""
        return self.commands.count(command)

    def clear(self) -> None:
        """Forget every entry. Links that are open stay in `open_links`, and numbers of links are never used again."""
        with self._changed:
            self._entries.clear()
            self._changed.notify_all()

    def wait(self, predicate: Callable[[Ledger], object], timeout: float = 10.0) -> None:
        """Block until `predicate(ledger)` is true, looking again at every new entry.

        Args:
            predicate: called with this ledger, which does not change meanwhile.
            timeout: seconds.

        Raises:
            TimeoutError: it did not become true in time; the message holds the whole ledger.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: predicate(self), timeout):
                raise self._timed_out(timeout)

    async def wait_async(self, predicate: Callable[[Ledger], object], timeout: float = 10.0) -> None:
        """`wait` for asyncio code: the loop goes on meanwhile."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def listener() -> None:
            loop.call_soon_threadsafe(changed.set)

        with self._changed:
            self._listeners.append(listener)
        try:
            await asyncio.wait_for(self._until(predicate, changed), timeout)
        except asyncio.TimeoutError:
            raise self._timed_out(timeout) from None
        finally:
            with self._changed:
                self._listeners.remove(listener)

    async def _until(self, predicate: Callable[[Ledger], object], changed: asyncio.Event) -> None:
        while not self._holds(predicate):
            await changed.wait()
            changed.clear()

    def _holds(self, predicate: Callable[[Ledger], object]) -> bool:
        with self._changed:
            return bool(predicate(self))

    def _timed_out(self, timeout: float) -> TimeoutError:
        return TimeoutError(f"what was waited for did not happen within {timeout} s; the ledger:\n{self}")

    def __str__(self) -> str:
        entries = self.entries
        if not entries:
            return "(empty)"
        return "\n".join(f"{entry.time - entries[0].time:12.6f} s  {entry}" for entry in entries)
