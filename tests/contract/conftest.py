"""What the chapters of the contract share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flavours import Flavour
from tests.peers import Names, Peer


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A peer that is a bare socket."""
    with Peer() as peer:
        yield peer


@pytest.fixture
def names(flavour: Flavour, monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """Host names that the test makes up."""
    names = Names()
    monkeypatch.setattr(flavour.imported("socket"), "getaddrinfo", names.getaddrinfo)
    yield names
    names.answering.set()
