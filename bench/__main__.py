"""`python -m bench`: choose the groups, run them, print the tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from bench import bulk, flavours, lines, memory, reqrep, swarm
from bench.group import Goal
from bench.runner import Packages, Result, Spread, measure, raise_file_limit, server, share_one_core

GROUPS = {
    group.name: group for group in (reqrep.GROUP, flavours.GROUP, lines.GROUP, bulk.GROUP, swarm.GROUP, memory.GROUP)
}
QUICK_ROUNDS = 3


def plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def spread(values: Spread, show: Callable[[float], str]) -> str:
    return f"{show(values.median)} [{show(values.p10)} .. {show(values.p90)}]"


def verdict(goal: Goal, number: float) -> str:
    if goal.target is None:
        return "no target"
    return f"target {goal.show(goal.target)}: {'met' if goal.met(number) else 'NOT MET'}"


def table(result: Result) -> str:
    group = result.group
    width = max(len(program.name) for program in group.programs)
    ratio_to = f"   ratio to {group.baseline} [p10 .. p90]" if group.baseline else ""
    rows = [f"{group.title}; median of {result.rounds} rounds", f"  {'':{width}} {group.unit:>10}{ratio_to}"]
    for program in group.programs:
        if reason := result.failures.get(program.name):
            rows.append(f"  {program.name:{width}}   not measured: {reason}")
            continue
        ratio = result.ratio(program)
        shown = f"   {spread(ratio, '{:.2f}'.format)}" if ratio else ""
        rows.append(f"  {program.name:{width}} {plain(result.spread(program).median):>10}{shown}")
    rows.append(f"  {group.about_goals}:")
    for goal in group.goals:
        if number := result.goal(goal):
            shown = (
                f"{spread(number, goal.show):26} best {goal.show(result.best(goal)):7} {verdict(goal, number.median)}"
            )
        else:
            shown = "not measured"
        rows.append(f"    {goal.label:{width}} {shown}")
    return "\n".join(rows)


def as_json(result: Result) -> dict[str, object]:
    goals: list[dict[str, object]] = []
    for goal in result.group.goals:
        number = result.goal(goal)
        goals.append(
            {
                "label": goal.label,
                "target": goal.target,
                "number": number and asdict(number),
                "best": number and result.best(goal),
                "met": number and goal.met(number.median),
            }
        )
    return {
        "title": result.group.title,
        "unit": result.group.unit,
        "baseline": result.group.baseline,
        "rounds": result.rounds,
        "figures": result.figures,
        "failures": result.failures,
        "goals": goals,
    }


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What a call costs, beside its floor.")
    parser.add_argument("groups", nargs="*", metavar="group", help=f"what to run: {', '.join(GROUPS)}; default all")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a first impression")
    parser.add_argument("--rounds", type=positive, help="how many rounds, instead of what the group is set to")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure of every round to FILE, too")
    options = parser.parse_args()
    if unknown := set(options.groups) - GROUPS.keys():
        parser.error(f"no such group: {', '.join(sorted(unknown))} (choose from {', '.join(GROUPS)})")
    groups = [GROUPS[name] for name in options.groups or GROUPS]

    packages = Packages(groups)
    raise_file_limit()
    core = share_one_core()
    report: dict[str, object] = {}
    failed = False
    with server() as far_end:
        machine = {
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "platform": platform.platform(terse=True),
            "cores": os.cpu_count(),
            "pinned to core": core,
            "load": round(os.getloadavg()[0], 1) if sys.platform != "win32" else None,
            "server": far_end.kind,
        }
        print(", ".join(f"{key} {value}" for key, value in machine.items()))
        for group in groups:
            size = group.quick_size if options.quick else group.size
            rounds = options.rounds or (QUICK_ROUNDS if options.quick else group.rounds)
            result = measure(group, size, rounds, far_end.port, packages, progress)
            progress("")
            print(f"\n{table(result)}", flush=True)
            report[group.name] = as_json(result)
            failed = failed or bool(result.failures)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "groups": report}, indent=2) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
