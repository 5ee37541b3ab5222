"""An asyncio loop on a thread of its own, for async objects of other libraries that blocking code wants to use.

    loop = EventLoop()
    serial = loop.proxy(AsyncSerial("/dev/ttyS0"))
    print(serial.write_readline(b"*IDN?\\n"))

``sockio.sio.TCP`` needs none of this. Nothing is started before it is used.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial, update_wrapper
from inspect import isawaitable, iscoroutinefunction, ismethod
from types import TracebackType
from typing import Any, TypeVar

from .aio import TCP

__all__ = ["DefaultEventLoop", "EventLoop"]

T = TypeVar("T")


class EventLoop:
    """An asyncio loop for code that has none: on a daemon thread, started when it is first used.

    Any thread may use it. After ``fork`` the child starts a loop of its own when it needs one.

    Args:
        loop: a running loop to use instead; who made it starts and stops it

    Attributes:
        master: whether the loop is this object's own
        thread: where its own loop runs; ``None`` while it doesn't
        loop: the asyncio loop; ``None`` while its own doesn't run
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.master: bool = loop is None
        self.thread: threading.Thread | None = None
        self.loop: asyncio.AbstractEventLoop | None = loop
        self._changing = threading.RLock()
        _loops.add(self)

    def start(self) -> None:
        """Start the loop's thread. Not needed: the first use does.

        Raises:
            RuntimeError: it runs already, or the loop isn't this object's own
        """
        if not self.master:
            raise RuntimeError("the loop was given to this object: start it where it was made")
        with self._changing:
            if self.thread is not None:
                raise RuntimeError("the event loop runs already")
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=self._run, args=(loop,), name="sockio event loop", daemon=True)
            self.loop = loop
            thread.start()
            self.thread = thread

    def stop(self) -> None:
        """Cancel what runs on the loop, and end its thread; the next use starts a new one.

        Called on the loop's own thread, it doesn't wait for the end.

        Raises:
            RuntimeError: it doesn't run, or the loop isn't this object's own
        """
        if not self.master:
            raise RuntimeError("the loop was given to this object: stop it where it was made")
        with self._changing:
            loop, thread = self.loop, self.thread
            if loop is None or thread is None:
                raise RuntimeError("the event loop doesn't run")
            self.loop = self.thread = None
            loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join()

    def run_coroutine(self, coro: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop.

        Args:
            coro: what calling a coroutine function returns

        Returns:
            A future: ``result()`` waits, ``cancel()`` cancels the coroutine; ``stop()`` does, too.

        Raises:
            TypeError: not a coroutine
            RuntimeError: the loop was given to this object, and is closed
        """
        try:
            with self._changing:
                if self.master and self.thread is None:
                    self.start()
                assert self.loop is not None
                return asyncio.run_coroutine_threadsafe(coro, self.loop)
        except RuntimeError:
            coro.close()  # else Python complains, too, that it was never awaited
            raise

    def proxy(self, obj: Any, resolve_futures: bool = True) -> Any:
        """Return a stand-in for an async object that lives on the loop: its coroutine functions become blocking calls.

        Its other methods are called on the loop too; attributes are read and assigned at once. ``async with`` and
        ``async for`` become ``with`` and ``for``. Ctrl-C while a call waits cancels the call.

        Args:
            obj: any object whose methods need a running asyncio loop
            resolve_futures: whether a call waits and returns the result; else it returns a
                ``concurrent.futures.Future``
        """
        return Proxy(self, obj, resolve_futures)

    def tcp(self, host: str, port: int, resolve_futures: bool = True, **kwargs: Any) -> Any:
        """Return a proxy of a ``sockio.aio.TCP`` on this loop. ``sockio.sio.TCP`` is faster and can do more.

        Args:
            host: name or address of the instrument
            port: its TCP port
            resolve_futures: as in ``proxy``
            **kwargs: the other arguments of ``TCP``
        """
        return self.proxy(TCP(host, port, **kwargs), resolve_futures)

    def _result(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop, wait for its end, and return its result."""
        if self._is_current():
            coro.close()
            raise RuntimeError("a proxy was used on its own event loop, which would wait for itself: await the object")
        future = self.run_coroutine(coro)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C; does nothing to what has ended
            raise

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run a loop until it is stopped, then end what is left on it."""
        while self.loop is loop:
            with suppress(SystemExit, KeyboardInterrupt):  # asyncio passes on what a task raised, who has it as well
                loop.run_forever()
        try:
            loop.run_until_complete(_end_tasks())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def _is_current(self) -> bool:
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:
            return False

    def _after_fork(self) -> None:
        self._changing = threading.RLock()
        if self.master and self.loop is not None:
            _parents_loops.append(self.loop)
            self.loop = self.thread = None


class Proxy:
    """Stands for an object that lives on an ``EventLoop``."""

    _ref: Any = None
    __loop: EventLoop
    __resolve_futures: bool

    def __init__(self, loop: EventLoop, ref: Any, resolve_futures: bool) -> None:
        self.__dict__.update(_ref=ref, _Proxy__loop=loop, _Proxy__resolve_futures=resolve_futures)

    def __getattr__(self, name: str) -> Any:
        value: Any = getattr(self._ref, name)
        if asyncio.iscoroutine(value):  # a property that is to be awaited
            return self.__outcome(value)
        if iscoroutinefunction(value) or iscoroutinefunction(getattr(value.__class__, "__call__", None)):  # noqa: B004
            return update_wrapper(partial(self.__run, value), value, updated=())
        if ismethod(value):
            return update_wrapper(partial(self.__called, value), value, updated=())
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._ref, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._ref, name)

    def __dir__(self) -> list[str]:
        return dir(self._ref)

    def __repr__(self) -> str:
        return f"<proxy of {self._ref!r}>"

    def __enter__(self) -> Any:
        result = self.__loop._result(_awaited(self._ref.__aenter__()))
        return self if result is self._ref else result

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return bool(self.__loop._result(_awaited(self._ref.__aexit__(kind, exc, traceback))))

    def __iter__(self) -> Iterator[Any]:
        iterator = aiter(self._ref)
        while True:
            try:
                item = self.__loop._result(_awaited(anext(iterator)))
            except StopAsyncIteration:
                return
            yield item

    def __run(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **kwargs: Any) -> Any:
        """Call a coroutine function."""
        return self.__outcome(function(*args, **kwargs))

    def __called(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a plain method on the loop; what it returns may be something to wait for."""
        if self.__loop._is_current():
            return method(*args, **kwargs)

        async def call() -> Any:
            result = method(*args, **kwargs)
            return await result if self.__resolve_futures and isawaitable(result) else result

        result = self.__loop._result(call())
        if isawaitable(result) and not self.__resolve_futures:
            return self.__loop.run_coroutine(_awaited(result))
        return result

    def __outcome(self, coro: Coroutine[Any, Any, Any]) -> Any:
        return self.__loop._result(coro) if self.__resolve_futures else self.__loop.run_coroutine(coro)


async def _awaited(value: Awaitable[T]) -> T:
    return await value


async def _end_tasks() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


_loops: weakref.WeakSet[EventLoop] = weakref.WeakSet()
#: In a child process: neither used nor closed, as they share what they wait on with the parent's.
_parents_loops: list[asyncio.AbstractEventLoop] = []


def _after_fork() -> None:
    for loop in list(_loops):
        loop._after_fork()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)

DefaultEventLoop: EventLoop = EventLoop()
