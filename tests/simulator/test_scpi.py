"""The SCPI interpreter: messages in, answers out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simulator import Raw, Wait
from simulator.device import Piece
from simulator.scpi import Interpreter, ScpiError, number, whole


@pytest.fixture
def scpi() -> Interpreter:
    def stream(_: bytes) -> Iterator[Piece]:
        yield b"a"
        yield b"b"

    def raw(_: bytes) -> Iterator[Piece]:
        yield Raw(b"#")

    def slow(_: bytes) -> Iterator[Piece]:
        yield Wait(1.5)
        yield b"done"

    return Interpreter(
        {
            "*IDN?": lambda _: b"me",
            "MEASure:VOLTage[:DC]?": lambda _: b"volts",
            "MEASure:CURRent?": lambda _: b"amperes",
            "OUTPut": lambda _: None,
            "TEXT?": lambda parameters: parameters,
            "STREAM?": stream,
            "RAW?": raw,
            "SLOW?": slow,
            "NUMBer?": lambda parameters: b"%d" % whole(parameters, 10),
        }
    )


def errors(scpi: Interpreter) -> list[bytes]:
    queue: list[bytes] = []
    while (error := scpi.errors.next()) != b'0,"No error"':
        queue.append(error)
    return queue


@pytest.mark.parametrize(
    "header",
    [
        b"MEAS:VOLT:DC?",
        b"meas:volt?",
        b":MEASURE:VOLTAGE:DC?",
        b"Measure:Volt?",
        b"  MEAS:VOLT?  ",
        b"MEAS:VOLT? DEF,DEF",
        b"MEAS:VOLT?\r",
    ],
)
def test_a_header_matches_in_short_and_long_form_and_any_case(scpi: Interpreter, header: bytes) -> None:
    assert list(scpi.execute(header)) == [b"volts"]
    assert errors(scpi) == []


@pytest.mark.parametrize(
    "header", [b"MEASU:VOLT?", b"MEAS:VOLT", b"MEAS VOLT?", b"VOLT?", b"*IDN", b"*FOO?", b":*IDN?"]
)
def test_any_other_header_goes_to_the_error_queue(scpi: Interpreter, header: bytes) -> None:
    assert list(scpi.execute(header)) == []
    assert errors(scpi) == [b'-113,"Undefined header;%s"' % header.split()[0]]


def test_answers_of_one_message_are_joined(scpi: Interpreter) -> None:
    assert list(scpi.execute(b"*IDN?;MEAS:VOLT?;*IDN?")) == [b"me;volts;me"]


def test_after_a_semicolon_the_path_stays_at_the_parent_of_the_last_leaf(scpi: Interpreter) -> None:
    assert list(scpi.execute(b"MEAS:VOLT?;CURR?;*IDN?;CURR?;:MEAS:CURR?")) == [b"volts;amperes;me;amperes;amperes"]
    assert list(scpi.execute(b"MEAS:VOLT?;MEAS:CURR?")) == [b"volts"]
    assert errors(scpi) == [b'-113,"Undefined header;MEAS:CURR?"']


def test_a_command_that_is_no_question_answers_nothing(scpi: Interpreter) -> None:
    assert list(scpi.execute(b"OUTP ON")) == []
    assert list(scpi.execute(b"OUTP ON;:TEXT? yes")) == [b"yes"]


@pytest.mark.parametrize("message", [b"", b"  ", b";", b" ; ;"])
def test_a_blank_message_is_ignored(scpi: Interpreter, message: bytes) -> None:
    assert list(scpi.execute(message)) == []
    assert errors(scpi) == []


def test_a_semicolon_inside_quotes_is_data(scpi: Interpreter) -> None:
    assert list(scpi.execute(b"TEXT? \"a;b\";TEXT? 'c;d'")) == [b"\"a;b\";'c;d'"]


def test_a_quote_that_is_never_closed_is_data(scpi: Interpreter) -> None:
    assert list(scpi.execute(b'TEXT? "a;*IDN?')) == [b'"a;me']


def test_the_first_piece_of_a_stream_joins_the_message_and_the_others_follow(scpi: Interpreter) -> None:
    assert list(scpi.execute(b"*IDN?;STREAM?;*IDN?")) == [b"me;a", b"b;me"]


def test_raw_bytes_come_after_the_answers_before_them(scpi: Interpreter) -> None:
    assert list(scpi.execute(b"RAW?;*IDN?;RAW?")) == [Raw(b"#"), b"me", Raw(b"#")]


def test_what_follows_a_wait_is_executed_after_it(scpi: Interpreter) -> None:
    assert list(scpi.execute(b"*IDN?;SLOW?;*IDN?")) == [Wait(1.5), b"me;done;me"]


def test_the_error_queue_is_read_oldest_first_and_cleared(scpi: Interpreter) -> None:
    assert list(scpi.execute(b"foo;bar;SYST:ERR?;:SYSTEM:ERROR:NEXT?")) == [
        b'-113,"Undefined header;foo";-113,"Undefined header;bar"'
    ]
    assert list(scpi.execute(b"foo;*CLS;SYST:ERR?;*OPC?")) == [b'0,"No error";1']


def test_a_full_error_queue_tells_so_in_its_last_entry(scpi: Interpreter) -> None:
    list(scpi.execute(30 * b"foo;"))
    assert errors(scpi) == 19 * [b'-113,"Undefined header;foo"'] + [b'-350,"Queue overflow"']


def test_quotes_in_the_detail_of_an_error_are_doubled(scpi: Interpreter) -> None:
    list(scpi.execute(b'fo"o'))
    assert errors(scpi) == [b'-113,"Undefined header;fo""o"']


@pytest.mark.parametrize(
    ("parameter", "error"),
    [
        (b"", b'-109,"Missing parameter"'),
        (b"x", b'-104,"Data type error;x"'),
        (b"11", b'-222,"Data out of range;11"'),
        (b"-1", b'-222,"Data out of range;-1"'),
        (b"nan", b'-222,"Data out of range;nan"'),
    ],
)
def test_a_bad_number_goes_to_the_error_queue(scpi: Interpreter, parameter: bytes, error: bytes) -> None:
    assert list(scpi.execute(b"NUMB? " + parameter)) == []
    assert errors(scpi) == [error]


@pytest.mark.parametrize("parameter", [b"7", b"+7", b"7.0", b"0.7e1", b"7.2"])
def test_a_number_comes_in_any_notation(scpi: Interpreter, parameter: bytes) -> None:
    assert list(scpi.execute(b"NUMB? " + parameter)) == [b"7"]


def test_bounds_belong_to_the_range() -> None:
    assert number(b"0", 0, 1) == 0
    assert number(b"1", 0, 1) == 1
    with pytest.raises(ScpiError):
        number(b"1.1", 0, 1)
