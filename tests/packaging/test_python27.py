"""The wheel on a real Python 2.7 (chapter P of the contract)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from simulator import Instrument
from tests.clauses import clause, flavours
from tests.flavours import PYTHON27

pytestmark = [
    flavours("py2"),
    pytest.mark.skipif(PYTHON27 is None, reason="no Python 2.7 here (neither on PATH nor in pyenv)"),
]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what 2.7's own pip made of the wheel, and pytest 4.6."""
    folder = tmp_path_factory.mktemp("python2.7")
    run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", folder, wheel, "pytest==4.6.*")
    return folder


def run(*arguments: object, path: Path | None = None) -> str:
    """Return what Python 2.7 prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [str(PYTHON27), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@clause("P1")
def test_the_installed_wheel_talks_to_an_instrument(installed: Path, instrument: Instrument) -> None:
    program = """
import sys
from sockio.py2 import TCP
with TCP(sys.argv[1], int(sys.argv[2])) as sock:
    sys.stdout.write(sock.write_readline(b"*IDN?\\n"))
import sockio
sock = sockio.socket_for_url("tcp://%s:%s" % tuple(sys.argv[1:]), concurrency="py2")
sys.stdout.write(sock.write_readline(b"*OPC?\\n"))
"""
    reply = run("-c", program, instrument.host, instrument.port, path=installed)
    assert reply == "SOCKIO,DMM6500-SIM,0,1.0\n1\n"


@clause("P1")
def test_importing_it_imports_nothing_of_python_3(installed: Path) -> None:
    program = """
import sys
from sockio.py2 import TCP
print(" ".join(sorted(name for name in sys.modules if name.startswith("sockio") and sys.modules[name])))
"""
    modules = run("-c", program, path=installed).split()
    assert modules == [
        "sockio",
        *(f"sockio.{name}" for name in ("_buffer", "_race", "_rules", "_wire", "common", "py2")),
    ]


@clause("P1")
def test_what_2_7_lacks_can_be_caught_by_the_names_of_0_15(installed: Path) -> None:
    program = """
from sockio.py2 import TCP, ConnectionEOFError, ConnectionError, ConnectionResetError
from sockio.common import ConnectionLostError
assert issubclass(ConnectionEOFError, ConnectionError) and issubclass(ConnectionLostError, ConnectionResetError)
try:
    TCP("127.0.0.1", 1, auto_reconnect=False).write(b"x")
except ConnectionError as exc:
    print(exc)
"""
    assert "call open()" in run("-c", program, path=installed)


@clause("P3")
def test_pytest_4_6_starts_with_the_wheel_installed(installed: Path) -> None:
    (installed / "test_starts.py").write_text("def test_starts(): import sockio.py2, simulator\n", encoding="utf-8")
    assert "1 passed" in run("-m", "pytest", "-q", "test_starts.py", path=installed)
