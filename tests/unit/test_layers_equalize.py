"""Making one tree equal to another: the same in the end, and nothing touched that was equal."""

from __future__ import annotations

import io
import os
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from tests.unit.layers_trees import archive, describe, directory, file, symlink
from tests.unit.test_layers_write import grow, trees
from worker.layers.apply import apply
from worker.layers.equalize import make_equal


def equalized(target: Path, wanted: Path) -> None:
    fds = [os.open(tree, os.O_RDONLY | os.O_DIRECTORY) for tree in (target, wanted)]
    try:
        make_equal(*fds)
    finally:
        for fd in fds:
            os.close(fd)


def test_what_is_equal_is_not_touched(tmp_path: Path) -> None:
    entries = [directory(b"d"), file(b"d/same", b"1"), symlink(b"d/s", b"same"), file(b"d/old", b"2"), directory(b"e")]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        apply(io.BytesIO(archive(*entries)), tmp_path / name)
    (tmp_path / "two" / "d" / "old").write_bytes(b"3")
    before = {name: (tmp_path / "one" / name).lstat() for name in ("d/same", "d/s", "e")}
    equalized(tmp_path / "one", tmp_path / "two")
    assert describe(tmp_path / "one") == describe(tmp_path / "two")
    for name, info in before.items():
        after = (tmp_path / "one" / name).lstat()
        assert (after.st_ino, after.st_ctime_ns) == (info.st_ino, info.st_ctime_ns)


@given(one=trees, two=trees)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree_becomes_any_other(one: dict[str, object], two: dict[str, object], tmp_path: Path) -> None:
    work = tmp_path / os.urandom(8).hex()
    for name, tree in (("one", one), ("two", two)):
        (work / name).mkdir(parents=True)
        grow(work / name, tree)
    equalized(work / "one", work / "two")
    assert describe(work / "one") == describe(work / "two")
