"""The flavour for Python 2.7: under this Python, and under a real 2.7 if there is one."""

from __future__ import annotations

import gc
import os
import shutil
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
    """Return a Python 2.7: the one on PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [shutil.which("python2.7"), *map(str, sorted(pyenv.glob("versions/2.7*/bin/python")))]
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

    def is_untraced(self, sock: Sock) -> bool:
        link = sock.raw._link
        return bool(link.send == link.sock.send and link.recv == link.sock.recv)

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


class Py2On27(Py2):
    """``sockio.py2`` under a real Python 2.7: an agent process does the calls (see ``tests.agent``)."""

    variant = "py2-2.7"
    warns = False

    def begin(self) -> None:
        assert PYTHON27 is not None
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115
        self._agent = subprocess.Popen(
            [PYTHON27, "-B", str(ROOT / "tests" / "agent.py")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
        )
        self._end = agent.End("t", self._agent.stdout, self._agent.stdin)
        threading.Thread(target=self._end.run, daemon=True, name="agent").start()
        self.module = RemoteModule(self.imported("sockio.py2"))  # type: ignore[assignment]

    def end(self) -> None:
        assert self._agent.stdin is not None
        assert self._agent.stdout is not None
        self._agent.stdin.close()
        self._agent.wait(BOUND)
        self._agent.stdout.close()
        self._complaints.seek(0)
        complaints = self._complaints.read().decode()
        self._complaints.close()
        assert complaints == ""

    def tcp(self, host: str, port: int, **options: Any) -> Sock:
        return super().tcp(host.encode(), port, **options)  # type: ignore[arg-type]  # str, over there

    def imported(self, name: str) -> Any:
        return self._end.ask("import", name)

    def allocated(self) -> int:
        gc.collect()
        self._end.ask("collect")  # which brings what was collected here
        count: int = self._end.ask("collect")
        return count
