"""Objects of another interpreter: what tests use to drive ``sockio.py2`` under a real Python 2.7.

A process forks for each test: what a test did to the one that serves it is gone with it, and none waits for an
interpreter to start.

The test and its agent hold the ends of a pipe. Either can ask the other for something: a line of JSON, with the number
of the thread that asks. A thread that waits for an answer serves what the other end's same thread asks meanwhile: so a
callback runs, nested, on the thread whose call it interrupts, and its calls go back to the very thread they would be
made on. Plain values are copied; any other object is lent, and the other end uses it through a ``Proxy``. An exception
is rebuilt there; when it comes back, it is the original again.

This module runs on both sides, on Python 2.7 and 3.
"""

import base64
import collections
import gc
import itertools
import json
import logging
import os
import pickle
import re
import signal
import socket
import sys
import threading
import time
import weakref
import zlib

import sockio.common

try:
    import typing as _t  # noqa: F401  (names in the type comments)
except ImportError:  # Python 2.7
    pass

if sys.version_info >= (3,):
    import builtins
    from queue import Queue
else:  # Python 2.7
    import __builtin__ as builtins
    from Queue import Queue

TEXT = type(b"".decode())
NUMBERS = (int, type(2**64), float)
#: Attributes that are bytes, where Python 2.7 can't tell them from text.
BYTES = ("eol", "partial", "data")


class End(object):
    """One end of the pipe.

    Args:
        side: a letter for the numbers of this end's threads
        reading, writing: the pipe's files
    """

    def __init__(self, side, reading, writing):
        # type: (_t.Any, _t.Any, _t.Any) -> None
        self._side = side
        self._reading = reading
        self._writing = writing
        self._writer = threading.Lock()
        self._numbers = itertools.count()
        self._queues = {}  # type: _t.Dict[str, _t.Any]
        self._here = threading.local()
        self._lent = {}  # type: _t.Dict[int, _t.List[_t.Any]]  # number: [object, how often]
        self._numbers_of_lent = {}  # type: _t.Dict[int, int]  # id of the object: number
        self._proxies = weakref.WeakValueDictionary()  # type: _t.Any
        self._foreign = {}  # type: _t.Dict[int, _t.Tuple[BaseException, int]]  # id of a rebuilt exception: it, and its number
        self.given_back = collections.deque()  # type: _t.Any

    def ask(self, *what):
        # type: (*_t.Any) -> _t.Any
        """Have the other end do something, and return the result."""
        thread = getattr(self._here, "thread", None)
        if thread is not None:
            return self._ask(thread, what)
        self._here.thread = thread = "{}{}".format(self._side, next(self._numbers))
        self._queues[thread] = Queue()
        try:
            return self._ask(thread, what)
        finally:
            del self._here.thread, self._queues[thread]

    def _ask(self, thread, what):
        # type: (_t.Any, _t.Any) -> _t.Any
        self._send(thread, "ask", what)
        while True:
            kind, content = self._queues[thread].get()
            if kind == "ask":
                self._serve(thread, content)
            elif kind == "answer":
                return self.decode(content)
            else:
                raise self.decode(content)

    def run(self):
        # type: () -> None
        """Receive, until the other end hangs up."""
        for line in iter(self._reading.readline, b""):
            thread, kind, content, given_back = json.loads(line.decode())
            for number, times in given_back:
                self._take_back(number, times)
            if kind == "log":
                self._relay(content)
                continue
            if thread not in self._queues:
                self._queues[thread] = Queue()
                server = threading.Thread(target=self._serve_thread, args=(thread,), name="serves " + thread)
                server.daemon = True
                server.start()
            self._queues[thread].put((kind, content))
        for queue in list(self._queues.values()):
            queue.put(("raise", self._encode(RuntimeError("the other end hung up"))))

    def _serve_thread(self, thread):
        # type: (_t.Any) -> None
        self._here.thread = thread
        self._serve(thread, self._queues[thread].get()[1])
        # The answer is out, and the other end never uses this number again.

    def _serve(self, thread, content):
        # type: (_t.Any, _t.Any) -> None
        top = self._here.__dict__.setdefault("depth", 0) == 0
        self._here.depth += 1
        operation = ""
        try:
            operation, args = content[0], content[1:]
            result = getattr(self, "_do_" + operation)(*[self.decode(arg) for arg in args])
            kind, value = "answer", result
        except BaseException as exc:
            kind, value = "raise", exc
        finally:
            self._here.depth -= 1
        if top and thread[0] != self._side:
            del self._queues[thread]
        self._send(thread, kind, value, text=kind == "answer" and operation in ("get", "repr"))

    def _send(self, thread, kind, value, text=False):
        # type: (_t.Any, _t.Any, _t.Any, _t.Any) -> None
        given_back = []
        while self.given_back:
            given_back.append(self.given_back.popleft())
        if kind == "ask":  # of what a call is given, only a callback's arguments can be text
            content = [value[0]] + [self._encode(item, text=True) for item in value[1:]]
        else:
            content = value if kind == "log" else self._encode(value, text)
        line = json.dumps([thread, kind, content, given_back]).encode("ascii") + b"\n"
        with self._writer:
            self._writing.write(line)
            self._writing.flush()

    # What can be asked for.

    def _do_import(self, name):
        # type: (_t.Any) -> _t.Any
        __import__(name)
        return sys.modules[name]

    def _do_get(self, thing, name):
        # type: (_t.Any, _t.Any) -> _t.Any
        value = getattr(thing, name)
        if name in BYTES and isinstance(value, bytes):
            return memoryview(value)
        return value

    def _do_set(self, thing, name, value):
        # type: (_t.Any, _t.Any, _t.Any) -> _t.Any
        setattr(thing, name, value)

    def _do_del(self, thing, name):
        # type: (_t.Any, _t.Any) -> _t.Any
        delattr(thing, name)

    def _do_call(self, function, args, options):
        # type: (_t.Any, _t.Any, _t.Any) -> _t.Any
        value = function(*args, **{str(name): option for name, option in options.items()})
        if type(value).__module__ == "sockio.py2" and hasattr(value, "result"):
            value = value.result()  # what a call returns answers it (contract P2)
        return value

    def _do_reconnect(self, tcp, times, closing):
        # type: (_t.Any, _t.Any, _t.Any) -> _t.Any
        for _ in range(times):
            assert tcp.write_readline(b"?\n") == b"!\n"
            if closing:
                tcp.close()
            while tcp.connected():
                time.sleep(0)

    def _do_equal(self, one, other):
        # type: (_t.Any, _t.Any) -> _t.Any
        return one == other

    def _do_length(self, thing):
        # type: (_t.Any) -> _t.Any
        return len(thing)

    def _do_repr(self, thing):
        # type: (_t.Any) -> _t.Any
        return repr(thing)

    def _do_iterate(self, thing):
        # type: (_t.Any) -> _t.Any
        return iter(thing)

    def _do_next(self, iterator):
        # type: (_t.Any) -> _t.Any
        return next(iterator)

    def _do_collect(self):
        # type: () -> _t.Any
        gc.collect()
        return len(gc.get_objects())

    # Values on the wire.

    def _encode(self, value, text=False):
        # type: (_t.Any, _t.Any) -> _t.Any
        """Return a value as JSON has it; ``text``: a ``str`` of Python 2.7 is text."""
        if value is None or isinstance(value, (bool, TEXT)):
            return value
        if isinstance(value, NUMBERS):
            return float(value) if isinstance(value, float) else int(value)
        if isinstance(value, str) and (text or sys.version_info >= (3,)):
            return b"".decode() + value
        if isinstance(value, memoryview) and value.format == "B":
            value = value.tobytes()
        if isinstance(value, bytearray):
            value = bytes(value)
        if isinstance(value, bytes):
            return {"b": base64.b64encode(zlib.compress(value, 1)).decode("ascii")}
        if isinstance(value, (list, collections.deque)):
            return {"l": [self._encode(item, text) for item in value]}
        if isinstance(value, tuple):
            return {"u": [self._encode(item, text) for item in value]}
        if isinstance(value, dict):
            return {"d": [[self._encode(key, True), self._encode(item, text)] for key, item in value.items()]}
        if isinstance(value, sockio.common.Retry):
            return {"r": self._encode(vars(value))}
        if isinstance(value, BaseException):
            return {"e": self._described(value)}
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"c": value.__name__}
        if isinstance(value, Proxy):
            return {"y": object.__getattribute__(value, "_number")}
        return {"m": [self._lend(value), callable(value)]}

    def decode(self, value):
        # type: (_t.Any) -> _t.Any
        """Return what JSON stands for."""
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind == "b":
            return zlib.decompress(base64.b64decode(content))
        if kind == "l":
            return [self.decode(item) for item in content]
        if kind == "u":
            return tuple([self.decode(item) for item in content])
        if kind == "d":
            return {self.decode(key): self.decode(item) for key, item in content}
        if kind == "r":
            return sockio.common.Retry(**{str(name): setting for name, setting in self.decode(content).items()})
        if kind == "e":
            return self._rebuilt(content)
        if kind == "c":
            return exception_class(content)
        if kind == "y":
            return self._lent[content][0]
        number, is_callable = content
        proxy = self._proxies.get(number)
        if proxy is None:
            proxy = self._proxies[number] = (CallableProxy if is_callable else Proxy)(self, number)
        proxy._received()
        return proxy

    def _lend(self, thing):
        # type: (_t.Any) -> _t.Any
        number = self._numbers_of_lent.setdefault(id(thing), next(self._numbers))
        self._lent.setdefault(number, [thing, 0])[1] += 1
        return number

    def _take_back(self, number, times):
        # type: (_t.Any, _t.Any) -> None
        lent = self._lent[number]
        lent[1] -= times
        if not lent[1]:
            del self._lent[number], self._numbers_of_lent[id(lent[0])]

    # Exceptions.

    def _described(self, error):
        # type: (_t.Any) -> _t.Any
        if id(error) in self._foreign:
            return {"yours": self._foreign[id(error)][1]}
        described = error
        if isinstance(error, sockio.common.LinkError):
            described = pickle.loads(pickle.dumps(error, 2))  # they can be (contract X1), on every Python
        attributes = {
            name: memoryview(value) if name in BYTES else value
            for name, value in vars(described).items()
            if name != "__cause__"
        }
        return {
            "mine": self._lend(error),
            "class": type(error).__name__,
            "args": self._encode(described.args, text=True),
            "attributes": self._encode(attributes),
            "cause": self._encode(getattr(error, "__cause__", None)),
        }

    def _rebuilt(self, content):
        # type: (_t.Any) -> _t.Any
        if "yours" in content:
            return self._lent[content["yours"]][0]
        kind = exception_class(content["class"])
        args = self.decode(content["args"])
        error = kind(*[str(arg) if isinstance(arg, TEXT) else arg for arg in args])
        vars(error).update({str(name): value for name, value in self.decode(content["attributes"]).items()})
        cause = self.decode(content["cause"])
        if cause is not None:
            error.__cause__ = cause
        self._foreign[id(error)] = (error, content["mine"])
        return error

    # Log records.

    def send_log(self, record):
        # type: (_t.Any) -> None
        """Send a log record: of its arguments, those that are shown by ``%r`` are bytes."""
        args = [
            self._encode(arg if isinstance(arg, NUMBERS + (bytes,)) else str(arg), text=shown != "r")
            for arg, shown in zip(record.args, re.findall(r"%[.\d]*([a-z])", record.msg))
        ]
        error = record.exc_info and self._encode(record.exc_info[1])
        self._send("", "log", [record.name, record.levelno, self._encode(record.msg, True), args, error])

    def _relay(self, content):
        # type: (_t.Any) -> None
        name, level, message, args, error = content
        logger = logging.getLogger(name)
        if logger.isEnabledFor(level):
            exc = self.decode(error)
            info = exc and (type(exc), exc, exc.__traceback__)
            args = tuple(self.decode(arg) for arg in args)
            logger.handle(logger.makeRecord(name, level, "", 0, message, args, info))


class Proxy(object):
    """An object that the other end has lent."""

    def __init__(self, end, number):
        # type: (_t.Any, _t.Any) -> None
        self.__dict__["_end"] = end
        self.__dict__["_number"] = number
        self.__dict__["_times"] = 0

    def _received(self):
        # type: () -> None
        self.__dict__["_times"] += 1

    def __del__(self):
        # type: () -> None
        self._end.given_back.append((self._number, self._times))

    def __getattr__(self, name):
        # type: (_t.Any) -> _t.Any
        return self._end.ask("get", self, name)

    def __setattr__(self, name, value):
        # type: (_t.Any, _t.Any) -> None
        self._end.ask("set", self, name, value)

    def __delattr__(self, name):
        # type: (_t.Any) -> None
        self._end.ask("del", self, name)

    def __eq__(self, other):
        # type: (_t.Any) -> bool
        return self is other or self._end.ask("equal", self, other)

    __hash__ = object.__hash__

    def __len__(self):
        # type: () -> _t.Any
        return self._end.ask("length", self)

    def __bool__(self):
        # type: () -> bool
        return True

    __nonzero__ = __bool__

    def __repr__(self):
        # type: () -> _t.Any
        return self._end.ask("repr", self)

    def __iter__(self):
        # type: () -> _t.Any
        return self._end.ask("iterate", self)

    def __next__(self):
        # type: () -> _t.Any
        return self._end.ask("next", self)

    next = __next__


class CallableProxy(Proxy):
    """A function, method or class that the other end has lent."""

    def __call__(self, *args, **options):
        # type: (*_t.Any, **_t.Any) -> _t.Any
        return self._end.ask("call", self, args, options)


def exception_class(name):
    # type: (_t.Any) -> _t.Any
    """Return the exception class of that name, or what it is called here."""
    if name == "error":  # Python 2.7: socket.error
        return OSError
    if sys.version_info < (3,) and name in ("OSError", "BlockingIOError"):
        return socket.error
    for module in (sockio.common, builtins, socket):
        if hasattr(module, name):
            return getattr(module, name)
    if sys.version_info < (3,) and issubclass(OSError, Exception) and name.endswith("Error"):
        return socket.error
    return RuntimeError


class LogSender(logging.Handler):
    """Sends log records to the other end."""

    def __init__(self, end):
        # type: (_t.Any) -> None
        logging.Handler.__init__(self)
        self._end = end

    def emit(self, record):
        # type: (_t.Any) -> None
        self._end.send_log(record)


def files(connection):
    # type: (_t.Any) -> _t.Any
    """Return what to read from, and to write to: untouched by what tests do to the methods of sockets."""
    return os.fdopen(os.dup(connection.fileno()), "rb"), os.fdopen(os.dup(connection.fileno()), "wb")


def serve(address):
    # type: (_t.Any) -> None
    """Be the other end of who listens there, until they hang up."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    end = End("a", *files(connection))
    logger = logging.getLogger("sockio")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(LogSender(end))
    logger.propagate = False
    end.run()


def main():
    # type: () -> None
    """Fork for each line that comes: an address to serve, and a file for the complaints of who serves it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in iter(sys.stdin.readline, ""):
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            address, complaints = json.loads(line)
            for output in (1, 2):
                os.dup2(os.open(complaints, os.O_WRONLY | os.O_APPEND), output)
            serve(address)
            os._exit(0)


if __name__ == "__main__":
    __import__("sockio.py2")  # once for all that fork
    main()
