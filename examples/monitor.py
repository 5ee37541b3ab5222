"""Ask an instrument the same question once a second, and carry on whatever happens to it.

Start ``python -m simulator`` in one terminal and this in another; then stop the simulator, wait, and start it again::

    python examples/monitor.py tcp://127.0.0.1:5025 READ?
"""

from __future__ import annotations

import argparse
import logging
import time
from contextlib import closing

from sockio.common import Retry
from sockio.sio import socket_for_url


def lost(reason: BaseException | None) -> None:
    logging.info("connection lost: %s", reason or "closed")


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask an instrument the same question once a second.")
    parser.add_argument("url", help="tcp://host:port")
    parser.add_argument("question", help="for example READ?")
    parser.add_argument("--count", type=int, help="stop after so many answers")
    arguments = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    instrument = socket_for_url(
        arguments.url,
        timeout=10,
        retry=Retry(attempts=None, delay=0.2, max_delay=2),
        on_connection_made=lambda: logging.info("connected"),
        on_connection_lost=lost,
    )
    answers = 0
    with closing(instrument):  # and not `with instrument`, which wants a connection before the first question
        while answers != arguments.count:
            try:
                # Reading twice does no harm, so a request that a restart cut short may be sent again.
                reply = instrument.write_readline(arguments.question.encode() + b"\n", idempotent=True)
            except OSError as error:
                logging.warning("no answer: %s", error)
            else:
                logging.info("%s", reply.decode().rstrip())
                answers += 1
            time.sleep(1)


if __name__ == "__main__":
    main()
