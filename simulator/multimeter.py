"""The first instrument: a multimeter, with a few commands that no real one has, for tests of what reads it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from simulator.device import Piece, Raw, Wait
from simulator.scpi import Interpreter, number, whole

IDENTITY = b"SOCKIO,DMM6500-SIM,0,1.0"
PATTERN = bytes(range(256)) * 256
"""What `RAW?` and `BLOCk?` repeat: byte i is i modulo 256."""
LONGEST_DELAY = 86400.0
"""Seconds that `DELAY?` takes at most."""
LONGEST_STREAM = 10**12
"""Lines or bytes that a stream holds at most."""
LONGEST_BLOCK = 10**9 - 1
"""Bytes that a block holds at most: its length has nine digits."""


def readings(seed: int = 0) -> Iterator[bytes]:
    """Endless readings around 1.2345 V with some noise, the same for the same seed."""
    noise = random.Random(seed)
    while True:
        yield b"%+.8E" % noise.gauss(1.2345, 1e-4)


class Multimeter(Interpreter):
    """A multimeter that reads DC volts.

    `*IDN?`; `*RST` (starts the readings anew); `*CLS`; `*OPC?`; `SYSTem:ERRor?`; `READ?` and `MEASure:VOLTage:DC?`, a
    reading; `DATA? n`, the first n `readings`, a line each; `ECHO? text`, which answers `text,<how many echoes so
    far>`; `DELAY? seconds`, which answers its parameter when that time is over; `RAW? n`, n bytes of `PATTERN` without
    terminator; `BLOCk? n`, the same as an IEEE 488.2 block of definite length.

    Args:
        seed: of the readings.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__(
            {
                "*IDN?": lambda _: IDENTITY,
                "*RST": self._reset,
                "READ?": self._read,
                "MEASure:VOLTage[:DC]?": self._read,
                "DATA?": self._data,
                "ECHO?": self._echo,
                "DELAY?": self._delay,
                "RAW?": self._raw,
                "BLOCk?": self._block,
            }
        )
        self._seed = seed
        self._readings = readings(seed)
        self._echoes = 0

    def _reset(self, _: bytes) -> None:
        self._readings = readings(self._seed)

    def _read(self, _: bytes) -> bytes:
        return next(self._readings)

    def _data(self, parameters: bytes) -> Iterator[bytes]:
        return islice(readings(self._seed), whole(parameters, LONGEST_STREAM))

    def _echo(self, parameters: bytes) -> bytes:
        self._echoes += 1
        return b"%s,%d" % (parameters, self._echoes)

    def _delay(self, parameters: bytes) -> Iterator[Piece]:
        yield Wait(number(parameters, 0, LONGEST_DELAY))
        yield parameters

    def _block(self, parameters: bytes) -> Iterator[Piece]:
        length = b"%d" % whole(parameters, LONGEST_BLOCK)
        yield Raw(b"#%d%b" % (len(length), length))
        yield from self._raw(parameters)
        yield b""

    def _raw(self, parameters: bytes) -> Iterator[Piece]:
        whole_patterns, rest = divmod(whole(parameters, LONGEST_STREAM), len(PATTERN))
        for _ in range(whole_patterns):
            yield Raw(PATTERN)
        if rest:
            yield Raw(PATTERN[:rest])
