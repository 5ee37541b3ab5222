"""Framing: whatever the splits, the buffer does what a naive one would do that keeps one bytes object."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import deque

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sockio import _buffer
from sockio._buffer import Buffer
from sockio.common import BlockError, LimitOverrunError

SEPARATORS = st.sampled_from([b"\n", b"\r\n", b"aab", b"aa"])
CHUNKS = st.lists(st.sampled_from([b"a", b"b", b"\r", b"\n", b"\r\n", b"aab"]), min_size=1, max_size=12).map(b"".join)


def arrive(buffer: Buffer, data: bytes) -> None:
    """Bring bytes the way a link does: into place when the buffer says where, else as a chunk."""
    while data:
        space = buffer.space()
        if space is None:
            buffer.feed(data)
            return
        size = min(len(space), len(data))
        space[:size] = data[:size]
        buffer.filled(size)
        data = data[size:]


class NaiveBuffer:
    """The same, as simple as can be."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.data = b""

    def peek_lines(self, count: int, separator: bytes) -> list[bytes] | None:
        lines: list[bytes] = []
        rest = self.data
        while len(lines) < count:
            content, found, rest = rest.partition(separator)
            if len(content) >= (self.limit + 1 if found else self.limit + len(separator)):
                raise LimitOverrunError
            if not found:
                return None
            lines.append(content + found)
        return lines

    def take_lines(self, count: int, separator: bytes) -> list[bytes] | None:
        lines = self.peek_lines(count, separator)
        if lines is not None:
            self.drop(b"".join(lines))
        return lines

    def take_exactly(self, size: int) -> bytes | None:
        if size > len(self.data):
            return None
        taken = self.data[:size]
        self.drop(taken)
        return taken

    def drop(self, taken: bytes) -> None:
        assert self.data.startswith(taken)
        self.data = self.data[len(taken) :]


class BufferMachine(RuleBasedStateMachine):
    """Any order of arrivals and of calls."""

    @initialize(limit=st.integers(1, 20), large=st.integers(1, 30))
    def make(self, limit: int, large: int) -> None:
        self.buffer = Buffer(limit)
        self.buffer.large = large
        self.naive = NaiveBuffer(limit)
        self.queue: deque[bytes] = deque()

    @rule(chunk=CHUNKS)
    def bytes_arrive(self, chunk: bytes) -> None:
        arrive(self.buffer, chunk)
        self.naive.data += chunk

    @rule(size=st.integers(1, 50))
    def take(self, size: int) -> None:
        expected = self.naive.take_exactly(min(size, len(self.naive.data))) or None
        assert self.buffer.take(size) == expected

    @rule()
    def take_all(self) -> None:
        assert self.buffer.take_all() == self.naive.take_exactly(len(self.naive.data))

    @rule(size=st.integers(0, 50))
    def take_exactly(self, size: int) -> None:
        assert self.buffer.take_exactly(size) == self.naive.take_exactly(size)

    @rule(separator=SEPARATORS)
    def take_until(self, separator: bytes) -> None:
        try:
            lines = self.naive.take_lines(1, separator)
        except LimitOverrunError:
            with pytest.raises(LimitOverrunError, match="buffer_size"):
                self.buffer.take_until(separator)
        else:
            assert self.buffer.take_until(separator) == (lines and lines[0])

    @rule(count=st.integers(0, 4), separator=SEPARATORS)
    def take_lines(self, count: int, separator: bytes) -> None:
        try:
            lines = self.naive.take_lines(count, separator)
        except LimitOverrunError:
            with pytest.raises(LimitOverrunError, match="buffer_size"):
                self.buffer.take_lines((count, separator))
        else:
            assert self.buffer.take_lines((count, separator)) == lines

    @rule(separator=SEPARATORS)
    def cut_lines(self, separator: bytes) -> None:
        try:
            lines = self.naive.peek_lines(1, separator)
        except LimitOverrunError:
            with pytest.raises(LimitOverrunError, match="buffer_size"):
                self.buffer.cut_lines(separator)
            return
        found = self.buffer.cut_lines(separator)
        if lines is None:
            assert found is None
        else:
            assert found is not None
            queue, size = found
            assert size == len(b"".join(queue))
            assert list(queue) == self.naive.peek_lines(len(queue), separator)
            self.queue = queue

    @rule()
    def pop_a_line(self) -> None:
        if self.queue:
            self.naive.drop(self.queue.popleft())

    @rule()
    def clear(self) -> None:
        self.buffer.clear()
        self.naive.data = b""

    @rule()
    def forget_lines(self) -> None:
        self.naive.drop(b"".join(self.queue))
        self.buffer.forget_lines()

    @invariant()
    def both_hold_as_much(self) -> None:
        if hasattr(self, "buffer"):
            assert len(self.buffer) == len(self.naive.data)


TestBufferIsNaive = BufferMachine.TestCase


@given(st.lists(CHUNKS), SEPARATORS)
@example([b"a", b"\n", b"\na"], b"\n")  # a search that was resumed in the line behind
def test_lines_are_the_same_however_they_were_split(chunks: list[bytes], separator: bytes) -> None:
    buffer = Buffer(1000)
    lines: list[bytes] = []
    for chunk in chunks:
        buffer.feed(chunk)
        while (line := buffer.take_until(separator)) is not None:
            lines.append(line)
    *whole, rest = b"".join(chunks).split(separator)
    assert lines == [line + separator for line in whole]
    assert buffer.take_all() == rest


@given(st.lists(CHUNKS), st.sampled_from([(1, 1), (5, 10), _buffer.WINDOW]))
def test_a_stream_gets_the_same_lines_however_they_were_split(chunks: list[bytes], window: tuple[int, int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_buffer, "WINDOW", window)
        buffer = Buffer(1000)
        lines: list[bytes] = []
        for chunk in chunks:
            buffer.feed(chunk)
            while (found := buffer.cut_lines(b"\r\n")) is not None:
                queue, _ = found
                while queue:
                    lines.append(queue.popleft())
    assert lines == [line + b"\r\n" for line in b"".join(chunks).split(b"\r\n")[:-1]]


@given(st.lists(st.integers(1, 3 * _buffer.LARGE), min_size=1, max_size=4), st.integers(0, 100), st.binary(max_size=9))
def test_a_large_exact_read_is_whole_however_it_was_split(sizes: list[int], before: int, behind: bytes) -> None:
    total = sum(sizes)
    data = bytes(i % 251 for i in range(before)) + bytes(range(256)) * (total // 256 + 1)
    data = data[:total]
    buffer = Buffer(1000)
    position = 0
    for size in sizes:
        assert buffer.take_exactly(total) is None
        arrive(buffer, data[position : position + size])
        position += size
    arrive(buffer, behind)
    assert buffer.take_exactly(total) == data
    assert buffer.take_all() == behind


@pytest.mark.parametrize("other", [b"\n", None])
def test_a_large_exact_read_that_gave_up_left_every_byte(other: bytes | None) -> None:
    buffer = Buffer(2**20)
    data = bytes(100) + b"\n" + bytes(100)
    assert buffer.take_exactly(2**19) is None
    arrive(buffer, data)
    if other is None:
        assert buffer.take_exactly(2**19 + 1) is None
        assert buffer.take_all() == data
    else:
        assert buffer.take_until(other) == data[:101]
        assert buffer.take_all() == data[101:]


def test_a_small_reply_in_one_piece_is_handed_out_without_a_copy() -> None:
    buffer = Buffer(1000)
    reply = bytes(bytearray(b"12.5\n"))
    buffer.feed(reply)
    assert buffer.take_until(b"\n") is reply


def test_a_large_exact_read_is_received_into_the_object_that_it_returns() -> None:
    size = 2**23
    chunk = bytes(2**16)
    buffer = Buffer(1000)
    tracemalloc.start()
    try:
        assert buffer.take_exactly(size) is None
        for _ in range(size // len(chunk)):
            arrive(buffer, chunk)
        tracemalloc.reset_peak()
        taken = buffer.take_exactly(size)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken == bytes(size)
    assert peak < size + 2**16


@pytest.mark.parametrize("chunk_size", [1000, 2**16])
def test_a_line_without_end_costs_little_more_memory_than_the_limit(chunk_size: int) -> None:
    limit = 2**21
    buffer = Buffer(limit)
    tracemalloc.start()
    try:
        while len(buffer) < limit:
            assert buffer.take_until(b"\n") is None
            buffer.feed(bytes(chunk_size))
        buffer.feed(bytes(chunk_size))
        with pytest.raises(LimitOverrunError):
            buffer.take_until(b"\n")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(buffer) <= limit + 2 * chunk_size
    assert peak < limit + limit // 8 + 3 * chunk_size + 2**14  # a bytearray grows by an eighth more than it needs


def test_many_lines_taken_one_by_one_leave_no_memory_behind() -> None:
    buffer = Buffer(1000)
    for _ in range(1000):
        buffer.feed(b"x" * 90 + b"\n" + b"y" * 9)
        assert buffer.take_until(b"\n") is not None
        assert len(buffer.data) < 500 + 9 * 1000
    buffer.clear()
    assert not len(buffer)
    assert not buffer.data


def test_a_buffer_dropped_in_the_middle_of_a_large_exact_read_is_collected_silently() -> None:
    buffer = Buffer(1000)
    buffer.take_exactly(2**19)
    cycle: list[object] = [buffer]
    cycle.append(cycle)
    del buffer, cycle
    with pytest.MonkeyPatch.context() as patch:
        unraisable: list[object] = []
        patch.setattr(sys, "unraisablehook", unraisable.append)
        gc.collect()
    assert unraisable == []


def test_a_search_is_not_resumed_in_bytes_that_came_later() -> None:
    buffer = Buffer(1000)
    buffer.feed(b"a\n")
    assert buffer.take_until(b";") is None
    assert buffer.take_until(b"\n") == b"a\n"
    buffer.feed(b";b;")
    assert buffer.take_until(b";") == b";"


@given(
    data=st.binary(max_size=40),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=40),
    eol=SEPARATORS,
    large=st.integers(1, 60),
)
def test_a_block_is_the_same_however_it_was_split(data: bytes, sizes: list[int], eol: bytes, large: int) -> None:
    buffer = Buffer(8)
    buffer.large = large
    whole = b"#2%02d%b%b" % (len(data), data, eol)
    rest = whole + b"next"
    while len(buffer) + len(b"next") < len(whole):
        assert buffer.take_block(eol) is None
        size = sizes.pop() if sizes else 12
        arrive(buffer, rest[: min(size, len(rest) - len(b"next"))])
        rest = rest[min(size, len(rest) - len(b"next")) :]
    arrive(buffer, rest)
    assert buffer.take_block(eol) == data
    assert buffer.take_all() == b"next"


@given(sent=st.binary(min_size=1, max_size=20).filter(lambda sent: sent[:1] != b"#"))
def test_what_is_no_block_is_handed_out_with_the_error(sent: bytes) -> None:
    buffer = Buffer(8)
    buffer.feed(sent)
    with pytest.raises(BlockError) as caught:
        buffer.take_block(b"\n")
    assert caught.value.partial == sent
    assert not len(buffer)
