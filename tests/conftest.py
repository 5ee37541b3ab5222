"""What all tests share: the flavours, instruments, and the conformance table."""

from __future__ import annotations

import gc
import importlib
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from simulator import Instrument
from tests.conformance import Conformance
from tests.flavours import FLAVOURS, Flavour
from tests.peers import Held, Names, Peer


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
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background job: Ctrl-C couldn't be tested
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(Conformance(config), "sockio-conformance")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: in a parallel run the others get done meanwhile."""
    items.sort(key=lambda item: "ten_thousand" not in item.name)


def pytest_collection_finish() -> None:
    """Spare the tests that collect the garbage the search through all of pytest's objects."""
    importlib.import_module("hypothesis")  # which, as it is imported, asks the collector who refers to what is trio's
    gc.freeze()


@pytest.fixture(params=FLAVOURS, ids=lambda flavour: flavour.variant)
def flavour(request: pytest.FixtureRequest) -> Iterator[Flavour]:
    """Each flavour in turn."""
    with request.param() as flavour:
        yield flavour


@pytest.fixture
def untraced() -> Iterator[None]:
    """What coverage would learn here it learns elsewhere, and its tracer takes half of the time."""
    here, new_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(None)
    threading.settrace(None)
    yield
    sys.settrace(here)
    threading.settrace(new_threads)


@pytest.fixture
def collected() -> Iterator[None]:
    """Have the garbage collected before the next test."""
    yield
    gc.collect()


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A peer that is a bare socket."""
    with Peer() as peer:
        yield peer


@pytest.fixture
def held(instrument: Instrument) -> Iterator[Held]:
    """What holds the reply to the first ``DELAY? 0`` back."""
    held = Held()
    instrument.inject(held, command=b"DELAY? 0")
    yield held
    held.go()


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
