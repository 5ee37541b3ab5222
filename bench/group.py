"""The vocabulary: a *group* is a table of *programs*, measured in interleaved rounds, and the *goals* it is judged by.

A program is one client, run in a fresh process; it gives one *figure* a round, in its group's unit. A goal turns the
figures of one round into one number, so that what disturbs a whole round disturbs no goal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

OURS = "ours"
OLD = "sockio==0.15.0"
UVLOOP = "uvloop"
TRIO = "trio"
CURIO = "curio"

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Program:
    """A client: `run(port, size)` talks to the server on that port of 127.0.0.1 and returns its figure.

    `needs` names the packages it imports beyond the standard library: `OURS`, or requirements such as `OLD`.
    """

    name: str
    run: Callable[[int, int], float]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Goal:
    """A number derived from the figures of the programs `of`, and the target it is held against, if there is one."""

    label: str
    of: tuple[str, ...]
    number: Callable[[Figures], float]
    show: Callable[[float], str]
    target: float | None
    at_most: bool

    def met(self, number: float) -> bool | None:
        if self.target is None:
            return None
        return number <= self.target if self.at_most else number >= self.target


@dataclass(frozen=True)
class Group:
    """One table. `size` says how much a program does (its group says of what); ratios are to the program `baseline`."""

    name: str
    title: str
    unit: str
    programs: tuple[Program, ...]
    goals: tuple[Goal, ...]
    rounds: int
    size: int
    quick_size: int
    baseline: str | None = None
    about_goals: str = "targets"


def share(label: str, ours: str, floor: str, old: str, target: float | None) -> Goal:
    """What a call adds to its floor, as a share of what 0.15 adds to the same floor."""

    def number(figures: Figures) -> float:
        return (figures[ours] - figures[floor]) / (figures[old] - figures[floor])

    def show(number: float) -> str:
        return f"1/{1 / number:.3g}" if number > 0 else "nothing"

    return Goal(label, (ours, floor, old), number, show, target, at_most=True)


def multiple(label: str, ours: str, floor: str, base: str, target: float) -> Goal:
    """What a call adds to a base, as a multiple of what its floor adds."""

    def number(figures: Figures) -> float:
        return (figures[ours] - figures[base]) / (figures[floor] - figures[base])

    return Goal(label, (ours, floor, base), number, lambda number: f"{number:.2f} x", target, at_most=True)


def at_least(label: str, ours: str, other: str, target: float | None) -> Goal:
    """How many times the rate of another program."""
    return Goal(
        label, (ours, other), lambda f: f[ours] / f[other], lambda number: f"{number:.2f}", target, at_most=False
    )


def at_most(label: str, ours: str, target: float, unit: str) -> Goal:
    """A plain upper limit on a figure."""
    return Goal(label, (ours,), lambda f: f[ours], lambda number: f"{number:.1f} {unit}", target, at_most=True)
