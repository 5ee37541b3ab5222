"""The flavour for Python 2.7: under this Python, and under a real 2.7 if there is one."""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import sockio.py2
from tests import agent
from tests.flavours.facade import BOUND, Sock
from tests.flavours.sio import Sio

ROOT = Path(__file__).parents[2]


def find_python27() -> str | None:
    """Return a Python 2.7: one of pyenv's, or the one on PATH, which may be a slow shim."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [*map(str, sorted(pyenv.glob("versions/2.7*/bin/python"))), shutil.which("python2.7")]
    for python in filter(None, found):
        check = [python, "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"]
        if subprocess.run(check, capture_output=True, check=False).returncode == 0:
            return python
    return None


PYTHON27 = find_python27()


class Py2(Sio):
    """``sockio.py2``, under this Python."""

    name = "py2"
    variant = "py2-3"
    module = sockio.py2
    callbacks = ("on_connection_made",)

    def tcp(self, host: str, port: int, **options: Any) -> Sock:
        # The tests expect the other flavours' default.
        return super().tcp(host, port, **{"timeout": None, **options})

    def callers(self, sock: Sock) -> int:
        return len(sock.raw._queue)

    def returned(self, value: Any) -> Any:
        # What a call returns answers result(), with what the other flavours return (contract P2).
        return value.result() if hasattr(value, "result") else value


class RemoteModule:
    """``sockio.py2`` as Python 2.7 has it; its exceptions are this Python's."""

    __name__ = "sockio.py2"

    def __init__(self, remote: Any) -> None:
        self._remote = remote

    def __getattr__(self, name: str) -> Any:
        if name in ("TCP", "LineStream", "BlockStream", "socket_for_url"):
            return getattr(self._remote, name)
        return getattr(sockio.py2, name)


class Agents:
    """A process of Python 2.7 that forks when an agent is wanted."""

    def __init__(self, python: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(os.path.join(self._folder.name, "agents"))
        self._listening.listen()
        self._listening.settimeout(BOUND)
        self._process = subprocess.Popen(
            [python, "-B", str(ROOT / "tests" / "agent.py")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
        )
        atexit.register(self.close)

    def fork(self, complaints: str) -> socket.socket:
        """Return the connection to a new agent, which complains in that file."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([self._listening.getsockname(), complaints]).encode() + b"\n")
        self._process.stdin.flush()
        return self._listening.accept()[0]

    def close(self) -> None:
        """Fork no more."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(BOUND)
        self._listening.close()
        self._folder.cleanup()


agents = functools.cache(Agents)


class Py2On27(Py2):
    """``sockio.py2`` under a real Python 2.7: an agent process does the calls (see ``tests.agent``)."""

    variant = "py2-2.7"
    warns = False

    def begin(self) -> None:
        assert PYTHON27 is not None
        self._complaints = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self._connection = agents(PYTHON27).fork(self._complaints.name)
        self._files = agent.files(self._connection)
        self._end = agent.End("t", *self._files)
        self._thread = threading.Thread(target=self._end.run, daemon=True, name="agent")
        self._thread.start()
        self.module = RemoteModule(self.imported("sockio.py2"))  # type: ignore[assignment]

    def end(self) -> None:
        self._connection.shutdown(socket.SHUT_WR)
        self._thread.join(BOUND)
        assert not self._thread.is_alive()
        for each in (*self._files, self._connection):
            each.close()
        complaints = self._complaints.read().decode()
        self._complaints.close()
        assert complaints == ""

    def tcp(self, host: str, port: int, **options: Any) -> Sock:
        return super().tcp(host.encode(), port, **options)  # type: ignore[arg-type]  # str, over there

    def imported(self, name: str) -> Any:
        return self._end.ask("import", name)

    def reconnect(self, sock: Sock, times: int, closing: bool, ended: threading.Semaphore) -> None:
        self._end.ask("reconnect", sock.raw, times, closing)  # a message for each call would take most of the time

    def allocated(self) -> int:
        gc.collect()
        self._end.ask("collect")  # which brings what was collected here
        count: int = self._end.ask("collect")
        return count
