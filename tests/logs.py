"""What sockio logs, apart from what others do: in debug mode, asyncio tells of slow callbacks."""

from __future__ import annotations

from logging import LogRecord

import pytest


def logged(caplog: pytest.LogCaptureFixture) -> list[LogRecord]:
    """Return what sockio has logged so far in this test."""
    return [record for record in caplog.records if record.name.split(".")[0] == "sockio"]
