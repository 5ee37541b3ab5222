from collections.abc import Callable
from typing import Any

class Task:
    cancelled: bool | None
    terminated: bool
    cancel_func: Callable[[], object] | None
    _trap_result: Any
    async def cancel(self, *, blocking: bool = ...) -> None: ...
    async def join(self) -> Any: ...

class ContextTask(Task): ...
