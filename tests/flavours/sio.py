"""The blocking flavour."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

import sockio.sio
from tests.flavours.facade import EndOfStream, Flavour, Running, play


class Sio(Flavour):
    """``sockio.sio``, each started call on a thread of its own."""

    name = variant = "sio"
    cancels = cancels_steps = False
    module = sockio.sio

    def start(self, function: Callable[..., Any], *args: Any, **options: Any) -> Running:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run() -> None:
            try:
                future.set_result(self._play(function, *args, **options))
            except BaseException as exc:
                future.set_exception(exc)

        threading.Thread(target=run, daemon=True, name=f"test runs {function}").start()
        return Running(future)

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return self._play(function, *args, **options)

    def callback(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            return self._play(function, *args)

        return run

    def _play(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return play(function, *args, returned=self.returned, **options)

    def stream_of(self, raw: Any) -> Any:
        return iter(raw)

    def step(self, stream: Any) -> Any:
        try:
            return next(stream)
        except StopIteration:
            raise EndOfStream from None

    def enter(self, manager: Any) -> Any:
        return manager.__enter__()

    def leave(self, manager: Any, exc: BaseException | None) -> Any:
        return manager.__exit__(exc and type(exc), exc, exc and exc.__traceback__)
