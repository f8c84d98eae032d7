"""Accounts of an image: names and numbers in its own passwd and group files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildengine.errors import UserError
from worker.ops import users


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nbuilder:x:1234:4321::/home/b:/bin/sh\nbroken\n")
    (tmp_path / "etc/group").write_text("root:x:0:\ncrew:x:77:builder\n")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_a_name_brings_its_group_and_a_number_itself(root: int) -> None:
    assert users.find_account(root, "builder") == (1234, 4321)
    assert users.find_account(root, "1234") == (1234, 1234)
    assert users.find_group(root, "crew") == 77
    for find in (users.find_account, users.find_group):
        with pytest.raises(UserError, match="unable to find"):
            find(root, "nobody")


def test_a_step_runs_in_the_groups_that_list_its_user(root: int) -> None:
    assert users.resolve(root, "builder") == users.Identity(uid=1234, gid=4321, groups=(77,), home="/home/b")
    assert users.resolve(root, "builder").all_groups == (4321, 77)
    assert users.resolve(root, "builder:crew").all_groups == (77,)
    assert users.resolve(root, "builder:crew") == users.Identity(uid=1234, gid=77, home="/home/b")
    assert users.resolve(root, "555") == users.Identity(uid=555)
