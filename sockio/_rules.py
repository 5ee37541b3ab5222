"""The rules of a call: may it go on on this link, what does it get, what becomes of the link after its failure.

Nothing here waits. The core (``_core``) and the object for Python 2.7 (``py2``) arrange the waiting around these
rules, each in its own words; so what a call promises is said once. This module runs on Python 2.7 as well: hence its
type comments.
"""

import errno
import random
import socket
import sys
import warnings
from abc import abstractmethod

from ._buffer import anything, to_end
from .common import (
    AGES,
    ConnectionClosedError,
    ConnectionEOFError,
    ConnectionLostError,
    ConnectionTimeoutError,
    LinkError,
    checked_separator,
    log,
    seconds,
)

if sys.version_info >= (3,):
    import typing as _t

    from ._buffer import Take  # noqa: F401  (in the type comments, like the next)
    from ._wire import Wire  # noqa: F401
    from .common import Retry

TYPE_CHECKING = False
_INFINITE = float("inf")


class Unset(object):
    """The type of ``UNSET``."""

    def __repr__(self):
        # type: () -> str
        return "UNSET"


#: The default of ``timeout=``: the object's own ``timeout`` holds.
UNSET = Unset()  # type: Unset

if sys.version_info >= (3,):
    #: Seconds; None: no limit.
    Timeout = _t.Union[float, Unset, None]


class Expired(Exception):
    """A deadline passed; the call turns it into a ``ConnectionTimeoutError`` that says what for."""


def earliest(*deadlines):
    # type: (_t.Optional[float]) -> _t.Optional[float]
    """Return the first of the deadlines to pass; ``None`` never does."""
    first = None
    for deadline in deadlines:
        if deadline is not None and (first is None or deadline < first):
            first = deadline
    return first


def given_up(exc, name):
    # type: (BaseException, str) -> Exception
    """Return the cause of the loss of a link that a call drops because of ``exc``."""
    if isinstance(exc, Exception) and not isinstance(exc, Expired):
        return exc
    reason = "its time was up" if isinstance(exc, Expired) else type(exc).__name__
    return ConnectionClosedError("{} was given up in the middle: {}".format(name, reason))


class Rules(object):
    """A TCP object, but for all that waits."""

    if TYPE_CHECKING:  # what the objects set; as defaults of the class they would cost each call a look
        host = ""  # type: str
        port = 0  # type: int
        eol = b""  # type: bytes
        timeout = None  # type: _t.Optional[float]
        auto_reconnect = True  # type: bool
        buffer_size = 0  # type: int
        stale_input = ""  # type: str
        retry = Retry()  # type: Retry
        _closings = 0  # type: int
        _link = None  # type: _t.Any  # the current link
        _clock = None  # type: _t.Any  # its clock, which deadlines are told by

    @abstractmethod
    def _visible_link(self):
        # type: () -> _t.Optional[Wire]
        """Return the link that the caller's calls would go to."""

    @staticmethod
    def _random():
        # type: () -> float
        return random.random()

    # What can be asked at any time.

    def connected(self):
        # type: () -> bool
        """Whether there is a link whose end this host has not received; asks the operating system."""
        link = self._visible_link()
        return link is not None and not link.notice()

    @property
    def is_open(self):
        # type: () -> bool
        """Whether there is a link whose end this host has not received: ``connected()``."""
        return self.connected()

    def at_eof(self):
        # type: () -> bool
        """Whether the link has ended and nothing of what it brought is left to read."""
        link = self._visible_link()
        return link is not None and link.notice() and not link.waiting()

    def in_waiting(self):
        # type: () -> int
        """Return how many bytes can be read without waiting."""
        link = self._visible_link()
        return 0 if link is None else link.waiting()

    @property
    def _peer(self):
        # type: () -> str
        return "{}:{}".format(self.host, self.port)

    def __repr__(self):
        # type: () -> str
        link = self._link
        state = "closed" if link is None else "ended" if link.ended else "connected"
        return "<{}.{} {} {}>".format(type(self).__module__, type(self).__name__, self._peer, state)

    def __del__(self):
        # type: () -> None
        link = vars(self).get("_link")  # not when an argument was refused
        if link is not None:
            forgotten, name = not link.ended, repr(self)
            link.hang_up()
            if forgotten:
                warnings.warn("unclosed " + name, ResourceWarning, stacklevel=2, source=self)

    if sys.version_info < (3,):
        del __del__  # 2.7 closes a dropped socket in silence

    # Before a request goes out.

    def _deadline(self, timeout):
        # type: (_t.Any) -> _t.Optional[float]
        """When a call with that timeout must be over; 0.0 if it mustn't wait at all."""
        if timeout is UNSET:
            timeout = self.timeout
        if timeout is None:
            return None
        try:
            if 0 < timeout < AGES:
                return self._clock() + timeout  # type: ignore[no-any-return]
        except TypeError:
            pass
        number = float(seconds(timeout))
        return 0.0 if number <= 0 else None if number == _INFINITE else self._clock() + number

    def _eol(self, eol):
        # type: (_t.Optional[bytes]) -> bytes
        if eol is None:
            eol = self.eol
        return eol if type(eol) is bytes and eol else checked_separator(eol)

    def _check_open(self, closings):
        # type: (int) -> None
        """Raise if the object was closed since ``closings`` was noted."""
        if self._closings != closings:
            raise ConnectionClosedError("the object was closed meanwhile: check who called close()")

    def _already_open(self):
        # type: () -> ConnectionClosedError
        return ConnectionClosedError("the object is already open: close() it first, or just use it")

    def _not_open(self):
        # type: () -> ConnectionClosedError
        return ConnectionClosedError("the object is not open: call open()")

    def _fits(self, link, free, sends, torn, eol):
        # type: (Wire, bool, bool, bool, _t.Optional[bytes]) -> bool
        """Whether the call whose turn has come may go on on this link; False: it needs another one.

        Args:
            link: the one that there is
            free: the call isn't bound to this link
            sends: whether the call sends
            torn: whether the call before was torn off in the middle of what this one would go on with
            eol: what ends a whole message that may be discarded; None: nothing may

        Raises:
            LinkError: it can't have another one
        """
        if torn and not link.dropped:
            self._drop(link, ConnectionClosedError("a call was torn off in the middle"))
        if link.closed or (link.void and not free):
            raise link.error()
        if free and link is not self._link:
            return False  # it was lost while the call waited
        if not sends:
            return True
        if not link.notice() and eol is not None:
            self._look(link, eol)
        if not link.ended:
            return True
        if not free:
            raise link.error()
        if not self.auto_reconnect:
            error = link.error()
            self._drop(link, None)
            raise error
        link.retire()
        return False

    def _look(self, link, eol):
        # type: (Wire, bytes) -> None
        """Look once at what arrived before the request goes out: it can't be the reply (contract Q4)."""
        buffer = link.buffer
        while len(buffer) <= self.buffer_size and link.receive():
            pass
        if link.ended or not len(buffer) or self.stale_input == "keep":
            return
        stale = buffer.take_all()
        if stale.endswith(eol) and len(stale) <= self.buffer_size:
            log.warning("%s: discarded %d bytes that nobody had asked for: %.80r", self._peer, len(stale), stale)
        else:
            log.warning("%s: %d bytes of an unfinished message are in the way: %.80r", self._peer, len(stale), stale)
            text = "an unfinished message was left over (on_connection_made can read what comes first on a link)"
            self._drop(link, ConnectionClosedError(text))

    # After it.

    def _unmet(self, link, take):
        # type: (Wire, Take) -> _t.Optional[bytes]
        """Return what a call gets whose reply isn't complete, and that has no more to wait for.

        Raises:
            LinkError: the link has ended
        """
        buffer = link.buffer
        if take is anything:
            while len(buffer) <= self.buffer_size and link.receive():
                pass
            if len(buffer) or not link.drained:
                return buffer.take_all()
        clean = link.cause is None and not link.closed
        partial = buffer.take_all()
        if take is to_end and partial and clean:
            self._drop(link, None)
            return partial
        raise link.error(partial)

    def _failed(self, exc, name, link, request, wanted):
        # type: (BaseException, str, _t.Optional[Wire], _t.Optional[bytes], _t.Any) -> BaseException
        """Return what a failed call raises, after deciding what becomes of the link.

        A link on which a request was begun is dropped whatever the failure (contract A2), and so is one that has ended;
        a plain read that gives up leaves it alone (A7).
        """
        sent = link is not None and request is not None and link.writing and link.sent
        where = "{} on {}".format(name, self._peer)
        error = exc
        if link is not None and isinstance(exc, socket.error) and not isinstance(exc, LinkError):
            link.drained = True
            if exc.errno == errno.EPIPE:
                link.notice()  # this one only says that it is broken, not why
            link.end(exc)
            error = link.error()
        elif isinstance(exc, Expired):
            error = ConnectionTimeoutError("its time is up: raise timeout, or check that the instrument answers")
        elif isinstance(exc, socket.error) and not isinstance(exc, LinkError):  # from the connection attempt
            error = type(exc)(exc.errno, "{}: {}".format(where, exc.strerror))
            error.request_sent = False  # type: ignore[attr-defined]
        if isinstance(error, LinkError):
            if type(error) is ConnectionEOFError and name in ("readexactly", "readuntil", "BlockStream"):
                error = self._incomplete(error, wanted if isinstance(wanted, int) else None)
            error.request_sent = sent
            error.args = ("{}: {}{}".format(where, error, self._advice(error)),)
            if error is not exc and getattr(error, "__cause__", None) is None:
                error.__cause__ = exc if isinstance(exc, socket.error) else getattr(exc, "__cause__", None)
        if link is not None and (
            (request is not None and link.writing)
            or (isinstance(error, LinkError) and not isinstance(error, ConnectionTimeoutError))
        ):
            self._drop(link, given_up(error, name))
        return error

    def _incomplete(self, error, expected):
        # type: (ConnectionEOFError, _t.Optional[int]) -> ConnectionEOFError
        """Return the error for an exact read that the end of the link cut off."""
        return error

    def _advice(self, error):
        # type: (LinkError) -> str
        """Return the end of a message: what there was of the reply, and what to do."""
        found = " after {!r} (see .partial)".format(error.partial[:60]) if error.partial else ""
        if isinstance(error, (ConnectionEOFError, ConnectionLostError)):
            return found + (
                ": the next call connects again" if self.auto_reconnect else ": call open() to connect again"
            )
        return found

    def _may_resend(self, error, failures):
        # type: (BaseException, int) -> bool
        """Whether an idempotent request that met this error may go out on a new link (contract R4)."""
        lost = isinstance(error, (ConnectionEOFError, ConnectionLostError))
        return lost and self.auto_reconnect and failures <= (self.retry.attempts or failures)

    def _connect_error(self, exc, previous):
        # type: (_t.Any, _t.Any) -> OSError
        """Return the error of an attempt to connect; the one before is the cause of a timeout."""
        if isinstance(exc, LinkError):
            return exc
        if isinstance(exc, Expired):
            error = ConnectionTimeoutError(
                "no connection in time: check the address and that the instrument is on, or raise the timeout"
            )
            error.__cause__ = previous
            return error
        text = "{}: check the address and that the instrument is on".format(exc.strerror or exc)
        return type(exc)(exc.errno, text)  # type: ignore[no-any-return]

    def _drop(self, link, cause):
        # type: (Wire, _t.Optional[BaseException]) -> None
        """End a link from this side; ``None``: for no other reason than ``close()``, or its own end."""
        if self._link is link:
            self._link = None  # first of all: as soon as the rest shows, another thread may make the next link
        link.void = link.dropped = link.drained = True
        link.end(cause)
        link.buffer.forget_lines()
        link.hang_up()
