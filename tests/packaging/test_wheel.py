"""The wheel that users install: one for Python 2.7 and 3, both packages, no dependency."""

from __future__ import annotations

from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

import sockio

ROOT = Path(__file__).parents[2]


def read(wheel: Path, name: str) -> str:
    with ZipFile(wheel) as archive:
        (path,) = (path for path in archive.namelist() if path.endswith(f".dist-info/{name}"))
        return archive.read(path).decode()


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    return Parser().parsestr(read(wheel, "METADATA"))


def test_one_wheel_serves_python_2_and_3(wheel: Path) -> None:
    assert wheel.name == f"sockio-{sockio.__version__}-py2.py3-none-any.whl"


def test_the_wheel_holds_both_packages_and_their_marker_for_type_checkers(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"sockio", "simulator"}
    assert {"sockio/py.typed", "simulator/py.typed"} <= set(names)


def test_installing_pulls_in_nothing_else(metadata: Message) -> None:
    required = metadata.get_all("Requires-Dist", [])
    assert [requirement for requirement in required if "extra ==" not in requirement] == []


def test_the_wheel_is_refused_by_python_3_9_and_earlier_python_3(metadata: Message) -> None:
    accepted = set(metadata["Requires-Python"].split(","))
    assert accepted == {">=2.7", *(f"!=3.{minor}.*" for minor in range(10))}


def test_the_licence_is_stated_and_included(wheel: Path, metadata: Message) -> None:
    assert metadata["License-Expression"] == "MIT"
    assert read(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_pytest_finds_the_plugin(wheel: Path) -> None:
    assert "sockio_simulator = sockio.pytest_plugin" in read(wheel, "entry_points.txt")
