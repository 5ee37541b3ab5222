"""The stand-in for ``server.c`` where there is no C compiler: the same requests, the same answers."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading

IDENTITY = b"ACME,bench,0,1.0\n"
TEXT = (b"x" * 63 + b"\n") * 1024
LONGEST_REQUEST = 256


def send_text(link: socket.socket, size: int) -> None:
    for _ in range(size // len(TEXT)):
        link.sendall(TEXT)
    link.sendall(TEXT[: size % len(TEXT)])


def serve(link: socket.socket) -> None:
    buffer = b""
    with link, contextlib.suppress(ConnectionError):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        while len(buffer) < LONGEST_REQUEST and (data := link.recv(LONGEST_REQUEST)):
            *requests, buffer = (buffer + data).split(b"\n")
            for request in requests:
                if request.startswith(b"*"):
                    link.sendall(IDENTITY)
                elif request[:1] in (b"S", b"E"):
                    send_text(link, int(request[1:]))
                    if request.startswith(b"E"):
                        link.shutdown(socket.SHUT_WR)
                else:
                    return


def accept(listener: socket.socket) -> None:
    while True:
        link, _ = listener.accept()
        threading.Thread(target=serve, args=(link,), daemon=True).start()


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
