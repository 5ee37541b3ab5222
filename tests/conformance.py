"""Which clause of the contract is verified in which flavour: the marker, the table, and the holes in it."""

from __future__ import annotations

import functools
import re
from collections import Counter
from pathlib import Path
from typing import Any, cast

import pytest

from tests.flavours import LEFT_OUT

CONTRACT = Path(__file__).parent.parent / "docs" / "contract.md"
TABLE = CONTRACT.with_name("conformance.md")
HEADING = """# Conformance

How many tests verify each clause of the [contract](contract.md) in each flavour; a dash: the clause doesn't concern it.
On Python 3.11, the newest that all flavours run on. `./run conformance` writes this page, and CI compares
it with its own run.
"""


@functools.cache
def applicability() -> dict[str, dict[str, str]]:
    """Return what the contract's own table says: clause -> flavour -> "yes...", "no..." or "later..."."""
    table = CONTRACT.read_text(encoding="utf-8").partition("\n| clause |")
    rows = re.findall(r"^\| *(\w+) *\|(.+)\|$", "".join(table[1:]), re.MULTILINE)
    header, *clauses = [(name, [cell.strip() for cell in cells.split("|")]) for name, cells in rows]
    return {name: dict(zip(header[1], cells, strict=True)) for name, cells in clauses}


class Conformance:
    """Counts the tests that passed, by clause and flavour, and reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._passed: Counter[tuple[str, str]] = Counter()
        self._complaints: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note what each test verifies: the clauses it is marked with, in the flavour it runs in; choose by clause.

        A test needs all of its clauses: where one of them doesn't concern the flavour, it isn't run.
        """
        known = applicability()
        inapplicable: list[pytest.Item] = []
        for item in items:
            clauses = [clause for mark in item.iter_markers("clause") for clause in mark.args]
            unknown = set(clauses) - known.keys()
            if unknown:
                raise pytest.UsageError(f"{item.nodeid}: no such clause in {CONTRACT.name}: {', '.join(unknown)}")
            flavour: Any = getattr(getattr(item, "callspec", None), "params", {}).get("flavour")
            names = [flavour.name] if flavour is not None else [mark.args[0] for mark in item.iter_markers("flavours")]
            # In the report, which is all that comes back from the workers of a parallel run.
            item.user_properties += [("verifies", (clause, name)) for clause in clauses for name in names]
            if flavour is not None and any(known[clause][flavour.name].startswith("no") for clause in clauses):
                inapplicable.append(item)
        self._deselect(items, inapplicable)
        if wanted := set(self._config.getoption("clause")):
            marks = {item: set[str]().union(*(mark.args for mark in item.iter_markers("clause"))) for item in items}
            self._deselect(items, [item for item in items if not wanted & marks[item]])

    def _deselect(self, items: list[pytest.Item], those: list[pytest.Item]) -> None:
        self._config.hook.pytest_deselected(items=those)
        left_out = set(those)
        items[:] = [item for item in items if item not in left_out]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what passed."""
        if report.when == "call" and report.passed:
            for key, value in report.user_properties:
                if key == "verifies":
                    self._passed[cast("tuple[str, str]", tuple(cast("list[str]", value)))] += 1

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fail a full run that leaves a clause unverified where it applies, or differs from the published table."""
        if not self._is_full() or exitstatus != pytest.ExitCode.OK:
            return
        for clause, columns in applicability().items():
            for flavour, applies in columns.items():
                left_out = clause in LEFT_OUT or flavour in LEFT_OUT
                if applies.startswith("yes") and not left_out and not self._passed[clause, flavour]:
                    self._complaints.append(f"no test passed for {clause} in {flavour}")
        table = self._table()
        todo = self._config.getoption("conformance")
        if todo == "write" and not self._complaints:
            TABLE.write_text(f"{HEADING}\n```\n{table}\n```\n", encoding="utf-8")
        elif todo == "check" and f"\n{table}\n" not in TABLE.read_text(encoding="utf-8"):
            self._complaints.append(f"docs/{TABLE.name} is out of date: ./run conformance writes it anew, commit that")
        if self._complaints:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the table."""
        if not self._is_full():
            return
        terminalreporter.section("conformance: tests passed, by clause and flavour")
        terminalreporter.write_line(self._table())
        for what, reason in LEFT_OUT.items():
            terminalreporter.write_line(f"left out: {what}, as {reason}")
        for complaint in self._complaints:
            terminalreporter.write_line(complaint, red=True)

    def _table(self) -> str:
        table = applicability()
        lines = ["clause " + "".join(f"{flavour:>9}" for flavour in next(iter(table.values())))]
        for clause, columns in table.items():
            cells = [self._cell(clause, flavour, applies) for flavour, applies in columns.items()]
            lines.append(f"{clause:6} " + "".join(f"{cell:>9}" for cell in cells))
        return "\n".join(lines)

    def _cell(self, clause: str, flavour: str, applies: str) -> str:
        passed = self._passed[clause, flavour]
        if not passed and flavour in LEFT_OUT:
            return "left out"
        return str(passed) if passed else "HOLE" if applies.startswith("yes") else "-"

    def _is_full(self) -> bool:
        """Whether every test was asked for, and this process has all the reports."""
        option = self._config.option
        selected = (
            option.keyword or option.markexpr or option.clause or self._config.getoption("lf", False) or option.deselect
        )
        given = [argument for argument in self._config.invocation_params.args if not str(argument).startswith("-")]
        paths = [argument for argument in given if Path(str(argument).split("::")[0]).exists()]
        worker = hasattr(self._config, "workerinput")
        return not selected and not paths and not worker and not option.collectonly
