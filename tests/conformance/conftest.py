"""These tests want a peer, so they run only where somebody names them: `make conformance PEER=DIRECTORY`."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass by, unless an argument of the command leads here. Then a missing peer is a failure."""
    named = (Path(argument.partition("::")[0]).absolute() for argument in config.args)
    return None if any(path.is_relative_to(_HERE) for path in named) else True
