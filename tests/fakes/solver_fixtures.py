"""`world` makes vertices, `store` keeps what they became: at the end each reference must be released, once.

Imported by name where they are wanted: those of a plugin are everybody's, and `store` is another thing elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.solver_vertices import CountingStore, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def store(world: World) -> Iterator[CountingStore]:
    store = CountingStore()
    yield store
    store.close()
    assert world.ledger.live == 0
