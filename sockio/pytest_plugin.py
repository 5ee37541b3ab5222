"""pytest fixtures: a simulated instrument to every test that asks for one.

pytest loads this module wherever the package is installed, Python 2.7 included: hence the old syntax, and nothing is
imported before a fixture is used.

`instrument` is a multimeter of the test's own, started; `instrument_factory` makes more of them. Both are plain
fixtures and serve blocking tests and tests of any async library. The report of a test that fails shows the ledgers.
"""
# Types are in comments, which pyright would have as annotations, and which ruff does not read:
# pyright: reportTypeCommentUsage=false
# ruff: noqa: F401

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from typing import Any

    from simulator.server import Instrument

_ATTRIBUTE = "_simulator_instruments"


@pytest.fixture
def instrument_factory(request):  # type: (pytest.FixtureRequest) -> Iterator[Callable[..., Instrument]]
    """Call it to get another started instrument; it takes what `simulator.Instrument` takes. All stop with the test."""
    from simulator.server import Instrument

    made = []  # type: list[Instrument]
    setattr(request.node, _ATTRIBUTE, made)

    def make(*args, **kwargs):  # type: (*Any, **Any) -> Instrument
        made.append(Instrument(*args, **kwargs))
        return made[-1].start()

    yield make
    for instrument in made:
        instrument.stop()


@pytest.fixture
def instrument(instrument_factory):  # type: (Callable[..., Instrument]) -> Instrument
    """A fresh multimeter, started, whose methods order its faults; it stops with the test."""
    return instrument_factory()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):  # type: (pytest.Item) -> Generator[None, Any, None]
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for instrument in getattr(item, _ATTRIBUTE, []):
            title = "ledger of %s on %s" % (instrument.name, instrument.address)
            report.sections.append((title, str(instrument.ledger)))
    if report.when == "teardown":
        del getattr(item, _ATTRIBUTE, [])[:]  # pytest keeps the item, which mustn't keep the ledgers
