"""Which flavours the tests run in; what they look like to a test is in ``facade``."""

from __future__ import annotations

import sys

from tests.flavours.aio import Aio, AioEager, AioOnUvloop
from tests.flavours.facade import BOUND, AsyncFlavour, EndOfStream, Flavour, Running, Script, Sock, eventually
from tests.flavours.futures import Futures
from tests.flavours.py2 import PYTHON27, Py2, Py2On27
from tests.flavours.sio import Sio
from tests.flavours.trio import Trio

__all__ = [
    "BOUND",
    "FLAVOURS",
    "LEFT_OUT",
    "PYTHON27",
    "Aio",
    "AsyncFlavour",
    "EndOfStream",
    "Flavour",
    "Futures",
    "Py2",
    "Py2On27",
    "Running",
    "Script",
    "Sio",
    "Sock",
    "Trio",
    "eventually",
]

FLAVOURS: list[type[Flavour]] = [Aio, Sio, Futures, Trio, Py2]
#: Columns and rows of the table of ``docs/contract.md`` that can't be verified here, and why.
LEFT_OUT: dict[str, str] = {}
if PYTHON27 is not None:
    FLAVOURS.append(Py2On27)
else:
    LEFT_OUT.update(dict.fromkeys(("P1", "P3"), "there is no Python 2.7, neither on PATH nor in pyenv"))
if sys.platform != "win32":
    FLAVOURS.append(AioOnUvloop)
if sys.version_info >= (3, 12):
    FLAVOURS.append(AioEager)
    LEFT_OUT["curio"] = "curio works on Python 3.10 and 3.11 only"
else:
    from tests.flavours.curio import Curio

    FLAVOURS.append(Curio)
