"""Which tests run in `make test` and which in `make test-all` only."""

from __future__ import annotations

import pytest

# Seen to fail for a reason that is not known yet: they must not decide whether a change lands.
UNSETTLED_TESTS = (
    "test_a_step_outlives_every_worker_thread",  # it looks at names in /proc while they change
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.name.startswith(UNSETTLED_TESTS):
            item.add_marker(pytest.mark.slow)
