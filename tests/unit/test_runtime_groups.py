"""Control groups and devices: which layout a host has, what is written where, who owns a group."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.fakes.runtime_bpf import run_device_program
from tests.fakes.runtime_cgroup2 import Cgroup2
from worker.runtime import cgroups, devices, sweep

V1_MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime shared:9 - cgroup cgroup rw,devices
40 31 0:37 /docker/abc /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
42 31 0:39 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V1_OWN = """\
5:devices:/
4:memory:/ci/job
3:pids:/docker/abc/inner
2:name=systemd:/user.slice
1:cpu,cpuacct:/
0::/user.slice
"""


def test_hybrid_host_uses_v1() -> None:
    layout = cgroups.detect(V1_MOUNTS, V1_OWN)
    assert layout.kind == "v1"
    assert {name: own for name, (_, own) in layout.v1.items()} == {
        "memory": "/sys/fs/cgroup/memory/ci/job",
        "pids": "/sys/fs/cgroup/pids/inner",
        "devices": "/sys/fs/cgroup/devices",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
    }
    assert "/sys/fs/cgroup/systemd/user.slice" in layout.own
    assert "/sys/fs/cgroup/unified/user.slice" in layout.own


def test_unified_host_and_host_without() -> None:
    mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    layout = cgroups.detect(mounts, "0::/a/b\n")
    assert (layout.kind, layout.v2) == ("v2", ("/sys/fs/cgroup", "/sys/fs/cgroup/a/b"))
    assert cgroups.detect("", "").kind == "none"


def test_a_group_outside_of_what_is_mounted() -> None:
    mounts = "30 23 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    assert cgroups.detect(mounts, "0::/\n").v2 == ("/sys/fs/cgroup", "/sys/fs/cgroup")
    assert cgroups.detect(mounts, "0::/docker/abcd\n").v2 == ("/sys/fs/cgroup", "/sys/fs/cgroup")


def v2(monkeypatch: pytest.MonkeyPatch, tree: Cgroup2) -> cgroups.Layout:
    monkeypatch.setattr(cgroups, "write", tree.write)
    monkeypatch.setattr(os, "setxattr", lambda *_: None)  # user files have no trusted ones on some systems
    return tree.layout()


def test_v2_step_lies_where_controllers_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = "user.slice/session.scope"
    tree = Cgroup2(tmp_path, session, {"": "cpu memory pids", "user.slice": "memory pids"}, full=(session,))
    group = v2(monkeypatch, tree).make("pybuild-1-2-3-4")
    assert group.directories() == [str(tmp_path / "user.slice/pybuild-1-2-3-4")]
    assert (tmp_path / "user.slice/cgroup.subtree_control").read_text() == "cpu memory pids"
    assert (tmp_path / "user.slice/pybuild-1-2-3-4/cpu.max").exists()


def test_v2_root_hands_controllers_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = v2(monkeypatch, Cgroup2(tmp_path, "", {})).make("pybuild-1-2-3-4")
    assert group.directories() == [str(tmp_path / "pybuild-1-2-3-4")]
    group.limit(1, 1, 1)


def test_v2_where_nobody_hands_controllers_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = v2(monkeypatch, Cgroup2(tmp_path, "leaf", {}, full=("leaf", "."))).make("pybuild-1-2-3-4")
    assert group.directories() == [str(tmp_path / "leaf/pybuild-1-2-3-4")]
    group.limit(0, 0, 32768)  # the default is no promise
    with pytest.raises(OSError, match="memory") as error:
        group.limit(1, 0, 0)
    assert error.value.errno == errno.ENOTSUP
    assert (group.oom_kills(), group.peak_memory()) == (0, 0)


def test_v2_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = v2(monkeypatch, Cgroup2(tmp_path, "", {"": "cpu memory pids"})).make("pybuild-1-2-3-4")
    group.limit(1 << 30, 1.5, 100)
    group.attach(42)
    directory = tmp_path / "pybuild-1-2-3-4"
    written = {name: (directory / name).read_text() for name in os.listdir(directory)}
    assert written["memory.max"] == "1073741824"
    assert written["memory.swap.max"] == "0"
    assert written["cpu.max"] == "150000 100000"
    assert written["pids.max"] == "100"
    assert written["cgroup.procs"] == "42"
    (directory / "memory.events").write_text("low 0\noom 1\noom_kill 2\noom_group_kill 0\n")
    (directory / "memory.peak").write_text("4096\n")
    assert (group.oom_kills(), group.peak_memory()) == (2, 4096)
    assert group.views() == [("", str(directory))]


def test_parent_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Cgroup2(tmp_path, "", {"": "memory pids"})
    layout = v2(monkeypatch, tree)
    monkeypatch.setattr(cgroups, "make_parents", lambda path: [tree.mkdir(p) for p in (os.path.dirname(path), path)])
    group = layout.make("pybuild-1-2-3-4", "ci/job")
    assert group.directories() == [str(tmp_path / "ci/job/pybuild-1-2-3-4")]
    group.limit(1, 1, 1)
    with pytest.raises(OSError, match="no control groups"):
        cgroups.Layout({}, None).make("pybuild-1-2-3-4", "ci")


def test_parents_that_vanish_are_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that ends between our making the parents and our using them takes them along."""
    layout = cgroups.Layout({"pids": (str(tmp_path), str(tmp_path))}, None)
    made = os.mkdir
    removals = iter([True, True, False])

    def mkdir(path: str) -> None:
        if next(removals):
            cgroups.remove_parents(os.path.dirname(path))
        made(path)

    layout._mkdir = mkdir
    assert layout.make("pybuild-1-2-3-4", "ci/job").directories() == [str(tmp_path / "ci/job/pybuild-1-2-3-4")]


def test_parents_that_we_made_are_removed(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    cgroups.make_parents(str(tmp_path / "theirs/ours/too"))
    cgroups.make_parents(str(tmp_path / "theirs/ours/too"))
    cgroups.remove_parents(str(tmp_path / "theirs/ours/too"))
    assert os.listdir(tmp_path / "theirs") == []
    cgroups.remove_parents(str(tmp_path / "theirs"))
    assert os.listdir(tmp_path) == ["theirs"]


def test_host_where_groups_cannot_be_made(tmp_path: Path) -> None:
    layout = cgroups.Layout({"memory": (str(tmp_path), str(tmp_path / "gone/deeper"))}, None)

    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "no", path)

    layout._mkdir = refuse
    group = layout.make("pybuild-1-2-3-4")
    assert not group.devices_enforced
    group.limit(0, 0, 32768)
    with pytest.raises(OSError, match="CPU"):
        group.limit(0, 1, 0)


# --- owners -----------------------------------------------------------------------------------------------


def test_groups_of_the_living_and_the_dead() -> None:
    mine = sweep.owner(os.getpid()) + "7"
    parts = mine.split("-")
    assert not sweep.orphaned(mine)
    assert sweep.orphaned("-".join([*parts[:3], str(int(parts[3]) + 1), "7"]))  # the pid was used again
    assert sweep.orphaned("-".join([*parts[:2], "4194999", "1", "7"]))  # no such process
    assert not sweep.orphaned("-".join(["pybuild", "1", *parts[2:]]))  # another pid namespace: cannot know
    for name in ("pybuild", "pybuild-x", "user.slice", "pybuild-1-2-3", "pybuild-1-2-3-x"):
        assert not sweep.orphaned(name)


def test_only_groups_of_ours_are_removed(tmp_path: Path) -> None:
    (tmp_path / "innocent").mkdir()
    for path in (tmp_path / "innocent", tmp_path, "/"):
        with pytest.raises(ValueError, match="no group of ours"):
            sweep.remove(str(path))
    (tmp_path / "pybuild-1/below/deeper").mkdir(parents=True)
    sweep.remove(str(tmp_path / "pybuild-1"))
    sweep.remove(str(tmp_path / "pybuild-1"))
    assert os.listdir(tmp_path) == ["innocent"]


def test_sweeping_removes_orphans_anywhere(tmp_path: Path) -> None:
    dead = sweep.owner(os.getpid()).rsplit("-", 2)[0] + "-1-9"
    alive = sweep.owner(os.getpid()) + "1"
    for name in (dead, f"a/b/{dead}/inner", alive):
        (tmp_path / name).mkdir(parents=True)
    sweep.sweep(cgroups.Layout({"memory": (str(tmp_path), str(tmp_path))}, None))
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == sorted(["a", "a/b", alive])


# --- devices ----------------------------------------------------------------------------------------------

BLOCK, CHARACTER = 1, 2
MKNOD, READ, WRITE = 1, 2, 4


@pytest.mark.parametrize(
    ("kind", "access", "major", "minor", "allowed"),
    [
        (CHARACTER, READ | WRITE, 1, 3, True),
        (CHARACTER, READ | WRITE | MKNOD, 1, 9, True),
        (CHARACTER, READ, 1, 1, False),  # /dev/mem
        (CHARACTER, MKNOD, 10, 229, True),  # any may be made
        (CHARACTER, READ, 10, 229, False),  # but not opened
        (CHARACTER, MKNOD | READ, 10, 229, False),
        (BLOCK, MKNOD, 7, 0, True),
        (BLOCK, READ, 7, 0, False),
        (BLOCK, READ, 1, 3, False),
        (CHARACTER, READ, 136, 17, True),
        (CHARACTER, WRITE, 5, 2, True),
        (CHARACTER, WRITE, 5, 1, False),
    ],
)
def test_device_program(kind: int, access: int, major: int, minor: int, allowed: bool) -> None:
    assert run_device_program(devices.ebpf(devices.DEFAULT), kind, access, major, minor) == allowed
    assert run_device_program(devices.ebpf(devices.EVERYTHING), kind, access, major, minor) == 1


def test_device_lines_of_v1() -> None:
    assert [devices.v1_line(rule) for rule in devices.DEFAULT][:3] == ["c *:* m", "b *:* m", "c 1:3 rwm"]
    assert devices.v1_line(("c", 136, None, "rwm")) == "c 136:* rwm"
