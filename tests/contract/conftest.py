"""What the chapters of the contract share."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.peers import Names, Peer


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A peer that is a bare socket."""
    with Peer() as peer:
        yield peer


@pytest.fixture
def names(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """Host names that the test makes up."""
    names = Names()
    module: Any = socket
    if "flavour" in request.fixturenames:
        module = request.getfixturevalue("flavour").imported("socket")
    monkeypatch.setattr(module, "getaddrinfo", names.getaddrinfo)
    yield names
    names.answering.set()
