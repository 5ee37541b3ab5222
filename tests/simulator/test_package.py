"""The package's own names."""

from __future__ import annotations

import subprocess
import sys

import pytest

import simulator
from simulator import faults


def test_public_names_resolve_on_first_use() -> None:
    assert simulator.Cut is faults.Cut


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Oscilloscope'"):
        _ = simulator.Oscilloscope  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def test_importing_the_plugin_imports_nothing_of_the_simulator() -> None:
    names = "('simulator', 'sockio')"
    program = f"import sys, sockio.pytest_plugin; print(sorted(m for m in sys.modules if m.startswith({names})))"
    output = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert output == "['sockio', 'sockio.pytest_plugin']\n"
