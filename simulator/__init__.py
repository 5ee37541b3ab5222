"""A fake laboratory instrument on a real socket: what it executed is on record, and its links fail to order.

This file can be imported by Python 2.7, too: hence names that resolve on first use, and no syntax newer than that.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from simulator.device import Device as Device
    from simulator.device import Raw as Raw
    from simulator.device import Wait as Wait
    from simulator.faults import Cut as Cut
    from simulator.faults import Delay as Delay
    from simulator.faults import Drip as Drip
    from simulator.faults import Duplicate as Duplicate
    from simulator.faults import Fault as Fault
    from simulator.faults import Late as Late
    from simulator.faults import Prefix as Prefix
    from simulator.faults import Reset as Reset
    from simulator.faults import Silence as Silence
    from simulator.faults import Split as Split
    from simulator.ledger import Entry as Entry
    from simulator.ledger import Ledger as Ledger
    from simulator.multimeter import Multimeter as Multimeter
    from simulator.server import Instrument as Instrument
else:
    _HOME = {
        "Cut": "simulator.faults",
        "Delay": "simulator.faults",
        "Device": "simulator.device",
        "Drip": "simulator.faults",
        "Duplicate": "simulator.faults",
        "Entry": "simulator.ledger",
        "Fault": "simulator.faults",
        "Instrument": "simulator.server",
        "Late": "simulator.faults",
        "Ledger": "simulator.ledger",
        "Multimeter": "simulator.multimeter",
        "Prefix": "simulator.faults",
        "Raw": "simulator.device",
        "Reset": "simulator.faults",
        "Silence": "simulator.faults",
        "Split": "simulator.faults",
        "Wait": "simulator.device",
    }

    def __getattr__(name):
        import importlib

        if name not in _HOME:
            raise AttributeError("module 'simulator' has no attribute '" + name + "'")
        return getattr(importlib.import_module(_HOME[name]), name)
