"""Single calls against the real kernel: trees without a mount point, the v2 device program, a read-only program."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildengine.errors import HostError
from cache.overlay import TreeMount
from tests.needs import lacking
from worker.mounts.tree import open_tree
from worker.runtime import cgroups, devices, isolate, overlay, sweep, targets

pytest_plugins = ["tests.fakes.runtime_fixtures"]


@pytest.fixture
def upper(tmp_path: Path) -> tuple[str, str]:
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    return str(tmp_path / "upper"), str(tmp_path / "work")


@pytest.mark.parametrize("lacking", [(), ("lowerdir+",)])
@pytest.mark.parametrize(
    ("count", "writable"), [(0, False), (1, False), (2, False), (120, False), (0, True), (120, True)]
)
def test_trees(
    many_layers: list[str], upper: tuple[str, str], count: int, writable: bool, lacking: tuple[str, ...]
) -> None:
    tree = TreeMount(lowers=tuple(many_layers[:count]))
    if writable:
        tree = TreeMount(lowers=tree.lowers, upper=upper[0], work=upper[1])
    before = Path("/proc/self/mountinfo").read_text()
    descriptors = len(os.listdir("/proc/self/fd"))
    with open_tree(tree, lacking=lacking) as fd:
        assert Path("/proc/self/mountinfo").read_text() == before
        assert len(os.listdir(fd)) == count + min(count, 1)
        if count:
            same = os.open("same", os.O_RDONLY, dir_fd=fd)
            assert os.read(same, 10) == b"0"  # the topmost layer comes first
            os.close(same)
        if writable:
            os.close(os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        else:
            with pytest.raises(OSError, match="Read-only"):
                os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    assert os.listdir(upper[0]) == (["new"] if writable else [])
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_trees_of_many_layers(tmp_path: Path, many_layers: list[str]) -> None:
    with open_tree(TreeMount(lowers=tuple(many_layers))) as fd:
        assert len(os.listdir(fd)) == 501
    with (
        pytest.raises(HostError, match="500 layers"),
        open_tree(TreeMount(lowers=tuple(many_layers)), lacking=["lowerdir+"]),
    ):
        pass
    long = tmp_path / ("x" * 200) / ("y" * 200)
    long.mkdir(parents=True)
    (long / "deep").touch()
    with open_tree(TreeMount(lowers=(str(long), many_layers[0]))) as fd:
        assert "deep" in os.listdir(fd)


def test_the_mount_namespace_is_made_once() -> None:
    """A second one would be this thread's alone."""
    isolate.private_mounts()
    before = os.readlink("/proc/thread-self/ns/mnt")
    isolate.private_mounts()
    assert os.readlink("/proc/thread-self/ns/mnt") == before


def test_tree_that_cannot_be() -> None:
    isolate.private_mounts()
    with pytest.raises(HostError, match="/nowhere"), open_tree(TreeMount(lowers=("/nowhere", "/"))):
        pass


def test_tree_can_be_opened_again_after_it_was_written(many_layers: list[str], upper: tuple[str, str]) -> None:
    tree = TreeMount(lowers=(many_layers[0],), upper=upper[0], work=upper[1])
    for number in range(3):
        with open_tree(tree) as fd:
            os.mkdir(str(number), dir_fd=fd)
    assert sorted(os.listdir(upper[0])) == ["0", "1", "2"]


def test_a_layer_with_redirects_is_not_followed(tmp_path: Path) -> None:
    """An xattr that came with an archive must not show a directory under another name."""
    isolate.private_mounts()
    (tmp_path / "l1/secret").mkdir(parents=True)
    (tmp_path / "l1/secret/key").touch()
    (tmp_path / "l0/shown").mkdir(parents=True)
    os.setxattr(tmp_path / "l0/shown", "trusted.overlay.redirect", b"/secret")
    with (
        open_tree(TreeMount(lowers=(str(tmp_path / "l0"), str(tmp_path / "l1")))) as fd,
        pytest.raises(PermissionError),
    ):
        os.open("shown", os.O_RDONLY, dir_fd=fd)


@pytest.mark.parametrize("cloning", [True, False])
def test_part_of_a_tree(many_layers: list[str], cloning: bool) -> None:
    made = overlay.Overlay()
    made.clone_detached = cloning
    before = Path("/proc/self/mountinfo").read_text()
    for path in ("same", "."):
        tree = made.assemble(many_layers[:2], None, None, attach="/proc/fs")
        os.close(made.part(tree, path, attach="/proc/fs"))
    with pytest.raises(targets.Refused, match="No such file"):
        made.part(made.assemble(many_layers[:2], None, None, attach="/proc/fs"), "missing", attach="/proc/fs")
    assert Path("/proc/self/mountinfo").read_text() == before


@pytest.fixture
def unified() -> Iterator[cgroups.V2Group]:
    """A real v2 group, on a v1 host too."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    mount = next((line.split()[4] for line in lines if " - cgroup2 " in line), "")
    if not mount:
        lacking("no cgroup2 on this host")
    directory = f"{mount}/pybuild-{os.getpid()}-test"
    os.mkdir(directory)
    yield cgroups.V2Group(directory)
    sweep.remove(directory)


def test_device_program_in_the_kernel(unified: cgroups.V2Group, tmp_path: Path) -> None:
    unified.allow(devices.DEFAULT)
    if not unified.devices_enforced:
        lacking("no BPF for devices in this kernel")
    results = tmp_path / "results"
    results.touch()
    pid = os.fork()
    if pid == 0:
        try:
            unified.attach(os.getpid())
            os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
            os.mknod(tmp_path / "kmsg", 0o20666, os.makedev(1, 11))
            for name in ("null", "kmsg"):
                try:
                    os.close(os.open(tmp_path / name, os.O_RDONLY))
                    answer = "ok"
                except OSError as error:
                    answer = errno.errorcode[error.errno or 0]
                with results.open("a") as file:
                    file.write(answer + " ")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert results.read_text().split() == ["ok", "EPERM"]


def test_a_populated_group_is_emptied_and_removed(unified: cgroups.V2Group) -> None:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        while True:
            os.read(os.pipe()[0], 1)
    unified.attach(pid)
    os.mkdir(unified.directory + "/inner")
    sweep.remove(unified.directory)
    assert not os.path.exists(unified.directory)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9


def test_read_only_program() -> None:
    fd = isolate.readonly_program(sys.executable)
    with pytest.raises(OSError, match="Read-only"):
        os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_TRUNC)  # of a running program: else "Text file busy"
    os.close(fd)
    with pytest.raises(HostError, match="/nope"):
        isolate.readonly_program("/nope")
