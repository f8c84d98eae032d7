"""A layer without the whiteouts that hide nothing: the same tree on its stack, and no name that nobody can open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.explicit import shown
from cache.ghosts import write_without
from cache.merged import is_opaque, is_whiteout
from tests.unit.test_cache_explicit import LAYER, layer, seen


@settings(max_examples=60)
@given(below=st.lists(LAYER, max_size=2), top=LAYER)
def test_it_is_the_same_tree_without_ghosts(
    tmp_path_factory: pytest.TempPathFactory, below: list[dict[str, object]], top: dict[str, object]
) -> None:
    place = tmp_path_factory.mktemp("layers")
    lowers = [layer(place / str(n), entries) for n, entries in enumerate(below)]
    original, target = layer(place / "top", top), place / "target"
    if write_without(original, lowers, target):
        assert seen(target, *lowers) == seen(original, *lowers)
        assert ghosts(target, lowers) == []
        assert ghosts(original, lowers)
    else:
        assert not target.exists()
        assert ghosts(original, lowers) == []


def ghosts(directory: Path, lowers: list[Path]) -> list[str]:
    """Whiteouts of names that the layers below do not show, or that the layer hides otherwise."""
    roots = [os.open(lower, os.O_RDONLY | os.O_DIRECTORY) for lower in lowers]
    found = []
    try:
        opaque: set[str] = set()
        for path, folders, names, fd in os.fwalk(directory):
            inside = str(Path(path).relative_to(directory)).removeprefix(".")
            if (inside and is_opaque(fd)) or str(Path(inside).parent) in opaque:
                opaque.add(inside)
            hidden = {} if inside in opaque else shown(roots, inside)
            infos = {name: os.stat(name, dir_fd=fd, follow_symlinks=False) for name in (*folders, *names)}
            found += [f"{inside}/{name}" for name, info in infos.items() if is_whiteout(info) and name not in hidden]
    finally:
        for root in roots:
            os.close(root)
    return found
