"""Chapter C of the contract: connection."""

from __future__ import annotations

import pytest

from simulator import Instrument
from tests.clauses import clause
from tests.flavours import Flavour


@clause("C1")
def test_an_object_connects_on_first_use(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    assert not sock.connected()
    assert sock.write_readline(b"*IDN?\n").count(b",") == 3
    assert sock.connected()
    assert instrument.ledger.links == [1]


@clause("C1")
def test_open_on_an_open_object_raises_and_leaves_it_open(flavour: Flavour, instrument: Instrument) -> None:
    sock = flavour.tcp(instrument.host, instrument.port)
    sock.open()
    with pytest.raises(ConnectionError, match="already open"):
        sock.open()
    assert sock.connected()
    assert sock.connection_counter == 1
