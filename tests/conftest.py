"""What all tests share: the flavours, instruments, and the conformance table."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance import Conformance
from tests.flavours import FLAVOURS, Flavour


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
    config.pluginmanager.register(Conformance(config), "sockio-conformance")


@pytest.fixture(params=FLAVOURS, ids=lambda flavour: flavour.variant)
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    """Each flavour in turn."""
    with request.param() as flavour:
        yield flavour
