"""The trio flavour."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

import trio

import sockio.trio
from tests.flavours.facade import BOUND, AsyncFlavour, Running, play_async


class Trio(AsyncFlavour):
    """``sockio.trio``, in a ``trio.run`` on a thread."""

    name = variant = "trio"
    cancelled = trio.Cancelled
    module = sockio.trio
    _token: trio.lowlevel.TrioToken
    _nursery: trio.Nursery

    def begin(self) -> None:
        began = threading.Event()

        async def main() -> None:
            self._token = trio.lowlevel.current_trio_token()
            async with trio.open_nursery() as self._nursery:
                began.set()
                await trio.sleep_forever()

        self._thread = threading.Thread(target=trio.run, args=(main,), daemon=True, name="test run")
        self._thread.start()
        assert began.wait(BOUND)

    def end(self) -> None:
        self._token.run_sync_soon(self._nursery.cancel_scope.cancel)
        self._thread.join(BOUND)
        assert not self._thread.is_alive()

    def tasks(self) -> int:
        return int(self.call(lambda: trio.lowlevel.current_statistics().tasks_living))

    def start(self, function: Callable[..., Any], *args: Any, **options: Any) -> Running:
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                try:
                    done.set_result(await play_async(function, *args, **options))
                except trio.Cancelled:
                    done.set_exception(asyncio.CancelledError())  # what the tests know a cancellation by
                    raise
                except BaseException as exc:
                    done.set_exception(exc)

        def cancel() -> None:
            self._token.run_sync_soon(scope.cancel)
            concurrent.futures.wait([done], BOUND)

        self._token.run_sync_soon(self._nursery.start_soon, run)
        return Running(done, cancel)
