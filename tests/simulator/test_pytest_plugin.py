"""The pytest plugin, in a pytest of its own.

It is loaded by the name of its module and blocked by that of its entry point: whether the package is installed must not
matter.
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONS = ("-p", "no:sockio_simulator", "-p", "sockio.pytest_plugin", "-W", "error", "-p", "no:cacheprovider")


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\nasyncio_mode = strict\nasyncio_default_fixture_loop_scope = function\n")
    return pytester


def test_plain_and_async_tests_get_fresh_instruments(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import asyncio
        import socket

        import pytest
        from simulator import Cut

        def ask(instrument, message):
            with socket.create_connection((instrument.host, instrument.port), timeout=10) as client:
                client.sendall(message + b"\\n")
                with client.makefile("rb") as file:
                    return file.readline()

        def test_plain(instrument):
            assert ask(instrument, b"ECHO? a") == b"a,1\\n"

        def test_fault(instrument):
            instrument.inject(Cut(after=2))
            assert ask(instrument, b"ECHO? a") == b"a,"

        def test_factory(instrument, instrument_factory):
            other = instrument_factory(name="other")
            assert other.port != instrument.port
            assert ask(other, b"ECHO? a") == b"a,1\\n"
            assert ask(instrument, b"ECHO? a") == b"a,1\\n"

        @pytest.mark.asyncio
        async def test_async(instrument):
            reader, writer = await asyncio.open_connection(instrument.host, instrument.port)
            writer.write(b"ECHO? a\\n")
            assert await reader.readline() == b"a,1\\n"
            writer.close()
            await writer.wait_closed()
        """
    )
    project.runpytest_inprocess(*OPTIONS).assert_outcomes(passed=4)


def test_all_instruments_stop_with_the_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        made = []

        def test_some(instrument, instrument_factory):
            made.extend([instrument, instrument_factory()])

        def test_later():
            assert ["stopped" in repr(instrument) for instrument in made] == [True, True]
        """
    )
    project.runpytest_inprocess(*OPTIONS).assert_outcomes(passed=2)


def test_the_report_of_a_failure_shows_the_ledgers(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        def test_fails(instrument, instrument_factory):
            instrument_factory(name="psu").drop()
            assert False

        def test_fails_without():
            assert False
        """
    )
    result = project.runpytest_inprocess(*OPTIONS)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        ["*- ledger of psu on 127.0.0.1:* -*", "*server   started on 127.0.0.1:*", "*fault    drop()"]
    )
    result.stdout.fnmatch_lines(["*- ledger of dmm on 127.0.0.1:* -*", "*server   started on 127.0.0.1:*"])


def test_the_entry_point_can_be_blocked(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(instrument): pass")
    result = project.runpytest_subprocess("-p", "no:sockio_simulator")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'instrument' not found*"])


def test_a_project_may_have_a_simulator_of_its_own(project: pytest.Pytester) -> None:
    project.makepyfile(simulator="READING = 12.5")
    project.makepyfile("import simulator\n\n\ndef test_it(): assert simulator.READING == 12.5")
    project.runpytest_subprocess(*OPTIONS).assert_outcomes(passed=1)
