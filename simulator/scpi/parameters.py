"""Parameters of SCPI commands."""

from __future__ import annotations

from simulator.scpi.errors import ScpiError


def number(parameter: bytes, least: float, most: float) -> float:
    """A number in any notation, within bounds.

    Raises:
        ScpiError: -109 nothing there, -104 not a number, -222 out of bounds.
    """
    if not parameter:
        raise ScpiError(-109)
    try:
        value = float(parameter)
    except ValueError:
        raise ScpiError(-104, parameter) from None
    if not least <= value <= most:
        raise ScpiError(-222, parameter)
    return value


def whole(parameter: bytes, most: int) -> int:
    """A number from 0 up, rounded as SCPI does."""
    return round(number(parameter, 0, most))
