"""The multimeter, without a socket."""

from __future__ import annotations

import re
from itertools import islice

from simulator import Multimeter, Raw, Wait
from simulator.multimeter import PATTERN, readings


def test_the_identity_has_four_fields() -> None:
    (identity,) = Multimeter().execute(b"*IDN?")
    assert isinstance(identity, bytes)
    assert len(identity.split(b",")) == 4


def test_a_reading_has_sign_eight_digits_and_exponent() -> None:
    for message in (b"READ?", b"MEAS:VOLT:DC?", b"measure:voltage?"):
        (reading,) = Multimeter().execute(message)
        assert isinstance(reading, bytes)
        assert re.fullmatch(rb"[+-]\d\.\d{8}E[+-]\d\d", reading)


def test_readings_are_the_same_for_the_same_seed() -> None:
    assert list(Multimeter(7).execute(b"READ?;READ?")) == [b";".join(islice(readings(7), 2))]
    assert list(islice(readings(7), 5)) != list(islice(readings(8), 5))


def test_rst_starts_the_readings_anew_and_keeps_the_number_of_echoes() -> None:
    dmm = Multimeter()
    (before,) = dmm.execute(b"READ?;ECHO? a")
    (after,) = dmm.execute(b"*RST;READ?;ECHO? a")
    assert before == next(readings()) + b";a,1"
    assert after == next(readings()) + b";a,2"


def test_data_streams_the_first_readings_whatever_was_read_before() -> None:
    dmm = Multimeter(3)
    list(dmm.execute(b"READ?"))
    assert list(dmm.execute(b"DATA? 4")) == list(islice(readings(3), 4))
    assert list(dmm.execute(b"DATA? 0")) == []


def test_a_stream_of_a_trillion_lines_is_made_as_it_is_read() -> None:
    assert len(list(islice(Multimeter().execute(b"DATA? 1e12"), 10))) == 10


def test_raw_repeats_its_pattern_without_terminator() -> None:
    pieces = list(Multimeter().execute(b"RAW? 131075"))
    assert pieces == [Raw(PATTERN), Raw(PATTERN), Raw(b"\0\1\2")]
    assert list(Multimeter().execute(b"RAW? 65536")) == [Raw(PATTERN)]


def test_a_block_tells_its_length_and_has_a_terminator() -> None:
    assert list(Multimeter().execute(b"BLOCK? 12")) == [Raw(b"#212"), Raw(PATTERN[:12]), b""]
    assert list(Multimeter().execute(b"BLOC? 0")) == [Raw(b"#10"), b""]
    dmm = Multimeter()
    assert list(dmm.execute(b"BLOC? 1e9")) == []
    assert list(dmm.execute(b"SYST:ERR?")) == [b'-222,"Data out of range;1e9"']


def test_delay_waits_and_answers_its_parameter() -> None:
    assert list(Multimeter().execute(b"DELAY? 0.25")) == [Wait(0.25), b"0.25"]


def test_bad_parameters_go_to_the_error_queue() -> None:
    dmm = Multimeter()
    assert list(dmm.execute(b"DATA? x;DELAY? -1;RAW?")) == []
    assert list(dmm.execute(b"SYST:ERR?;ERR?;ERR?;ERR?")) == [
        b'-104,"Data type error;x";-222,"Data out of range;-1";-109,"Missing parameter";0,"No error"'
    ]
