"""Simulate an instrument of your own: a device is any object that answers one message at a time.

Here it is a power supply with one setting, asked a few questions::

    python examples/own_instrument.py
"""

from __future__ import annotations

from simulator import Instrument
from sockio.sio import TCP


class PowerSupply:
    """Remembers a voltage."""

    def __init__(self) -> None:
        self.voltage = 0.0

    def execute(self, message: bytes) -> bytes | None:
        """Execute one message, without its terminator; return the reply, if it has one."""
        command, _, value = message.decode().partition(" ")
        if command == "*IDN?":
            return b"Example,Power supply,1,1.0"
        if command == "VOLT?":
            return b"%.3f" % self.voltage
        if command == "VOLT":
            self.voltage = float(value)
        return None


def main() -> None:
    with Instrument(PowerSupply(), name="psu") as psu, TCP(psu.host, psu.port, timeout=5) as supply:
        print(supply.write_readline(b"*IDN?\n").decode(), end="")
        supply.write(b"VOLT 3.3\n")
        print(supply.write_readline(b"VOLT?\n").decode(), end="")
        print("executed:", ", ".join(command.decode() for command in psu.ledger.commands))


if __name__ == "__main__":
    main()
