"""The futures flavour."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

import sockio.futures
import sockio.sio
from sockio._calls import Calls
from tests.clauses import flavours
from tests.flavours.facade import BOUND, Running
from tests.flavours.sio import Sio

#: What returns a future.
CALLS = ["open", "close", *(name for name in vars(Calls) if name[0] != "_")]


class Call(Running):
    """A call on its future; cancelled, it raises what it does in asyncio."""

    def __init__(self, future: Future[Any]) -> None:
        super().__init__(future, self._cancel_future)

    def _cancel_future(self) -> None:
        self._future.cancel()
        concurrent.futures.wait([self._future], BOUND)

    def result(self, bound: float = BOUND) -> Any:
        try:
            return super().result(bound)
        except CancelledError:
            raise asyncio.CancelledError from None

    def error(self, bound: float = BOUND) -> BaseException:
        try:
            return super().error(bound)
        except CancelledError:
            return asyncio.CancelledError()


class Futures(Sio):
    """``sockio.futures``: calls on their futures; scripts, and what blocks, each on a thread of its own."""

    name = variant = "futures"
    cancels = True
    module = sockio.futures

    def start(self, function: Callable[..., Any], *args: Any, **options: Any) -> Running:
        if isinstance(getattr(function, "__self__", None), sockio.futures.TCP) and function.__name__ in CALLS:
            return Call(function(*args, **options))
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(play(function, *args, **options))
            except BaseException as exc:
                future.set_exception(exc)

        threading.Thread(target=run, daemon=True, name=f"test runs {function}").start()
        return Running(future)

    def call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return play(function, *args, **options)

    def callback(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            return play(function, *args)

        return run


def resolved(name: str) -> Callable[..., Any]:
    """Return a call that waits for its future."""
    return lambda self, *args, **options: getattr(sockio.futures.TCP, name)(self, *args, **options).result()


class Resolved(sockio.futures.TCP):
    """An object of this flavour whose calls block, for programs that do the same with a ``sockio.sio.TCP``."""

    for _name in CALLS:
        locals()[_name] = resolved(_name)


#: For tests that do the same with either class.
blocking = pytest.mark.parametrize(
    "tcp",
    [
        pytest.param(sockio.sio.TCP, id="sio", marks=flavours("sio")),
        pytest.param(Resolved, id="futures", marks=flavours("futures")),
    ],
)


def play(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Do a call, or play a script of such calls, and return the result."""
    result: Any = function(*args, **options)
    if isinstance(result, Future):
        return result.result(BOUND)
    if not isinstance(result, Generator):
        return result
    step: Callable[[], Any] = lambda: result.send(None)  # noqa: E731
    try:
        while True:
            found = step()
            try:
                value = found.result(BOUND) if isinstance(found, Future) else found
            except BaseException as exc:
                error = exc
                step = lambda: result.throw(error)  # noqa: E731, B023
            else:
                step = lambda: result.send(value)  # noqa: E731, B023
    except StopIteration as stop:
        return stop.value
