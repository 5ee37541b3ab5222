"""Reads the deliberate breakages that are written down in ``catalogue.txt``, and does them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Tooth:
    """One breakage.

    Attributes:
        clause: whose tests must notice it
        file: inside ``sockio``
        what: what is wrong then
        old, new: the text that is replaced, which occurs once
    """

    clause: str
    file: str
    what: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.clause} {self.what}"

    def break_in(self, root: Path) -> None:
        """Break the checkout in ``root``.

        Raises:
            ValueError: the old text isn't there, or more than once
        """
        path = root / "sockio" / self.file
        text = path.read_text(encoding="utf-8")
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"tooth {self}: its text occurs {found} times in {self.file}, not once:\n{self.old}")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


def _read(catalogue: str) -> list[Tooth]:
    teeth: list[Tooth] = []
    for heading, changes in re.findall(r"^== (.+)\n((?:[-+].*\n)+)", catalogue, re.MULTILINE):
        clause, file, what = re.fullmatch(r"(\w+) (\S+): (.+)", heading).groups()  # type: ignore[union-attr]
        old, new = ("\n".join(re.findall(rf"^[{sign}](.*)", changes, re.MULTILINE)) for sign in "-+")
        teeth.append(Tooth(clause, file, what, old, new))
    return teeth


TEETH = _read(Path(__file__).with_name("catalogue.txt").read_text(encoding="utf-8"))
