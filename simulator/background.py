"""The one event loop on which every instrument of a process is served, in a daemon thread of its own.

Its own thread makes an instrument usable from blocking code and from any async library alike; one for all keeps a
thousand instruments cheap, and lets everything behind `run` be written without a lock.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds after which `run` gives up on the loop: longer than anything that it is asked to do."""


class _Background:
    def __init__(self) -> None:
        # Not the loop of whatever policy the application has set: uvloop's sockets behave in their own way.
        self.loop = asyncio.SelectorEventLoop()
        self.thread = threading.Thread(target=self._serve, name="simulator", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(_cancel_all())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# By process: a forked child starts its own. It must keep its copy of the parent's, and let it be: to close that one
# would take the parent's sockets out of the epoll that the two share.
_backgrounds: dict[int, _Background] = {}
_starting = threading.Lock()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the shared loop, and block until it is done.

    Raises:
        RuntimeError: called from the shared loop itself, which would wait for itself for ever.
        TimeoutError: it is not done in time: a device blocks in `execute`, or a peer takes no bytes.
    """
    with _starting:
        background = _backgrounds.get(os.getpid())
        if background is None:
            background = _backgrounds[os.getpid()] = _Background()
            atexit.register(background.stop)
    if threading.current_thread() is background.thread:
        work.close()
        raise RuntimeError("a device cannot call the methods of its instrument: they wait for its own thread")
    future = asyncio.run_coroutine_threadsafe(work, background.loop)
    try:
        return future.result(PATIENCE)
    except concurrent.futures.TimeoutError:
        future.cancel()
        raise TimeoutError(
            f"no answer from the simulator in {PATIENCE} s: a device blocks in execute(), or a peer takes no bytes"
        ) from None
