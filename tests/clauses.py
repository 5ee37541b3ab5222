"""The marker that ties a test to a clause of ``docs/contract.md``."""

from __future__ import annotations

import pytest

clause = pytest.mark.clause
#: For tests that are written for one flavour: which.
flavours = pytest.mark.flavours
