"""What the README shows works as it stands, against a simulated instrument on another port."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator import Instrument

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PORT = "5025"


def python_blocks() -> Iterator[object]:
    for found in re.finditer(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE):
        line = README.count("\n", 0, found.start())
        # Empty lines first: a traceback then shows the line of the README.
        yield pytest.param("\n" * (line + 1) + found[1], id=f"line{line + 2}")


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("block", list(python_blocks()))
def test_every_python_block_runs(
    block: str, instrument: Instrument, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    if "def test_" in block:
        pytester.makepyfile(test_from_readme=block)
        outcomes = pytester.runpytest_subprocess().parseoutcomes()
        assert outcomes == {"passed": block.count("def test_")}
    else:
        exec(compile(block.replace(PORT, str(instrument.port)), "README.md", "exec"), {"__name__": "__main__"})
        assert "Traceback" not in capsys.readouterr().err


def test_the_simulator_announces_itself_as_shown() -> None:
    command = [sys.executable, "-m", "simulator", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        process.terminate()
    port = re.findall(r"\d+", line)[4]
    assert line.replace(port, PORT) in README


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_between_documents_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name) if name else document
        assert path.exists(), f"{document.name}: {target} isn't there"
        assert not anchor or anchor in anchors(path), f"{document.name}: {target} has no such heading"
