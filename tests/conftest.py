"""What all tests share: the flavours, instruments, and the conformance table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance import Conformance
from tests.flavours import FLAVOURS, PYTHON27, Flavour


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let tests be chosen by clause."""
    parser.addoption(
        "--clause",
        metavar="CLAUSE",
        action="append",
        default=[],
        help="run only the tests of this clause of docs/contract.md (can be repeated)",
    )
    parser.addoption(
        "--conformance",
        choices=["write", "check"],
        help="after a full run: write docs/conformance.md, or fail if it is out of date",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the conformance table."""
    left_out = {} if PYTHON27 else dict.fromkeys(("P1", "P3"), "no Python 2.7 here, neither on PATH nor in pyenv")
    config.pluginmanager.register(Conformance(config, left_out), "sockio-conformance")


@pytest.fixture(params=FLAVOURS, ids=lambda flavour: flavour.variant)
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    """Each flavour in turn."""
    with request.param() as flavour:
        yield flavour
