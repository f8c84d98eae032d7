"""Our definitions before BuildKit: its client reads the operations that ours shows, under the same digests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llb.definition import Definition
from tests.builds import PYBUILD
from tests.conformance import peer
from tests.conformance.definitions import SHOWN, SOLVED
from tests.fakes.image_tools import run

_ALL = SHOWN | {f"solved: {name}": definition for name, definition in SOLVED.items()}


def ours(definition: Definition, work: Path) -> list[dict[str, Any]]:
    """What `pybuild debug dump-llb` shows."""
    file = work / "definition"
    file.write_bytes(definition.to_bytes())
    return [json.loads(line) for line in run(PYBUILD, "debug", "dump-llb", file).splitlines()]


def as_go_has_it(value: Any) -> Any:
    """Go's dump knows no symlinks (solver/pb/json.go)."""
    if isinstance(value, list):
        return [as_go_has_it(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: as_go_has_it(item) for key, item in value.items() if key != "symlink"}


@pytest.mark.parametrize("name", _ALL)
def test_the_client_reads_what_we_wrote(name: str, tmp_path: Path) -> None:
    assert peer.dumped(_ALL[name]) == as_go_has_it(ours(_ALL[name], tmp_path))


@pytest.mark.parametrize("name", _ALL)
def test_the_digests_are_those_of_the_operations(name: str) -> None:
    assert [document["Digest"] for document in peer.dumped(_ALL[name])] == list(_ALL[name].digests())
