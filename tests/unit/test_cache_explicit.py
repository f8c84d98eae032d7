"""A layer whose opaque directories became whiteouts: the same tree on its own layers, and nothing hidden of others."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.explicit import write_changes
from cache.merged import is_opaque, merged
from cache.overlay import OPAQUE_XATTR

_NAMES = st.sampled_from(("a", "b", "c"))
_ENTRIES = st.recursive(
    st.sampled_from(("file", "whiteout")),
    lambda inner: st.tuples(st.booleans(), st.dictionaries(_NAMES, inner, max_size=3)),
    max_leaves=8,
)
LAYER = st.dictionaries(_NAMES, _ENTRIES, max_size=3)


def layer(place: Path, entries: dict[str, object]) -> Path:
    """A directory of overlay upper format: `(opaque, entries)` is a directory."""
    place.mkdir()
    for name, entry in entries.items():
        if entry == "whiteout":
            os.mknod(place / name, stat.S_IFCHR, 0)
        elif isinstance(entry, tuple):
            layer(place / name, entry[1])
            if entry[0]:
                os.setxattr(place / name, OPAQUE_XATTR, b"y")
        else:
            (place / name).write_text(str(place))
    return place


def seen(*layers: Path) -> dict[str, object]:
    """The tree of the layers, topmost first: directories and the contents of files, by path."""
    roots = [os.open(each, os.O_RDONLY | os.O_DIRECTORY) for each in layers]
    try:
        found: dict[str, object] = {}
        for directory in merged(roots):
            found[directory.path] = None
            for member in directory.members:
                found[f"{directory.path}/{member.name}"] = (member.info.st_ino, member.info.st_mode)
        return found
    finally:
        for root in roots:
            os.close(root)


@settings(max_examples=60)
@given(below=st.lists(LAYER, max_size=2), top=LAYER)
def test_on_its_own_layers_it_is_the_same_tree(
    tmp_path_factory: pytest.TempPathFactory, below: list[dict[str, object]], top: dict[str, object]
) -> None:
    place = tmp_path_factory.mktemp("layers")
    lowers = [layer(place / str(n), entries) for n, entries in enumerate(below)]
    original = layer(place / "top", top)
    (place / "explicit").mkdir()
    write_changes(original, lowers, place / "explicit")
    assert not any(is_opaque(fd) for *_, fd in os.fwalk(place / "explicit"))
    assert seen(place / "explicit", *lowers) == seen(original, *lowers)


def test_on_other_layers_only_what_it_was_made_on_is_hidden(tmp_path: Path) -> None:
    own = layer(tmp_path / "own", {"made": (False, {"a": "file", "b": (False, {"c": "file"})})})
    entries = {"made": (True, {"b": (False, {})}), "new": (True, {"a": "file"})}
    original = layer(tmp_path / "top", entries)
    other = layer(tmp_path / "other", {"made": (False, {"x": "file", "a": "file"}), "new": (False, {"b": "file"})})
    (tmp_path / "explicit").mkdir()
    write_changes(original, [own], tmp_path / "explicit")
    assert set(seen(tmp_path / "explicit", other)) == {"", "made", "made/b", "made/x", "new", "new/a", "new/b"}
    assert (tmp_path / "explicit/new/a").samefile(original / "new/a")
    times = [os.stat(each / "made").st_mtime_ns for each in (original, tmp_path / "explicit")]
    assert times[0] == times[1]
