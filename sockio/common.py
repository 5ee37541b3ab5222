"""What every flavour shares: constants, exceptions, socket options and the retry policy.

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

import logging
import socket
import sys

try:
    import typing as _t  # noqa: F401  (names in the type comments)
except ImportError:  # Python 2.7
    pass

if sys.version_info >= (3,):
    from urllib.parse import urlsplit
else:  # Python 2.7
    from urlparse import urlsplit

IPTOS_NORMAL = 0x00
IPTOS_LOWDELAY = 0x10
IPTOS_THROUGHPUT = 0x08
IPTOS_RELIABILITY = 0x04
IPTOS_MINCOST = 0x02

#: Longest line, in bytes, that a link buffers unless told otherwise.
DEFAULT_LIMIT = 2**20

#: Keep-alive unless told otherwise: probes after 60 s of silence, a dead link noticed 30 s later.
DFT_KEEP_ALIVE = {"active": 1, "idle": 60, "retry": 3, "interval": 10}

log = logging.getLogger("sockio")  # type: logging.Logger

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


def checked_port(port):
    # type: (_t.Union[int, str]) -> int
    """Return ``port`` as a number.

    Raises:
        TypeError: not a number
        ValueError: outside 1 to 65535
    """
    try:
        number = int(str(port))
    except ValueError:
        raise TypeError("port must be a number from 1 to 65535, not {!r}".format(port))
    if not 0 < number < 65536:
        raise ValueError("port must be from 1 to 65535, not {!r}".format(port))
    return number


def keep_alive_options(keep_alive):
    # type: (_t.Any) -> _t.Optional[_t.Dict[str, int]]
    """Return the full keep-alive settings that ``keep_alive`` stands for.

    Args:
        keep_alive: a dict with any of ``active`` (0 or 1), ``idle`` and ``interval`` (seconds), ``retry`` (probes);
            or a bool; or ``None``, which leaves the operating system's settings alone

    Raises:
        TypeError: something else
        ValueError: an unknown name, or a number below 1 (``active``: below 0)
    """
    if keep_alive is None:
        return None
    if isinstance(keep_alive, (bool, int)):
        keep_alive = {"active": int(bool(keep_alive))}
    try:
        settings = list(keep_alive.items())
    except AttributeError:
        raise TypeError("keep_alive must be a bool, a dict or None, not {!r}".format(keep_alive))
    for name, value in settings:
        if name not in DFT_KEEP_ALIVE:
            raise ValueError("keep_alive: unknown name {!r}; use {}".format(name, ", ".join(sorted(DFT_KEEP_ALIVE))))
        if not isinstance(value, int) or value < (name != "active"):
            raise ValueError("keep_alive: {} must be a positive whole number, not {!r}".format(name, value))
    return dict(DFT_KEEP_ALIVE, **dict(settings))


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
        if hasattr(socket, level) and hasattr(socket, name):
            try:
                sock.setsockopt(getattr(socket, level), getattr(socket, name), value)
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


def address_of_url(url):
    # type: (str) -> _t.Tuple[str, int]
    """Return the host and the port of a ``tcp://host:port`` URL.

    Raises:
        ValueError: another scheme, no host, no port, or one out of range
    """
    parts = urlsplit(url)
    if parts.scheme != "tcp":
        raise ValueError("unsupported scheme {!r} in {!r}: use tcp://host:port".format(parts.scheme, url))
    if not parts.hostname or parts.port is None:
        raise ValueError("{!r} has no {}: use tcp://host:port".format(url, "port" if parts.hostname else "host"))
    return parts.hostname, checked_port(parts.port)
