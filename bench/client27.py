"""Request-reply on Python 2.7, where the other clients can't run: ``python2.7 client27.py VARIANT PORT MILLISECONDS``.

Prints the lower quartile of the laps, in microseconds a call. Which sockio the import finds, the caller says.
"""

import socket
import sys
import time

try:
    import typing as _t  # noqa: F401  (names in the type comments)
except ImportError:  # Python 2.7
    pass

HOST = "127.0.0.1"
REQUEST = b"*IDN?\n"
CALLS = 25
clock = getattr(time, "perf_counter", time.time)


def raw(port):
    # type: (int) -> _t.Callable[[], object]
    sock = socket.create_connection((HOST, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call():
        # type: () -> object
        sock.send(REQUEST)
        return sock.recv(4096)

    return call


def old(port):
    # type: (int) -> _t.Callable[[], object]
    from sockio.py2 import TCP

    sock = TCP(HOST, port, timeout=1)
    return lambda: sock.write_readline(REQUEST)


def ours(port):
    # type: (int) -> _t.Callable[[], object]
    from sockio.py2 import TCP

    sock = TCP(HOST, port)
    return lambda: sock.write_readline(REQUEST, timeout=1)


def measure(call, seconds):
    # type: (_t.Callable[[], object], float) -> float
    laps = []  # type: _t.List[float]
    end = clock() + seconds
    start = 0.0
    while start < end:
        start = clock()
        for _ in range(CALLS):
            call()
        laps.append(clock() - start)
    return sorted(laps)[len(laps) // 4] / CALLS * 1e6


if __name__ == "__main__":
    variant, port, milliseconds = sys.argv[1:]
    figure = measure({"raw": raw, "old": old, "ours": ours}[variant](int(port)), int(milliseconds) / 1000.0)
    sys.stdout.write("{!r}\n".format(figure))
