"""The curio flavour."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

import curio

import sockio.curio
from tests.flavours.facade import BOUND, AsyncFlavour, Running, play_async


class Curio(AsyncFlavour):
    """``sockio.curio``, on a kernel in a thread."""

    name = variant = "curio"
    module = sockio.curio

    def begin(self) -> None:
        self._orders: curio.UniversalQueue[Callable[[], Any] | None] = curio.UniversalQueue()
        self._thread = threading.Thread(target=curio.run, args=(self._obey,), daemon=True, name="test kernel")
        self._thread.start()

    def end(self) -> None:
        self._orders.put(None)
        self._thread.join(BOUND)
        assert not self._thread.is_alive()

    async def _obey(self) -> None:
        while (order := await self._orders.get()) is not None:
            await order()

    def start(self, function: Callable[..., Any], *args: Any, **options: Any) -> Running:
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        tasks: list[Any] = []

        async def run() -> None:
            try:
                done.set_result(await play_async(function, *args, **options))
            except curio.CancelledError as exc:
                error = asyncio.CancelledError()
                error.__cause__ = exc
                done.set_exception(error)
            except BaseException as exc:
                done.set_exception(exc)

        async def begin() -> None:
            tasks.append(await curio.spawn(run, daemon=True))

        async def interrupt() -> None:
            await tasks[0].cancel(blocking=False)

        def cancel() -> None:
            self._orders.put(interrupt)
            concurrent.futures.wait([done], BOUND)

        self._orders.put(begin)
        return Running(done, cancel)
