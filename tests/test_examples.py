"""The examples run as they stand, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulator import Instrument

ROOT = Path(__file__).parents[1]


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", f"examples/{name}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.skipif(sys.platform == "win32", reason="./run is a shell script")
def test_the_demo_shows_both_flavours_carrying_on_and_installs_nothing(tmp_path: Path) -> None:
    # Without coverage, which learns nothing from 600,000 lines, and triples their time.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment |= {"PYTHON": sys.executable, "PYTHONWARNINGS": "error", "VENV": str(tmp_path / "venv")}
    environment |= {"PYTHONDEVMODE": "", "PYTHONASYNCIODEBUG": ""}  # asyncio tells of a slow machine
    done = subprocess.run([ROOT / "run", "demo"], env=environment, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert not any(tmp_path.iterdir())
    assert done.stdout.count("now on its link number 2") == 2
    assert done.stdout.count("300,000 lines") == 2


@pytest.mark.skipif(sys.platform == "win32", reason="./run is a shell script")
@pytest.mark.parametrize("python", ["absolute", "relative"])
def test_the_demo_ends_quietly_when_nobody_reads_on(python: str, tmp_path: Path) -> None:
    interpreter = os.path.relpath(sys.executable, tmp_path) if python == "relative" else sys.executable
    command = ["sh", "-c", '"$0" demo | head -1', str(ROOT / "run")]
    environment = {**os.environ, "PYTHON": interpreter}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("sockio ")


def test_the_monitor_outlives_the_loss_of_its_link(instrument: Instrument) -> None:
    instrument.drop_on_accept()
    done = run("monitor.py", instrument.url, "READ?", "--count", "2")
    assert done.stderr.count("connected") == 2
    assert instrument.ledger.count(b"READ?") == 2


def test_an_instrument_of_ones_own_remembers_what_it_was_told() -> None:
    assert "3.300" in run("own_instrument.py").stdout
