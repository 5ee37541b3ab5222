"""The asyncio flavour: on asyncio's own loop, on uvloop, and with eager tasks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
from collections.abc import Callable
from typing import Any

import sockio.aio
from tests.flavours.facade import BOUND, AsyncFlavour, Running, play_async


class Aio(AsyncFlavour):
    """``sockio.aio``, on an event loop in a thread."""

    name = variant = "aio"
    module = sockio.aio

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Make the event loop."""
        return asyncio.SelectorEventLoop()

    def begin(self) -> None:
        self.loop = self.new_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True, name="test loop")
        self._thread.start()

    def end(self) -> None:
        asyncio.run_coroutine_threadsafe(self._finish(), self.loop).result(BOUND)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(BOUND)
        self.loop.close()

    async def _finish(self) -> None:
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def tasks(self) -> int:
        return int(self.call(lambda: len(asyncio.all_tasks())))

    def start(self, function: Callable[..., Any], *args: Any, **options: Any) -> Running:
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        tasks: list[asyncio.Task[Any]] = []

        def begin() -> None:
            task = self.loop.create_task(play_async(function, *args, **options))
            tasks.append(task)
            task.add_done_callback(finish)

        def finish(task: asyncio.Task[Any]) -> None:
            if task.cancelled():
                done.set_exception(asyncio.CancelledError())
            elif (error := task.exception()) is not None:
                done.set_exception(error)
            else:
                done.set_result(task.result())

        def cancel() -> None:
            self.loop.call_soon_threadsafe(lambda: tasks[0].cancel())
            concurrent.futures.wait([done], BOUND)

        self.loop.call_soon_threadsafe(begin)
        return Running(done, cancel)


class AioOnUvloop(Aio):
    """``sockio.aio`` on uvloop."""

    variant = "aio-uvloop"

    def new_loop(self) -> asyncio.AbstractEventLoop:
        import uvloop

        return uvloop.new_event_loop()


class AioEager(Aio):
    """``sockio.aio`` where tasks start at once."""

    variant = "aio-eager"

    def new_loop(self) -> asyncio.AbstractEventLoop:
        loop = super().new_loop()
        if sys.version_info >= (3, 12):
            loop.set_task_factory(asyncio.eager_task_factory)
        return loop
