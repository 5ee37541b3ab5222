"""Runs the groups: the server, the packages to compare with, a fresh process for every figure, and the statistics."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.group import OURS, Goal, Group, Program

HERE = Path(__file__).parent
CHECKOUT = HERE.parent
CACHE = CHECKOUT / ".bench"
CLIENT = "import sys; from bench.client import main; main(*sys.argv[1:])"
CLIENT_TIME_LIMIT = 120
FILES_WANTED = 4096


def share_one_core() -> int | None:
    """Pin this process, and with it all that it starts, to one core; give its number (None where that can't be done).

    Client and server then take turns on it, so that nothing depends on how the kernel places and wakes them.
    """
    if sys.platform != "linux":
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def raise_file_limit() -> None:
    """A thousand links, in the server and in a client, are more than some systems allow unasked."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@dataclass(frozen=True)
class Server:
    kind: str
    port: int


@contextlib.contextmanager
def server() -> Generator[Server]:
    """The server process: compiled from `server.c` where there is a C compiler, else `server.py`."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "server")
        compiler = shutil.which("cc")
        build = [compiler or "cc", "-O2", "-pthread", "-o", str(program), str(HERE / "server.c")]
        if compiler and subprocess.run(build, stderr=subprocess.DEVNULL).returncode == 0:
            kind, command = "C, compiled by cc", [str(program)]
        else:
            kind, command = "Python (no working cc)", [sys.executable, str(HERE / "server.py")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin
            assert process.stdout
            port = process.stdout.readline()
            if not port:
                raise RuntimeError(f"the {kind} server did not start; what it says about it is above")
            try:
                yield Server(kind, int(port))
            finally:
                process.stdin.close()


class Packages:
    """What the programs need beyond the standard library, each package in a folder of its own on their import path."""

    def __init__(self, groups: Iterable[Group]) -> None:
        CACHE.mkdir(exist_ok=True)
        self._folders = {OURS: CHECKOUT}
        self._failed: set[str] = set()
        needs = {need for group in groups for program in group.programs for need in program.needs}
        for requirement in sorted(needs - {OURS}):
            self._install(requirement)

    def _install(self, requirement: str) -> None:
        """Fetch a package from the registry, unless an earlier run has done so."""
        folder = CACHE / str(sys.implementation.cache_tag) / requirement
        if not folder.exists():
            print(f"installing {requirement} into {folder.relative_to(CHECKOUT)} ...", file=sys.stderr)
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--retries=1"]
            pip = subprocess.run([*command, f"--target={folder}", requirement], stderr=subprocess.PIPE, text=True)
            if pip.returncode:
                shutil.rmtree(folder, ignore_errors=True)
                print(f"{requirement} could not be installed: {last_line(pip.stderr)}", file=sys.stderr)
                self._failed.add(requirement)
                return
        self._folders[requirement] = folder

    def missing(self, program: Program) -> str | None:
        """Why the program can't run, if it can't."""
        failed = self._failed.intersection(program.needs)
        return f"{' and '.join(sorted(failed))} could not be installed" if failed else None

    def environment(self, program: Program) -> dict[str, str]:
        folders = [*(self._folders[need] for need in program.needs), CHECKOUT]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


class ClientError(Exception):
    """A client process failed; the message is the last line that it left on stderr."""


def run_client(group: Group, program: Program, size: int, port: int, packages: Packages) -> float:
    try:
        client = subprocess.run(
            [sys.executable, "-c", CLIENT, group.name, program.name, str(port), str(size)],
            cwd=CACHE,  # not the checkout: the folder that a process starts in comes first on its import path
            env=packages.environment(program),
            capture_output=True,
            text=True,
            timeout=CLIENT_TIME_LIMIT,
        )
    except subprocess.TimeoutExpired:
        raise ClientError(f"not done after {CLIENT_TIME_LIMIT} s") from None
    if client.returncode:
        raise ClientError(last_line(client.stderr))
    return float(client.stdout)


@dataclass(frozen=True)
class Spread:
    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        deciles = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else list(values)
        return cls(statistics.median(values), deciles[0], deciles[-1])


@dataclass
class Result:
    """The figures of a group, one a program and round; a program that failed has none, but its reason in `failures`."""

    group: Group
    rounds: int
    figures: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    failures: dict[str, str] = field(default_factory=dict[str, str])

    def spread(self, program: Program) -> Spread:
        return Spread.of(self.figures[program.name])

    def ratio(self, program: Program) -> Spread | None:
        """To the baseline of the same round; None if there is no baseline."""
        baseline = self.figures.get(self.group.baseline or "")
        if baseline is None:
            return None
        return Spread.of([figure / base for figure, base in zip(self.figures[program.name], baseline, strict=True)])

    def goal(self, goal: Goal) -> Spread | None:
        """None if one of its programs has no figures."""
        if not set(goal.of) <= self.figures.keys():
            return None
        rounds = zip(*(self.figures[name] for name in goal.of), strict=True)
        return Spread.of([goal.number(dict(zip(goal.of, figures, strict=True))) for figures in rounds])

    def best(self, goal: Goal) -> float:
        """The number that the best figure of each program gives: the one that others on the machine disturb least."""
        pick = min if goal.at_most else max
        return goal.number({name: pick(self.figures[name]) for name in goal.of})


def measure(
    group: Group, size: int, rounds: int, port: int, packages: Packages, progress: Callable[[str], None]
) -> Result:
    """Run every program once a round, every other round in reverse order, so that a drift favours none of them."""
    result = Result(group, rounds)
    result.failures.update({p.name: reason for p in group.programs if (reason := packages.missing(p))})
    for number in range(rounds):
        for program in group.programs[:: -1 if number % 2 else 1]:
            if program.name in result.failures:
                continue
            progress(f"{group.name}: round {number + 1} of {rounds}, {program.name}")
            try:
                figure = run_client(group, program, size, port, packages)
            except ClientError as error:
                result.failures[program.name] = str(error)
                result.figures.pop(program.name, None)
            else:
                result.figures.setdefault(program.name, []).append(figure)
    return result
