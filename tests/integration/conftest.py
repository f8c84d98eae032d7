"""Which whole-build tests run in `make test` and which in `make test-all` only."""

from __future__ import annotations

import pytest

# Written, but not yet seen to pass twice in a row in a clean clone: they must not decide whether a change lands.
UNSETTLED = ("test_crash_", "test_hostile_", "test_images_", "test_cache_progress", "test_cache_changing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name.startswith(UNSETTLED):
            item.add_marker(pytest.mark.slow)
