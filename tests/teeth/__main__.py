"""``python -m tests.teeth [CLAUSE ...]``: does every breakage make a test of its clause fail?

Each is applied to a copy of the checkout, where the contract tests of that clause run. Prints a line for each; the exit
status is 1 if one of them went unnoticed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.teeth.catalogue import ROOT, TEETH, Tooth

COPIED = ("sockio", "simulator", "tests", "docs", "pyproject.toml")
JOBS = 2
#: Seconds after which a run that hangs is taken for one that fails.
LIMIT = 180
#: Seconds that a step of a test may take here (in the usual run it is more generous).
BOUND = 15
TESTS_FAILED = 1


def bite(tooth: Tooth) -> tuple[bool, str]:
    """Return whether a test of the clause noticed the breakage, and what pytest said in short."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / name)
        try:
            tooth.break_in(copy)
        except ValueError as error:
            return False, str(error)
        command = [sys.executable, "-m", "pytest", "tests/contract", "--clause", tooth.clause, "-x", "-q", "--tb=no"]
        environment = {**os.environ, "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": "1", "SOCKIO_BOUND": str(BOUND)}
        with subprocess.Popen(
            [*command, "-p", "no:cacheprovider"], cwd=copy, env=environment, stdout=subprocess.PIPE, text=True
        ) as run:
            try:
                output, _ = run.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                run.kill()
                return True, f"hangs for {LIMIT} s"
    noticed = re.search(r"^(?:FAILED|ERROR) \S+::(\S+)", output, re.MULTILINE)
    if run.returncode == TESTS_FAILED:
        return True, noticed[1] if noticed else ""
    return False, output.strip().splitlines()[-1] if output.strip() else f"exit status {run.returncode}"


def main(clauses: list[str]) -> int:
    """Try the teeth of these clauses (default: all), and return the exit status."""
    unknown = set(clauses) - {tooth.clause for tooth in TEETH}
    if unknown:
        print(f"no tooth for {', '.join(sorted(unknown))}: see tests/teeth/catalogue.py", file=sys.stderr)
        return 2
    teeth = [tooth for tooth in TEETH if not clauses or tooth.clause in clauses]
    blunt: list[Tooth] = []
    with ThreadPoolExecutor(JOBS) as pool:
        for tooth, (noticed, how) in zip(teeth, pool.map(bite, teeth), strict=True):
            print(f"{'bites' if noticed else 'BLUNT'}  {tooth}  [{how}]", flush=True)
            if not noticed:
                blunt.append(tooth)
    print(f"{len(teeth) - len(blunt)} of {len(teeth)} teeth bite")
    for tooth in blunt:
        print(f"no test of {tooth.clause} notices: {tooth.what}")
    return 1 if blunt else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
