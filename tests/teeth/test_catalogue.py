"""The catalogue keeps up with the code and with the contract."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conformance import applicability
from tests.teeth.catalogue import ROOT, TEETH, Tooth


@pytest.mark.parametrize("tooth", TEETH, ids=str)
def test_a_tooth_still_finds_its_text_and_leaves_valid_python(tooth: Tooth, tmp_path: Path) -> None:
    (tmp_path / "sockio").mkdir()
    broken = tmp_path / "sockio" / tooth.file
    shutil.copy(ROOT / "sockio" / tooth.file, broken)
    tooth.break_in(tmp_path)
    compile(broken.read_text(encoding="utf-8"), tooth.file, "exec")


def test_every_clause_that_applies_has_a_tooth() -> None:
    applicable = {clause for clause, cells in applicability().items() if "yes" in " ".join(cells.values())}
    assert {tooth.clause for tooth in TEETH} == applicable


def test_every_tooth_is_read() -> None:
    assert len(TEETH) == (ROOT / "tests/teeth/catalogue.txt").read_text(encoding="utf-8").count("\n==")


def test_a_text_that_is_gone_is_an_error_that_names_the_tooth(tmp_path: Path) -> None:
    (tmp_path / "sockio").mkdir()
    (tmp_path / "sockio" / "aio.py").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="tooth C1 nothing: its text occurs 0 times in aio"):
        Tooth("C1", "aio.py", "nothing", "old", "new").break_in(tmp_path)
