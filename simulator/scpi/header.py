"""SCPI headers: what a manual writes as `SYSTem:ERRor[:NEXT]?`, as the expression of all that it stands for."""

from __future__ import annotations

import re


def compiled(header: str) -> re.Pattern[bytes]:
    """The expression that matches the full header, from the root (`:SYST:ERR?`) or common (`*IDN?`).

    Each node matches in its short form (the capitals) and its long form, in any case; one in brackets may be left out.
    """
    if header.startswith("*"):
        return re.compile(re.escape(header).encode(), re.IGNORECASE)
    nodes = re.findall(r"(\[?):?(\w+)\]?", header)
    expression = "".join(f"(?::{_forms(node)})?" if optional else f":{_forms(node)}" for optional, node in nodes)
    return re.compile((expression + (r"\?" if header.endswith("?") else "")).encode(), re.IGNORECASE)


def _forms(node: str) -> str:
    short = "".join(letter for letter in node if not letter.islower())
    return f"(?:{short}|{node})"
