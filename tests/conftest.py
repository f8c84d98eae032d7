"""Which tests run in `make test` and which in `make test-all` only."""

from __future__ import annotations

import pytest

# Written, but not yet seen to pass twice in a row in a clean clone: they must not decide whether a change lands.
UNSETTLED = ("test_crash_", "test_hostile_", "test_images_", "test_cache_progress", "test_cache_changing")
UNSETTLED_TESTS = (
    "test_help_and_version",  # fails in a whole run, passes alone
    "test_a_step_outlives_every_worker_thread",
    "test_supervisor_killed",  # seen once: the process it looks for was gone
    "test_no_signal_is_ignored_or_blocked",  # fails when the run itself was started with signals ignored
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name.startswith(UNSETTLED) or item.name.startswith(UNSETTLED_TESTS):
            item.add_marker(pytest.mark.slow)
