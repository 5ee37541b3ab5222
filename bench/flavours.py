"""Request-reply in the other flavours, each beside the least that its own library can do. Sizes as in `reqrep`."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.client import HOST, REQUEST, Laps, on_curio, on_trio, raw_socket, sockio_tcp
from bench.group import CURIO, OLD, OURS, TRIO, Group, Program, multiple, share
from bench.reqrep import CALLS, RAW, microseconds, raw


def futures(package: str, port: int, size: int) -> float:
    sock = sockio_tcp("sio", package)(HOST, port, resolve_futures=False)
    laps = Laps(size)
    for _ in laps:
        for _ in range(CALLS):
            sock.write_readline(REQUEST, timeout=1).result()
    return microseconds(laps)


async def readable(wait: Callable[[Any], Any], port: int, size: int) -> float:
    """The loop of a library: send at once, wait in its own way, receive."""
    with raw_socket(port) as sock:
        sock.setblocking(False)
        laps = Laps(size)
        for _ in laps:
            for _ in range(CALLS):
                sock.send(REQUEST)
                await wait(sock)
                sock.recv(4096)
    return microseconds(laps)


async def on_trio_only(port: int, size: int) -> float:
    return await readable(importlib.import_module("trio").lowlevel.wait_readable, port, size)


async def on_curio_only(port: int, size: int) -> float:
    return await readable(importlib.import_module("curio.traps")._read_wait, port, size)


async def awaited(flavour: str, port: int, size: int) -> float:
    sock = sockio_tcp(flavour, OURS)(HOST, port)
    laps = Laps(size)
    for _ in laps:
        for _ in range(CALLS):
            await sock.write_readline(REQUEST, timeout=1)
    return microseconds(laps)


def on_python27(variant: str, port: int, size: int) -> float:
    """Run `client27.py`, on the `python2.7` of PATH or of pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    found = filter(None, [shutil.which("python2.7"), *map(str, pyenv.glob("2.7*/bin/python2.7"))])
    python = next((path for path in found if subprocess.call([path, "-V"], stderr=subprocess.DEVNULL) == 0), None)
    if python is None:
        raise FileNotFoundError("no python2.7 on PATH nor in pyenv")
    command = [python, str(Path(__file__).with_name("client27.py")), variant, str(port), str(size)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


RAW27 = "raw send/recv on 2.7"
TRIO_LOOP = "trio's wait_readable loop"
CURIO_LOOP = "curio's _read_wait loop"

GROUP = Group(
    name="flavours",
    title="request-reply in the other flavours, timeout=1",
    unit="µs/call",
    programs=(
        Program(RAW, partial(raw, None)),
        Program("ours futures", partial(futures, OURS), (OURS,)),
        Program("0.15 futures", partial(futures, OLD), (OLD,)),
        Program(TRIO_LOOP, on_trio(on_trio_only), (TRIO,)),
        Program("ours trio", on_trio(awaited, "trio"), (OURS, TRIO)),
        Program(CURIO_LOOP, on_curio(on_curio_only), (CURIO,)),
        Program("ours curio", on_curio(awaited, "curio"), (OURS, CURIO)),
        Program(RAW27, partial(on_python27, "raw")),
        Program("ours py2 on 2.7", partial(on_python27, "ours"), (OURS,)),
        Program("0.15 py2 on 2.7", partial(on_python27, "old"), (OLD,)),
    ),
    about_goals="what a call adds, as a share of what 0.15 adds, or as a multiple of what the library's own loop adds",
    goals=(
        share("futures", "ours futures", RAW, "0.15 futures", 1 / 3.2),
        multiple("trio", "ours trio", TRIO_LOOP, RAW, 1.6),
        multiple("curio", "ours curio", CURIO_LOOP, RAW, 2.6),
        share("py2 on 2.7", "ours py2 on 2.7", RAW27, "0.15 py2 on 2.7", 1 / 2.5),
    ),
    baseline=RAW,
    rounds=15,
    size=200,
    quick_size=100,
)
