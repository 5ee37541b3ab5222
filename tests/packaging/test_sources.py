"""Rules that every source file keeps."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import sockio

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for package in ("sockio", "simulator") for path in (ROOT / package).rglob("*.py"))
PRAGMA = re.compile(r"# pragma: no (cover|branch)(?P<reason>.*)")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_coverage_leaves_out_says_where_it_runs(path: Path) -> None:
    unexplained = [
        f"{path.relative_to(ROOT)}:{number}: write `# pragma: no cover - <where it runs>`"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if (found := PRAGMA.search(line)) and not re.match(r" - \w", found["reason"])
    ]
    assert unexplained == []


@pytest.mark.parametrize("module", sorted(set(sockio._FLAVOURS.values())))
def test_every_method_says_what_its_arguments_are_and_what_it_raises(module: str) -> None:
    tcp = pytest.importorskip(f"sockio.{module}", exc_type=ImportError).TCP
    for name, method in inspect.getmembers(tcp, inspect.isfunction):
        if name.startswith("_"):
            continue
        text = inspect.getdoc(method) or ""
        assert text, name
        for argument in list(inspect.signature(method).parameters)[1:]:
            assert re.search(rf"Args:\n(.*\n)*    {argument}: ", text), (name, argument)
            assert "\nRaises:\n" in text, name
