"""Sans-I/O framing: bytes go in as they arrive, whole messages come out.

Goals, in this order: a message comes out the same however its bytes were split on the way (contract Q2); nothing that
arrived is lost until it is taken; a small reply that arrives in one piece is handed out without a copy; a long line
that drips in costs linear time; a large exact read is received straight into the ``bytes`` object that it returns.

The bytes not taken yet are ``data[_start:]``, preceded by what was set aside for a faster way out: lines already cut
for a stream (``lines``), or the large exact read under way (``target``); never both.

This module runs on Python 2.7 as well: hence its type comments.
"""

import io
import sys
from collections import deque

from .common import LimitOverrunError, checked_size, take_block

if sys.version_info >= (3,):
    import typing as _t

    #: The reply that a call waits for: tries to take it from the buffer, None as long as it isn't complete.
    Take = _t.Callable[["Buffer", _t.Any], _t.Any]

#: An exact read of more bytes than this is received into place, but on Python 2.7, whose memory can't be lent out.
LARGE = 2**18 if sys.version_info >= (3,) else sys.maxsize
#: How many bytes of lines a stream cuts at a time: at first, and at the most.
WINDOW = 2**10, 2**16


class _Memory(io.BytesIO):
    """Memory that is writable now, and handed out as bytes without a copy in the end."""

    def close(self):
        # type: () -> None
        """Do nothing: the garbage collector calls this while ``Buffer.target`` lives, and prints what it raises."""


class Buffer(object):
    """The bytes of one link that arrived and were not taken yet.

    Args:
        limit: longest line, in bytes and without its terminator
    """

    __slots__ = (
        "_begin",
        "_filled",
        "_found",
        "_seen",
        "_sought",
        "_start",
        "_store",
        "_window",
        "data",
        "large",
        "limit",
        "lines",
        "target",
    )

    def __init__(self, limit):
        # type: (int) -> None
        self.limit = limit  # type: int
        self.large = LARGE  # type: int
        self.data = b""  # type: _t.Union[bytes, bytearray]
        self.lines = None  # type: _t.Optional[_t.Deque[bytes]]
        self.target = None  # type: _t.Optional[memoryview]
        self._start = 0
        self._window = WINDOW[0]
        self._sought = None  # type: _t.Optional[bytes]
        self._seen = self._begin = self._found = 0

    def __len__(self):
        # type: () -> int
        aside = self._filled if self.target is not None else sum(map(len, self.lines or ()))
        return aside + len(self.data) - self._start

    def clear(self):
        # type: () -> None
        """Forget every byte."""
        self.data = b""
        self._start = 0
        self.forget_lines()
        if self.target is not None:
            self.target.release()
            self.target = None
        self._sought = None

    def forget_lines(self):
        # type: () -> None
        """Forget the lines set aside, in a way that another thread may."""
        if self.lines:
            self.lines.clear()

    def feed(self, chunk):
        # type: (bytes) -> None
        """Add bytes that arrived."""
        if not self.data:
            self.data = chunk
            return
        rest = len(self.data) - self._start
        if rest <= len(chunk):
            self.data = self.data[self._start :] + chunk
        else:
            if isinstance(self.data, bytes):
                self.data = bytearray(self.data)
            del self.data[: self._start]
            self.data += chunk
        self._seen -= self._start
        self._begin -= self._start
        self._start = 0

    # What a call asks for. Each returns None, and takes nothing, until all of it is there.

    def take(self, size):
        # type: (int) -> _t.Optional[bytes]
        """Take at least one byte and at most ``size``."""
        available = len(self)
        return self.take_exactly(min(size, available)) if available else None

    def take_all(self):
        # type: () -> bytes
        """Take whatever is there."""
        return self.take(len(self)) or b""

    def take_exactly(self, size):
        # type: (int) -> _t.Optional[bytes]
        """Take ``size`` bytes."""
        if self.target is not None and len(self.target) == size:
            if self._filled < size:
                return None
            self.target.release()
            self.target = None
            return self._store.getvalue()
        self._gather()
        end = self._start + size
        if end > len(self.data):
            if size > self.large:
                self._receive_in_place(size)
            return None
        return self._cut(end)

    def take_until(self, separator):
        # type: (bytes) -> _t.Optional[bytes]
        """Take a line: everything up to and including ``separator``.

        Raises:
            LimitOverrunError: the line is longer than ``limit``
        """
        data = self.data
        if self._start == 0 and type(data) is bytes and not self.lines and self.target is None:
            # One piece, one line: the usual reply. What follows this branch would do the same.
            if not data:
                return None
            end = data.find(separator)
            if 0 <= end == len(data) - len(separator) and end <= self.limit:
                self.data = b""
                self._sought = None
                return data
        else:
            self._gather()
        line_end = self._line_end(1, separator)
        return None if line_end is None else self._cut(line_end)

    def take_lines(self, wanted):
        # type: (_t.Tuple[int, bytes]) -> _t.Optional[_t.List[bytes]]
        """Take that many lines with that terminator, all or none.

        Raises:
            LimitOverrunError: one of them is longer than ``limit``
        """
        count, separator = wanted
        self._gather()
        end = self._line_end(count, separator)
        if end is None:
            return None
        return [line + separator for line in self._cut(end).split(separator)[:-1]]

    def take_block(self, eol):
        # type: (bytes) -> _t.Optional[bytes]
        """Take a block of definite length, ``#<digits><length><data><eol>`` (IEEE 488.2, 8.7.9), and return its data.

        One of indefinite length (``#0<data><eol>``, 8.7.10) is never complete: see ``may_be_block``.

        Raises:
            BlockError: it is something else
        """
        return take_block(self, eol)

    def may_be_block(self, eol):
        # type: (bytes) -> bool
        """Whether a block of indefinite length has arrived up to an ``eol``, which need not be the last."""
        if self.head(2) != b"#0":
            return False
        self._gather()
        return len(self) >= 2 + len(eol) and self.data.endswith(eol)

    def cut_lines(self, separator):
        # type: (bytes) -> _t.Optional[_t.Tuple[_t.Deque[bytes], int]]
        """Set whole lines aside for a stream; all other calls still see them.

        Returns:
            the queue that the stream pops them from, and how many bytes they are

        Raises:
            LimitOverrunError: the next line is longer than ``limit``
        """
        if self.lines or self.target is not None:
            self._gather()
        size = min(self._window, self.limit + len(separator))
        window = bytes(self.data[self._start : self._start + size])
        if separator == b"\n" and b"\r" not in window:
            lines = window.splitlines(True)  # twice as fast
            rest = 0 if window.endswith(b"\n") else len(lines.pop()) if lines else 0
        else:
            lines = window.split(separator)
            rest = len(lines.pop())
            lines = [line + separator for line in lines]
        if lines:
            size = len(window) - rest
            self._cut(self._start + size)
            self._window = min(2 * self._window, WINDOW[1])
        else:
            line = self.take_until(separator)
            if line is None:
                return None
            size = len(line)
            lines = [line]
        self.lines = deque(lines)  # a new queue each time: a stream that cuts otherwise finds its own one empty
        return self.lines, size

    # A large exact read: the link receives straight into place.

    def space(self):
        # type: () -> _t.Optional[memoryview]
        """Where the link should receive next, if not into a chunk of its own."""
        if self.target is None or self._filled == len(self.target):
            return None
        return self.target[self._filled : self._filled + LARGE]

    def filled(self, size):
        # type: (int) -> None
        """Tell that ``size`` bytes were received into ``space()``."""
        self._filled += size

    def _receive_in_place(self, size):
        # type: (int) -> None
        self._store = _Memory(bytes(size))
        self.target = self._store.getbuffer()
        rest = self._cut(len(self.data))
        self.target[: len(rest)] = rest
        self._filled = len(rest)

    # How it is done.

    def head(self, size):
        # type: (int) -> bytes
        """Return the first bytes, and leave them there."""
        if self.target is not None:
            return bytes(self.target[: min(size, self._filled)])
        self._gather()
        return bytes(self.data[self._start : self._start + size])

    def _gather(self):
        # type: () -> None
        """Bring what was set aside back in front of the rest."""
        if self.target is not None:
            aside = bytes(self.target[: self._filled])
            self.target.release()
            self.target = None
        elif self.lines:
            aside = b"".join(_drained(self.lines))
            self._window = WINDOW[0]  # somebody reads something else between the lines
        else:
            return
        self.data = aside + self.data[self._start :]
        self._start = 0
        self._sought = None

    def _line_end(self, count, separator):
        # type: (int, bytes) -> _t.Optional[int]
        """Where the count-th line ends. An unfinished search goes on later where it stopped."""
        data = self.data
        size = len(separator)
        if self._sought is separator and self._found < count:
            seen, begin, found = self._seen, self._begin, self._found
        else:
            seen = begin = self._start
            found = 0
        while found < count:
            end = data.find(separator, seen)
            if end < 0:
                if len(data) - begin - size >= self.limit:
                    raise self._overrun(separator)
                self._sought = separator
                self._seen = max(begin, len(data) - size + 1)
                self._begin = begin
                self._found = found
                return None
            if end - begin > self.limit:
                raise self._overrun(separator)
            seen = begin = end + size
            found += 1
        self._sought = None
        return begin

    def _cut(self, end):
        # type: (int) -> bytes
        """Take the bytes up to ``end``."""
        data, start = self.data, self._start
        self._sought = None
        if end < len(data):
            self._start = end
            return bytes(data[start:end])
        self.data = b""
        self._start = 0
        return bytes(data[start:]) if start else bytes(data)

    def _overrun(self, separator):
        # type: (bytes) -> LimitOverrunError
        return LimitOverrunError(
            "more than {} bytes arrived without the end of line {!r}: check eol, or raise buffer_size".format(
                self.limit, separator
            )
        )


def _drained(lines):
    # type: (_t.Deque[bytes]) -> _t.List[bytes]
    """Pop one at a time: another thread's stream may be popping, and no line may go out twice."""
    taken = []  # type: _t.List[bytes]
    try:
        while True:
            taken.append(lines.popleft())
    except IndexError:
        return taken


# Framings beside the buffer's own.


def to_end(_buffer, _nothing):
    # type: (Buffer, None) -> None
    """The framing of ``read(-1)``: complete only when the link ends."""


def anything(buffer, _nothing):
    # type: (Buffer, None) -> _t.Optional[bytes]
    """The framing of ``readbuffer``: whatever is there."""
    return buffer.take_all() or None


def reading(n):
    # type: (int) -> _t.Tuple[Take, _t.Any]
    """Return the framing of ``read(n)``, and its argument."""
    if n == -1:
        return to_end, None
    return (Buffer.take if n else Buffer.take_exactly), checked_size(n)


def terminator(take, wanted, eol):
    # type: (_t.Optional[Take], _t.Any, bytes) -> bytes
    """Return what ends a whole message for a call that frames its reply so."""
    if take in (Buffer.take_until, Buffer.take_block):  # on 2.7 not the same object each time
        return wanted  # type: ignore[no-any-return]
    return wanted[1] if take == Buffer.take_lines else eol
