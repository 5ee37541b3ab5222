"""Which flavours the tests run in; what they look like to a test is in ``facade``."""

from __future__ import annotations

import sys

from tests.flavours.aio import Aio, AioEager, AioOnUvloop
from tests.flavours.facade import BOUND, EndOfStream, Flavour, Running, Script, Sock, eventually
from tests.flavours.futures import Futures
from tests.flavours.sio import Sio
from tests.flavours.trio import Trio

__all__ = [
    "BOUND",
    "FLAVOURS",
    "Aio",
    "EndOfStream",
    "Flavour",
    "Futures",
    "Running",
    "Script",
    "Sio",
    "Sock",
    "Trio",
    "eventually",
]

FLAVOURS: list[type[Flavour]] = [Aio, Sio, Futures, Trio]
if sys.platform != "win32":
    FLAVOURS.append(AioOnUvloop)
if sys.version_info >= (3, 12):
    FLAVOURS.append(AioEager)
