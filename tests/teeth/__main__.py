"""``python -m tests.teeth [CLAUSE ...]``: does every breakage make a test of its clause fail?

Each is applied to a copy of the checkout, where the contract tests of that clause run. Prints a line for each; the exit
status is 1 if one of them went unnoticed. A test that fails without any breakage proves nothing: those are found first,
and left out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.teeth.catalogue import ROOT, TEETH, Tooth

COPIED = ("sockio", "simulator", "tests", "docs", "pyproject.toml", "README.md", "LICENSE")
JOBS = 2
#: Seconds after which a run with a breakage is taken for one that fails, as it hangs.
LIMIT = 180
#: Seconds that a step of a test may take with a breakage (else it is more generous).
BOUND = 15


@contextmanager
def copied(root: Path) -> Iterator[Path]:
    """Make a copy of what the tests need of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            if (root / name).is_dir():
                shutil.copytree(root / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(root / name, folder)
        yield Path(folder)


def run_tests(copy: Path, clauses: set[str], *options: str, **environment: str) -> tuple[int | None, str]:
    """Run the tests of these clauses in a copy; return pytest's exit status (``None``: it hangs) and what it said."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/contract",
        "tests/packaging",
        "-q",
        "--tb=no",
        "--assert=plain",
        "-p",
        "no:cacheprovider",
        *options,
    ]
    command += [f"--clause={clause}" for clause in clauses]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as output,
        subprocess.Popen(
            command, cwd=copy, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        ) as run,
    ):
        try:
            status = run.wait(LIMIT if "-x" in options else None)
        except subprocess.TimeoutExpired:
            run.kill()
            status = None
        with suppress(AttributeError, ProcessLookupError):  # what the tests had started and left; not on Windows
            os.killpg(run.pid, signal.SIGKILL)
        output.seek(0)
        return status, output.read()


def failures(output: str) -> list[str]:
    """Return the tests that failed, by what pytest said; a file that can't even be imported is none."""
    return re.findall(r"^(?:FAILED|ERROR) (\S+?::.+?)(?: - .*)?$", output, re.MULTILINE)


def bite(whole: Path, left_out: list[str], tooth: Tooth) -> tuple[bool, str]:
    """Return whether a test of the clause notices the breakage of a whole checkout, and how."""
    with copied(whole) as copy:
        try:
            tooth.break_in(copy)
        except ValueError as error:
            return False, str(error)
        deselected = [f"--deselect={name}" for name in left_out]
        status, output = run_tests(copy, {tooth.clause}, "-x", *deselected, SOCKIO_BOUND=str(BOUND))
    noticed = failures(output)
    if noticed or status is None:
        return True, "; ".join(noticed) or f"hangs for {LIMIT} s"
    return False, (output.strip().splitlines() or [f"exit status {status}"])[-1]


def main(clauses: set[str]) -> int:
    """Try the teeth of these clauses (default: all), and return the exit status."""
    unknown = clauses - {tooth.clause for tooth in TEETH}
    if unknown:
        print(f"no tooth for {', '.join(sorted(unknown))}: see tests/teeth/catalogue.txt", file=sys.stderr)
        return 2
    teeth = [tooth for tooth in TEETH if not clauses or tooth.clause in clauses]
    blunt: list[Tooth] = []
    with copied(ROOT) as whole, ThreadPoolExecutor(JOBS) as pool:
        status, output = run_tests(whole, {tooth.clause for tooth in teeth}, f"--numprocesses={3 * JOBS}")
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            print(f"the tests can't be run, without any breakage:\n{output}", file=sys.stderr)
            return 2
        left_out = failures(output)
        for name in left_out:
            print(f"left out, as it fails without a breakage: {name}", flush=True)
        for tooth, (noticed, how) in zip(teeth, pool.map(partial(bite, whole, left_out), teeth), strict=True):
            print(f"{'bites' if noticed else 'BLUNT'}  {tooth}  [{how}]", flush=True)
            if not noticed:
                blunt.append(tooth)
    print(f"{len(teeth) - len(blunt)} of {len(teeth)} teeth bite")
    for tooth in blunt:
        print(f"no test of {tooth.clause} notices: {tooth.what}")
    return 1 if blunt else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.teeth",
        description="Break the checkout on purpose, in copies, and see whether the tests of the clause notice.",
        epilog="The exit status is 1 if a breakage went unnoticed.",
    )
    parser.add_argument("clauses", nargs="*", metavar="CLAUSE", help="whose breakages to try (default: all)")
    sys.exit(main(set(parser.parse_args().clauses)))
