"""`python -m simulator`: a multimeter on the network, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

from simulator.server import Instrument


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, and leave the usage to `--help`."""
        self.exit(2, f"{self.prog}: {message}\n")


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 0 (any free one) to 65535")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes.

    Args:
        arguments: of the command line, without the program's name; those of this process by default.

    Returns:
        The exit code: 0, or 2 if the port cannot be used.
    """
    parser = _Parser(prog="python -m simulator", description="Serve a simulated multimeter that speaks SCPI over TCP.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", default=5025, type=_port, help="port, 0 for any free one (default: %(default)s)")
    options = parser.parse_args(arguments)

    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)

    def on_signal(*_: object) -> None:
        stop.set()

    before = [signal.signal(number, on_signal) for number in signals]
    try:
        with Instrument(host=options.host, port=options.port) as dmm:
            print(f"{dmm.name} listening on {dmm.address} ({dmm.resource})", flush=True)
            while not stop.wait(0.5):  # on Windows a signal does not end a wait
                pass
    except OSError as error:
        print(f"{parser.prog}: {error.strerror}", file=sys.stderr)
        return 2
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
    return 0


if __name__ == "__main__":
    sys.exit(main())
