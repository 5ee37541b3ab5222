"""SCPI errors, and the queue that keeps them until somebody asks."""

from __future__ import annotations

from collections import deque

TEXTS = {
    0: "No error",
    -104: "Data type error",
    -109: "Missing parameter",
    -113: "Undefined header",
    -222: "Data out of range",
    -350: "Queue overflow",
}
LONGEST_QUEUE = 20


class ScpiError(Exception):
    """A command cannot be executed.

    Args:
        code: one of `TEXTS`.
        detail: what it is about, as it was received.
    """

    def __init__(self, code: int, detail: bytes = b"") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __bytes__(self) -> bytes:
        text = TEXTS[self.code].encode()
        if self.detail:
            text += b";" + self.detail
        return b'%d,"%s"' % (self.code, text.replace(b'"', b'""')[:255])


class ErrorQueue:
    """First in, first out; when it is full, the last entry tells so."""

    def __init__(self) -> None:
        self._errors: deque[ScpiError] = deque()

    def add(self, error: ScpiError) -> None:
        if len(self._errors) == LONGEST_QUEUE:
            self._errors[-1] = ScpiError(-350)
        else:
            self._errors.append(error)

    def next(self) -> bytes:
        """The oldest entry, which is removed."""
        return bytes(self._errors.popleft() if self._errors else ScpiError(0))

    def clear(self) -> None:
        self._errors.clear()
