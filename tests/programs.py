"""Programs that tests run in processes of their own: started with warnings shown, ended within ``BOUND`` seconds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import sockio
from tests.flavours import BOUND

ROOT = Path(sockio.__file__).parent.parent


def python(
    program: str, *arguments: object, interpreter: str = sys.executable, traced: bool = False, **options: Any
) -> subprocess.Popen[str]:
    """Start a Python program.

    Args:
        program: Its text.
        *arguments: Its ``sys.argv[1:]``.
        interpreter: What runs it.
        traced: Whether coverage, if it measures the tests, measures the program too. It takes time, and locks that an
            interrupt may leave locked.
        **options: Further arguments of ``subprocess.Popen``.
    """
    own = ["-X", "dev"] if interpreter == sys.executable else ["-B"]  # another one may compile into the tree
    command = [interpreter, *own, "-W", "always", "-c", textwrap.dedent(program), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if traced or not name.startswith("COVERAGE_")}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what a program has printed until it ended, and its complaints; one that hangs is killed, and fails.

    That a step took long, which asyncio's debug mode tells, is no complaint: it says something of the machine.
    """
    with process:
        try:
            output, complaints = process.communicate(timeout=BOUND)
            return output, re.sub(r"^Executing <.*> took [0-9.]+ seconds\n", "", complaints, flags=re.MULTILINE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def outcome(process: subprocess.Popen[str]) -> str:
    """Return what a program that ends in order has printed; whatever it complained of fails the test."""
    output, complaints = ended(process)
    assert (process.returncode, complaints) == (0, "")
    return output


def only_resource_warnings(process: subprocess.Popen[str]) -> None:
    """Demand that a program warns of an object left open, and says nothing else of it."""
    output, complaints = ended(process)
    assert process.returncode == 0, complaints
    assert output == ""
    assert re.search(r"ResourceWarning: unclosed <(sockio|tests)\.", complaints), complaints
    assert not re.search("Exception ignored in: .*(Core|sockio)", complaints), complaints
