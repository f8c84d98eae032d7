"""What a test needs of the host. It is the one place where a test is left out, and CI leaves none out."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def lacking(what: str) -> NoReturn:
    """This host has not what the test needs: the test is skipped; where CI=true, which wants all of them, it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"not tested, where CI=true wants all tests: {what}")
    pytest.skip(what)
