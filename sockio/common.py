"""What every flavour shares: constants, exceptions, the rules of arguments, socket options and the retry policy.

The exceptions::

    ConnectionError
     +-- LinkError                  every failure that sockio itself reports
          +-- ConnectionEOFError        the peer ended the link
          +-- ConnectionLostError       the link broke: reset, broken pipe, no route, keep-alive
          +-- ConnectionClosedError     this side closed the object, or it was never open
          +-- ConnectionTimeoutError    a deadline passed (also a TimeoutError)
          +-- LimitOverrunError         a line outgrew buffer_size (also a ValueError)
          +-- BlockError                what came is no IEEE 488.2 block (also a ValueError)

A connect that fails raises the ``OSError`` of the operating system instead.

This module runs on Python 2.7 as well: hence its type comments.
"""

import errno
import logging
import math
import operator
import os
import select
import socket
import struct
import sys

try:
    import typing as _t  # noqa: F401  (names in the type comments)
except ImportError:  # Python 2.7
    pass

if sys.version_info >= (3,):
    from urllib.parse import urlsplit
else:  # Python 2.7
    from urlparse import urlsplit

#: What the module doesn't name on Python 2.7.
_OPTIONS = {"TCP_USER_TIMEOUT": 18} if sys.version_info < (3,) and sys.platform.startswith("linux") else {}
_STRINGS = (str, type(b"".decode()))

IPTOS_NORMAL = 0x00
IPTOS_LOWDELAY = 0x10
IPTOS_THROUGHPUT = 0x08
IPTOS_RELIABILITY = 0x04
IPTOS_MINCOST = 0x02

#: Longest line, in bytes, that a link buffers unless told otherwise.
DEFAULT_LIMIT = 2**20

#: Keep-alive unless told otherwise: probes after 60 s of silence, a dead link noticed 30 s later.
DFT_KEEP_ALIVE = {"active": 1, "idle": 60, "retry": 3, "interval": 10}

#: Bytes received at a time: more would make the allocator ask the system for fresh pages on every read.
CHUNK = 2**16
#: Bytes asked for as long as no more ever came: memory for many costs more than a small reply.
SMALL = 2**12
#: Seconds of silence that end a block of indefinite length: segments of one message follow each other faster.
QUIET = 0.05
#: Seconds nobody will live to see; an int, which Python compares fastest to an int.
AGES = 10**9
#: Log level of the wire trace, below DEBUG: ``logging.getLogger("sockio.wire").setLevel(WIRE)`` switches it on.
WIRE = 5

log = logging.getLogger("sockio")  # type: logging.Logger
wire_log = log.getChild("wire")  # type: logging.Logger

if sys.version_info >= (3, 11):
    _TimeoutBase = TimeoutError
elif sys.version_info >= (3,):
    from asyncio import TimeoutError as _AsyncioTimeoutError

    class _TimeoutBase(TimeoutError, _AsyncioTimeoutError):
        """Up to Python 3.10 asyncio's timeout is a class of its own."""

else:  # Python 2.7
    _TimeoutBase = socket.timeout

    class ConnectionError(socket.error):
        """The builtin of Python 3."""

    class ConnectionResetError(ConnectionError):
        """The builtin of Python 3."""


class LinkError(ConnectionError):
    """A failure that sockio reports.

    Attributes:
        partial: bytes of the reply that did arrive
        request_sent: whether a byte of the call's request may have reached the peer
    """

    def __init__(self, message="", partial=b"", request_sent=False):
        # type: (str, bytes, bool) -> None
        # One positional argument only: an OSError with two prints as "[Errno ...]".
        super(LinkError, self).__init__(message)
        self.partial = partial
        self.request_sent = request_sent


class ConnectionEOFError(LinkError):
    """The peer ended the link. What it sent of an unfinished reply is in ``partial``."""


class ConnectionLostError(LinkError, ConnectionResetError):
    """The link broke. ``__cause__`` is what the operating system said."""


class ConnectionClosedError(LinkError):
    """The object was closed by this side, or is not open and may not reconnect by itself."""


class ConnectionTimeoutError(LinkError, _TimeoutBase):
    """The deadline of a call, or of a connection attempt, passed."""


class LimitOverrunError(LinkError, ValueError):
    """A line is longer than ``buffer_size``."""


class BlockError(LinkError, ValueError):
    """What came in the place of an IEEE 488.2 block. It is in ``partial``."""


class Retry(object):
    """How connecting is retried: exponential backoff.

    Args:
        attempts: how many attempts at the most; ``None``: until the deadline of the call
        delay: seconds between the first attempt and the second
        factor: what each further delay is multiplied by
        max_delay: longest delay, in seconds
        jitter: share of the delay, 0 to 1, that is left to chance, so that many clients don't come back in step

    Raises:
        ValueError: a value out of its range
    """

    def __init__(self, attempts=1, delay=0.1, factor=2.0, max_delay=5.0, jitter=0.1):
        # type: (_t.Optional[int], float, float, float, float) -> None
        for name, value, valid, need in (
            ("attempts", attempts, attempts is None or attempts >= 1, "None or at least 1"),
            ("delay", delay, delay >= 0, "at least 0 (seconds)"),
            ("factor", factor, factor >= 1, "at least 1"),
            ("max_delay", max_delay, max_delay >= 0, "at least 0 (seconds)"),
            ("jitter", jitter, 0 <= jitter <= 1, "between 0 and 1"),
        ):
            if not valid:
                raise ValueError("Retry({}={!r}): must be {}".format(name, value, need))
        self.attempts = attempts
        self.delay = delay
        self.factor = factor
        self.max_delay = max_delay
        self.jitter = jitter

    def __repr__(self):
        # type: () -> str
        settings = ("attempts", "delay", "factor", "max_delay", "jitter")
        return "Retry({})".format(", ".join("{}={!r}".format(name, getattr(self, name)) for name in settings))

    def allows(self, failures):
        # type: (int) -> bool
        """Whether another attempt may follow that many failures in a row."""
        return self.attempts is None or failures < self.attempts

    def pause(self, failures, chance):
        # type: (int, float) -> float
        """Seconds to wait after that many failures in a row; ``chance`` is a random number in [0, 1)."""
        try:
            full = min(self.delay * self.factor ** (failures - 1), self.max_delay)
        except OverflowError:
            full = self.max_delay
        return full * (1 - self.jitter * chance)


class Attempts(object):
    """What a call has attempted to get a link: what the ``Retry`` counts.

    Attributes:
        failures: attempts that failed, in a row
        error: of the last one that did
        link: of the last one that didn't
    """

    failures = 0
    error = None  # type: _t.Any
    link = None  # type: _t.Any


def payload(data):
    # type: (_t.Union[bytes, bytearray, memoryview]) -> bytes
    """Return what to send as ``bytes``.

    Raises:
        TypeError: it isn't bytes
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray):
        return bytes(data)
    if isinstance(data, memoryview):
        return data.tobytes()
    raise TypeError("data must be bytes, not {}: {!r:.60}".format(type(data).__name__, data))


def joined(lines):
    # type: (_t.Iterable[bytes]) -> bytes
    """Return the lines as one request, so that they leave in one segment (contract L4)."""
    return b"".join([payload(line) for line in listed(lines)])


def listed(lines):
    # type: (_t.Iterable[bytes]) -> _t.List[bytes]
    """Return the lines as a list.

    Raises:
        TypeError: it isn't a collection of lines
    """
    if isinstance(lines, _STRINGS + (bytes, bytearray, memoryview)) or not hasattr(lines, "__iter__"):
        raise TypeError("lines must be a list of bytes, not {}: {!r:.60}".format(type(lines).__name__, lines))
    return list(lines)


def checked_size(size, name="n", least=0):
    # type: (int, str, int) -> int
    """Return ``size``.

    Raises:
        TypeError: it isn't a whole number (one of numpy's is one, too)
        ValueError: it is below ``least``
    """
    try:
        size = operator.index(size)
    except TypeError:
        raise TypeError("{} must be a whole number, not {!r}".format(name, size))
    if size < least:
        raise ValueError("{} must be at least {}, not {}".format(name, least, size))
    return size


def checked_separator(separator, name="eol"):
    # type: (bytes, str) -> bytes
    """Return ``separator``.

    Raises:
        TypeError: it isn't bytes
        ValueError: it is empty
    """
    if not isinstance(separator, (bytes, bytearray)):
        raise TypeError("{} must be bytes, not {!r}".format(name, separator))
    if not separator:
        raise ValueError("{} must not be empty".format(name))
    return bytes(separator)


def seconds(timeout, name="timeout"):
    # type: (float, str) -> float
    """Return ``timeout``.

    Raises:
        TypeError: it isn't a number
        ValueError: it isn't a number either, but NaN, or one too large for a ``float``
    """
    if isinstance(timeout, (bool, str, bytes)) or not hasattr(timeout, "__float__"):
        raise TypeError("{} must be seconds or None, not {!r}".format(name, timeout))
    try:
        if math.isnan(timeout):
            raise ValueError("{} must be seconds or None, not NaN".format(name))
    except OverflowError:
        raise ValueError("{} must be seconds or None (no limit), not {!r:.60}".format(name, timeout))
    return timeout


def check_settings(tcp, callbacks):
    # type: (_t.Any, _t.Tuple[_t.Any, ...]) -> None
    """Check what a new object was set to, and put host, port, eol and retry into their final form.

    Raises:
        TypeError, ValueError: an argument of a wrong type or value
    """
    if not isinstance(tcp.host, _STRINGS):
        raise TypeError("host must be a name or an address, not {!r}".format(tcp.host))
    if not tcp.host:
        raise ValueError("host must not be empty")
    if tcp.retry is not None and not isinstance(tcp.retry, Retry):
        raise TypeError("retry must be a sockio.common.Retry, not {!r}".format(tcp.retry))
    if tcp.stale_input not in ("discard", "keep"):
        raise ValueError("stale_input must be 'discard' or 'keep', not {!r}".format(tcp.stale_input))
    for callback in callbacks:
        if callback is not None and not callable(callback):
            raise TypeError("a connection event callback must be callable, not {!r}".format(callback))
    if tcp.tos is not None and checked_size(tcp.tos, "tos") > 255:
        raise ValueError("tos must be at most 255, not {}".format(tcp.tos))
    for name in ("timeout", "connection_timeout"):
        if getattr(tcp, name) is not None:
            seconds(getattr(tcp, name), name)
    checked_size(tcp.buffer_size, "buffer_size", 1)
    keep_alive_options(tcp.keep_alive)
    tcp.port = checked_port(tcp.port)
    tcp.eol = checked_separator(tcp.eol)
    tcp.retry = tcp.retry or Retry()


def checked_port(port):
    # type: (_t.Any) -> int
    """Return ``port`` as a number.

    Raises:
        TypeError: not a number
        ValueError: outside 1 to 65535
    """
    try:
        number = int(port) if isinstance(port, _STRINGS) else operator.index(port)
        if isinstance(port, bool):
            raise TypeError
    except (TypeError, ValueError):
        raise TypeError("port must be a number from 1 to 65535, not {!r}".format(port))
    if not 0 < number < 65536:
        raise ValueError("port must be from 1 to 65535, not {!r}".format(port))
    return number


def keep_alive_options(keep_alive):
    # type: (_t.Any) -> _t.Optional[_t.Dict[str, int]]
    """Return the full keep-alive settings that ``keep_alive`` stands for.

    Args:
        keep_alive: a dict with any of ``active`` (0 or 1), ``idle`` and ``interval`` (seconds), ``retry`` (probes),
            where ``None`` is as good as left out; or a bool; or ``None``, which leaves the operating system's
            settings alone

    Raises:
        TypeError: something else
        ValueError: an unknown name, or a number below 1 (``active``: below 0)
    """
    if keep_alive is None:
        return None
    if isinstance(keep_alive, (bool, int)):
        keep_alive = {"active": int(bool(keep_alive))}
    try:
        settings = {name: value for name, value in keep_alive.items() if value is not None}
    except AttributeError:
        raise TypeError("keep_alive must be a bool, a dict or None, not {!r}".format(keep_alive))
    for name, value in settings.items():
        if name not in DFT_KEEP_ALIVE:
            raise ValueError("keep_alive: unknown name {!r}; use {}".format(name, ", ".join(sorted(DFT_KEEP_ALIVE))))
        if not hasattr(value, "__index__") or value < (name != "active"):
            raise ValueError("keep_alive: {} must be a positive whole number, not {!r}".format(name, value))
        settings[name] = operator.index(value)
    return dict(DFT_KEEP_ALIVE, **settings)


def configure_socket(sock, no_delay=True, tos=IPTOS_LOWDELAY, keep_alive=None):
    # type: (socket.socket, bool, _t.Optional[int], _t.Optional[_t.Dict[str, int]]) -> None
    """Set a socket's latency and keep-alive options (contract L1 to L3); those that the platform lacks are skipped.

    Args:
        sock: an IPv4 or IPv6 stream socket
        no_delay: send small segments at once
        tos: type of service (traffic class on IPv6); ``None`` leaves it alone
        keep_alive: what ``keep_alive_options`` returned

    Raises:
        ValueError: the operating system refuses a value
    """

    def set_option(level, name, value):
        # type: (str, str, int) -> None
        option = getattr(socket, name, _OPTIONS.get(name))
        if hasattr(socket, level) and option is not None:
            try:
                sock.setsockopt(getattr(socket, level), option, value)
            except (OverflowError, socket.error) as exc:
                raise ValueError("{} can't be {!r}: {}; check tos and keep_alive".format(name, value, exc))

    if no_delay:
        set_option("IPPROTO_TCP", "TCP_NODELAY", 1)
    if tos is not None:
        if sock.family == socket.AF_INET6:
            set_option("IPPROTO_IPV6", "IPV6_TCLASS", tos)
        else:
            set_option("IPPROTO_IP", "IP_TOS", tos)
    if keep_alive is None:
        return
    set_option("SOL_SOCKET", "SO_KEEPALIVE", keep_alive["active"])
    if keep_alive["active"]:
        idle, interval, retry = keep_alive["idle"], keep_alive["interval"], keep_alive["retry"]
        set_option("IPPROTO_TCP", "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", idle)
        set_option("IPPROTO_TCP", "TCP_KEEPINTVL", interval)
        set_option("IPPROTO_TCP", "TCP_KEEPCNT", retry)
        set_option("IPPROTO_TCP", "TCP_USER_TIMEOUT", (idle + interval * retry) * 1000)


def take_block(buffer, eol):
    # type: (_t.Any, bytes) -> _t.Optional[bytes]
    """Take an IEEE 488.2 block of definite length with its terminator out of a buffer, and return its data.

    Returns:
        ``None`` if it isn't complete; one of indefinite length never is

    Raises:
        BlockError: it is something else
    """
    head = buffer.head(11)
    digits = head[1:2]
    if head[:1] not in b"#" or digits not in b"0123456789":
        raise _no_block("a block begins with # and a digit, not {!r}".format(head[:2]), buffer)
    if len(head) < 2 or digits == b"0":
        return None
    begin = 2 + int(digits)
    length = head[2:begin]
    if not (length or b"0").isdigit():
        raise _no_block("the length of a block is {} digits, not {!r}".format(int(digits), length), buffer)
    if len(head) < begin:
        return None
    end = begin + int(length)
    message = buffer.take_exactly(end + len(eol))  # type: _t.Optional[bytes]
    if message is None:
        return None
    if not message.endswith(eol, end):
        text = "after a block of {} bytes came {!r}, not {!r}".format(int(length), message[end:], eol)
        raise BlockError(text, message)
    return message[begin:end]


def _no_block(reason, buffer):
    # type: (str, _t.Any) -> BlockError
    return BlockError(reason + ": check that the reply is a block", buffer.take_all())


class _SelectPoller(object):  # pragma: no cover - Windows
    """``select.poll`` where there is none (Windows)."""

    def __init__(self):
        # type: () -> None
        self._events = {}  # type: _t.Dict[socket.socket, int]

    def register(self, sock, events):
        # type: (socket.socket, int) -> None
        self._events[sock] = events

    def poll(self, milliseconds=None):
        # type: (_t.Optional[float]) -> _t.List[_t.Tuple[int, int]]
        timeout = None if milliseconds is None else milliseconds / 1000.0
        reads = [sock for sock, events in self._events.items() if events & POLLIN]
        writes = [sock for sock, events in self._events.items() if events & POLLOUT]
        ready = select.select(reads, writes, writes, timeout)  # a connection that failed is exceptional
        return [(sock.fileno(), 0) for socks in ready for sock in socks]


Poller = getattr(select, "poll", _SelectPoller)  # type: _t.Callable[[], _t.Any]
POLLIN = getattr(select, "POLLIN", 1)  # type: int
POLLOUT = getattr(select, "POLLOUT", 4)  # type: int
#: The peer's end has arrived. Python 2.7 doesn't name it.
POLLRDHUP = getattr(select, "POLLRDHUP", 0x2000 if sys.platform.startswith("linux") else 0)  # type: int
#: The link has ended.
POLLGONE = POLLRDHUP | getattr(select, "POLLHUP", 0) | getattr(select, "POLLERR", 0)  # type: int


def poller_of(sock):
    # type: (socket.socket) -> _t.Any
    """Return a poll object that tells when ``sock`` has bytes or an end to be received."""
    poller = Poller()
    poller.register(sock, POLLIN | POLLGONE)
    return poller


def what_broke(sock):
    # type: (socket.socket) -> _t.Optional[BaseException]
    """Return what broke a connection that has ended; ``None``: it ended cleanly, or another thread has closed it.

    Raises:
        OSError: (ENOTCONN) the system has told another thread what it was, and tells only once
    """
    try:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code:
            sock.getpeername()
    except socket.error as exc:
        if exc.errno != errno.EBADF:
            raise
        return None
    # EPIPE: what was reset had ended before.
    return None if code in (0, errno.EPIPE) else socket.error(code, os.strerror(code))


def pending(sock):
    # type: (socket.socket) -> int
    """Return how many bytes this host has received that ``sock`` was not read of."""
    try:
        import fcntl
        import termios
    except ImportError:  # pragma: no cover - Windows
        try:
            return len(sock.recv(CHUNK, socket.MSG_PEEK))
        except socket.error:
            return 0
    try:
        count = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, b"\0" * 4))  # type: _t.Tuple[int]
    except (EnvironmentError, ValueError):  # another thread, or a loop that has ended, has closed it
        return 0
    return count[0]


def address_of_url(url):
    # type: (str) -> _t.Tuple[str, int]
    """Return the host and the port of a ``tcp://host:port`` URL.

    Raises:
        ValueError: another scheme, no host, no port, or one out of range
    """
    parts = urlsplit(url)
    if parts.scheme != "tcp":
        raise ValueError("unsupported scheme {!r} in {!r}: use tcp://host:port".format(parts.scheme, url))
    try:
        port = parts.port
    except ValueError as exc:
        raise ValueError("{!r}: {}: use tcp://host:port".format(url, exc))
    if not parts.hostname or port is None:
        raise ValueError("{!r} has no {}: use tcp://host:port".format(url, "port" if parts.hostname else "host"))
    return parts.hostname, checked_port(port)
