"""What a sandbox needs of this host to run this Python."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from buildengine.errors import HostError
from worker.runtime.interpreter import PACKAGES, check_readable, interpreter


def test_it_is_this_python_and_nothing_beside_it() -> None:
    found = interpreter()
    assert os.path.samefile(found.argv[0], sys.executable)
    assert all(mount.readonly for mount in found.mounts)
    targets = {mount.target for mount in found.mounts}
    assert found.has(Path(os.__file__).resolve())
    assert all(
        found.has(Path(path) / "buildengine") or not (Path(path) / "buildengine").exists() for path in found.paths
    )
    root = Path(__file__).parents[2]
    assert str(root) not in targets, "a checkout is more than its packages"
    assert not found.has(root / "tests")
    assert {str(root / name) for name in PACKAGES} <= targets
    assert not targets & {"/", "/usr", "/etc", "/root", "/home"}


def test_what_only_its_owner_can_read(tmp_path: Path) -> None:
    (tmp_path / "a.py").touch(0o644)
    check_readable(str(tmp_path / "a.py"))
    (tmp_path / "b.py").touch(0o600)
    with pytest.raises(HostError, match=r"b\.py can be read by its owner only"):
        check_readable(str(tmp_path / "b.py"))
