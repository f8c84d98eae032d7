"""What a step finds mounted, what of it stays in its layer, and that no path leads out of its root."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from buildengine.errors import HostError, UserError
from cache.overlay import TreeMount
from tests.fakes.runtime_steps import Steps, listing, upper
from worker.runtime.runtime import Runtime, open_runtime
from worker.runtime.spec import BindMount, SecretFile, TmpfsMount, TreeMountPoint

pytest_plugins = ["tests.fakes.runtime_fixtures"]


def tree_of(directory: Path, **files: str) -> TreeMount:
    """A tree of one layer with these files."""
    directory.mkdir()
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return TreeMount(lowers=(str(directory),))


async def test_writes_land_in_the_layer_and_only_there(runtime: Runtime, steps: Steps) -> None:
    spec = steps.spec("/bin/sh", "-c", "echo new > /new; rm /etc/passwd; chown 5:6 /new; sync")
    assert (await steps.run(runtime, spec)).code == 0
    made = (upper(spec) / "new").stat()
    assert (made.st_uid, made.st_gid, (upper(spec) / "new").read_text()) == (5, 6, "new\n")
    assert (upper(spec) / "etc/passwd").stat().st_rdev == 0
    assert (steps.base / "etc/passwd").stat().st_size


async def test_file_systems_of_the_kernel(runtime: Runtime, steps: Steps) -> None:
    result = await steps.sh(
        runtime,
        "awk '{print $5, $6}' /proc/self/mountinfo; df -k /dev/shm | tail -1",
        shm_size=3 << 20,
    )
    mounts = dict(line.split(" ", 1) for line in result.out.splitlines() if line.startswith("/"))
    for path, words in {
        "/proc": {"nosuid", "nodev", "noexec", "rw"},
        "/sys": {"nosuid", "nodev", "noexec", "ro"},
        "/dev": {"nosuid", "rw"},
        "/dev/pts": {"nosuid", "noexec"},
        "/dev/shm": {"nosuid", "nodev", "noexec"},
        "/dev/mqueue": {"nosuid", "nodev", "noexec"},
        "/proc/sys": {"ro"},
    }.items():
        assert words <= set(mounts[path].split(",")), path
    assert "3072" in result.out.splitlines()[-1]


async def test_files_are_mounted_and_leave_nothing(runtime: Runtime, bare_steps: Steps) -> None:
    files = {"/etc/hosts": b"127.0.0.1 here\n", "/etc/resolv.conf": b"nameserver 1.1.1.1\n"}
    spec = bare_steps.spec("/bin/sh", "-c", "cat /etc/hosts /etc/resolv.conf; echo x >> /etc/hosts", files=files)
    result = await bare_steps.run(runtime, spec)
    assert result.out == "127.0.0.1 here\nnameserver 1.1.1.1\n"
    assert "Read-only" in result.err
    assert listing(upper(spec)) == ["etc"]  # copied up for the mount point, and as it was below


@pytest.mark.parametrize("readonly_root", [False, True])
async def test_mount_points_are_unmade_and_times_restored(
    runtime: Runtime, bare_steps: Steps, tmp_path: Path, readonly_root: bool
) -> None:
    os.utime(bare_steps.base / "etc", ns=(5_000_000_000, 7_000_000_001))
    mounts = (
        TreeMountPoint(target="/a/b/c", tree=tree_of(tmp_path / "tree", f="f")),
        TmpfsMount(target="/var/cache"),
        BindMount(target="/etc/file", source="/etc/hostname"),
    )
    spec = bare_steps.spec(
        "/bin/ls", "-d", "/a/b/c/f", "/proc/self", "/sys/class", "/etc/hosts",
        mounts=mounts, files={"/etc/hosts": b"x"}, readonly_root=readonly_root,
    )  # fmt: skip
    os.utime(upper(spec), ns=(5_000_000_000, 9_000_000_001))
    assert (await bare_steps.run(runtime, spec)).code == 0
    assert listing(upper(spec)) == ["etc"]
    assert (upper(spec) / "etc").stat().st_mtime_ns == 7_000_000_001
    assert upper(spec).stat().st_mtime_ns == 9_000_000_001


async def test_what_the_step_put_beside_a_mount_point_stays(runtime: Runtime, bare_steps: Steps) -> None:
    mounts = (TmpfsMount(target="/made/mnt"), TmpfsMount(target="/gone/mnt"))
    spec = bare_steps.spec("/bin/sh", "-c", "echo kept > /made/file; echo x > /proc.txt", mounts=mounts)
    assert (await bare_steps.run(runtime, spec)).code == 0
    assert listing(upper(spec)) == ["made", "made/file", "proc.txt"]


async def test_tree_mounts(runtime: Runtime, steps: Steps, tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree", sub__dir__file="deep", top="top")
    spec = steps.spec(
        "/bin/sh", "-c", "cat /all/top /part/file /one; (echo > /all/x) 2>&1; echo changed > /rw/file; cat /rw/file",
        mounts=(
            TreeMountPoint(target="/all", tree=tree),
            TreeMountPoint(target="/part", tree=tree, selector="/sub/dir"),
            TreeMountPoint(target="/one", tree=tree, selector="sub/dir/file"),
            TreeMountPoint(target="/rw", tree=tree, selector="sub/dir", readonly=False),
        ),
    )  # fmt: skip
    result = await steps.run(runtime, spec)
    assert result.out.startswith("topdeepdeep")
    assert "Read-only" in result.out
    assert result.out.endswith("changed\n")
    assert (tmp_path / "tree/sub/dir/file").read_text() == "deep"


async def test_tree_mount_with_a_layer_of_its_own(runtime: Runtime, steps: Steps) -> None:
    extra = steps.layer()
    mount = TreeMountPoint(target="/work", tree=extra, readonly=False)
    assert (await steps.sh(runtime, "echo x > /work/out; ls /work/bin/sh", mounts=(mount,))).code == 0
    assert extra.upper
    assert listing(Path(extra.upper)) == ["out"]


@pytest.mark.parametrize(
    ("selector", "why"),
    [
        ("missing", "No such file"),
        ("../../../../etc/passwd", "No such file"),
        ("link", "/link is a symbolic link to /etc/passwd in the source of the mount, which leads nowhere"),
    ],
)
async def test_selector_stays_in_its_tree(
    runtime: Runtime, steps: Steps, tmp_path: Path, selector: str, why: str
) -> None:
    tree = tree_of(tmp_path / "tree", file="x")
    (tmp_path / "tree/link").symlink_to("/etc/passwd")
    with pytest.raises(UserError, match=why):
        await steps.sh(runtime, "cat /it", mounts=(TreeMountPoint(target="/it", tree=tree, selector=selector),))


async def test_bind_mounts(runtime: Runtime, steps: Steps, tmp_path: Path) -> None:
    for name in ("cache", "fixed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_text("old")
    mounts = (
        BindMount(target="/cache", source=str(tmp_path / "cache")),
        BindMount(target="/fixed", source=str(tmp_path / "fixed"), readonly=True),
        BindMount(target="/cache/inner/file", source=str(tmp_path / "fixed/old")),
    )
    result = await steps.sh(
        runtime,
        "cat /cache/old /fixed/old /cache/inner/file; echo new > /cache/new; echo x > /fixed/new",
        mounts=mounts,
    )
    assert result.out == "oldoldold"
    assert "Read-only" in result.err
    assert (tmp_path / "cache/new").read_text() == "new\n"


async def test_socket_mounts(runtime: Runtime, steps: Steps, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        mount = BindMount(target="/run/agent.sock", source=str(tmp_path / "agent"))
        assert (await steps.sh(runtime, "test -S /run/agent.sock", mounts=(mount,))).code == 0


async def test_tmpfs_mounts(runtime: Runtime, steps: Steps) -> None:
    spec = steps.spec(
        "/bin/sh", "-c", "df -k /mem | tail -1; stat -c %a /mem /mem2; (cp /bin/true /mem2 && /mem2/true) 2>&1; "
        "dd if=/dev/zero of=/mem/x bs=1k count=3000 2>&1 | grep -i space",
        mounts=(
            TmpfsMount(target="/mem", size=2 << 20, mode=0o700),
            TmpfsMount(target="/mem2", options=("noexec", "uid=5")),
        ),
    )  # fmt: skip
    result = await steps.run(runtime, spec)
    lines = result.out.splitlines()
    assert "2048" in lines[0]
    assert lines[1:3] == ["700", "1777"]
    assert "ermission denied" in lines[3]
    assert "No space" in lines[4]
    assert listing(upper(spec)) == []


async def test_read_only_root(runtime: Runtime, steps: Steps) -> None:
    spec = steps.spec(
        "/bin/sh", "-c", "echo x > /x; echo y > /tmp/y && cat /tmp/y; echo z > /dev/shm/z && pwd", readonly_root=True,
        mounts=(TmpfsMount(target="/tmp"),),
        cwd="/tmp",
    )  # fmt: skip
    result = await steps.run(runtime, spec)
    assert result.out == "y\n/tmp\n"
    assert "Read-only" in result.err
    assert listing(upper(spec)) == []


async def test_root_without_a_layer_forgets_what_was_written(runtime: Runtime, steps: Steps) -> None:
    root = TreeMount(lowers=(str(steps.base),))
    result = await steps.sh(runtime, "echo x > /x && rm /etc/passwd && ls /x /etc", root=root)
    assert result.out.split() == ["/x", "/etc:", "hosts", "resolv.conf"]
    assert not (steps.base / "x").exists()


async def test_mount_targets_are_resolved_inside_the_root(runtime: Runtime, steps: Steps, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    spec = steps.spec(
        "/bin/sh", "-c", "ls -d /cache/probe /rel/probe /abs/probe",
        mounts=(
            TmpfsMount(target="/abs/probe"),
            TmpfsMount(target="/rel/probe"),
            TmpfsMount(target="/../../cache/probe"),
        ),
    )  # fmt: skip
    (upper(spec) / "abs").symlink_to(outside)
    (upper(spec) / "rel").symlink_to("../" * 20 + str(outside))
    assert (await steps.run(runtime, spec)).code == 0
    assert listing(outside) == []
    assert listing(upper(spec)) == ["abs", "rel", "tmp"]  # /tmp of the image is where the links lead


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
async def test_image_with_links_for_mount_points(runtime: Runtime, bare_steps: Steps, name: str) -> None:
    spec = bare_steps.spec("/bin/true")
    (upper(spec) / name).symlink_to("/etc")
    with pytest.raises(UserError, match=f"/{name} is a symbolic link"):
        await bare_steps.run(runtime, spec)


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (TmpfsMount(target="/etc/passwd"), "where a directory is to be mounted"),
        (SecretFile(target="/etc"), "where a file is to be mounted"),
        (TmpfsMount(target="/etc/passwd/below"), "is no directory in the image"),
        (TmpfsMount(target="/loop/x"), "is a symbolic link to loop in the image, which leads in circles"),
        (TmpfsMount(target="/proc/1"), "cannot mount anything"),
        (TmpfsMount(target="/sys"), "cannot mount anything"),
        (TmpfsMount(target="/"), "cannot mount anything"),
        (TmpfsMount(target="/bin/../proc"), "cannot mount anything"),
    ],
)
async def test_targets_that_cannot_be(
    builtin: Runtime, steps: Steps, mount: TmpfsMount | SecretFile, message: str
) -> None:
    spec = steps.spec("/bin/true", mounts=(mount,))
    (upper(spec) / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=message):
        await steps.run(builtin, spec, {mount.target: b""})


async def test_mount_point_in_a_read_only_tree(builtin: Runtime, steps: Steps, tmp_path: Path) -> None:
    tree = tree_of(tmp_path / "tree", f="f")
    mounts = (TreeMountPoint(target="/src", tree=tree), TmpfsMount(target="/src/missing"))
    with pytest.raises(UserError, match="/src/missing cannot be made: Read-only"):
        await steps.sh(builtin, "true", mounts=mounts)


async def test_source_that_is_not_there(builtin: Runtime, steps: Steps) -> None:
    with pytest.raises(HostError, match="mounting /no/such at /x"):
        await steps.sh(builtin, "true", mounts=(BindMount(target="/x", source="/no/such"),))


@pytest.mark.parametrize("lacking", [(), ("lowerdir+", "detached")])
async def test_many_layers(steps: Steps, many_layers: list[str], lacking: tuple[str, ...]) -> None:
    count = 120 if lacking else 499
    layer = steps.layer()
    lowers = (*many_layers[:count], *layer.lowers)
    tree = TreeMount(lowers=lowers, upper=layer.upper, work=layer.work)
    async with open_runtime(lacking=lacking) as runtime:
        part = TreeMountPoint(target="/part", tree=TreeMount(lowers=lowers), selector="bin")
        result = await steps.sh(runtime, "ls /f* | wc -l; ls /part/sh", root=tree, mounts=(part,))
        assert result.out == f"{count}\n/part/sh\n"


async def test_more_layers_than_an_overlay_takes(builtin: Runtime, steps: Steps) -> None:
    with pytest.raises(HostError, match="501 layers"):
        await steps.sh(builtin, "true", root=TreeMount(lowers=("/nowhere",) * 501))


async def test_layer_that_is_not_there(builtin: Runtime, steps: Steps) -> None:
    root = TreeMount(lowers=("/nowhere", str(steps.base)))
    with pytest.raises(HostError, match=r"mounting the root file system .2 layers.: .*/nowhere"):
        await steps.sh(builtin, "true", root=root)


async def test_a_layer_can_be_mounted_again(runtime: Runtime, steps: Steps) -> None:
    first = steps.spec("/bin/sh", "-c", "echo 1 > /n")
    await steps.run(runtime, first)
    assert (await steps.sh(runtime, "cat /n", root=first.root)).out == "1\n"


async def test_an_upper_directory_is_quiet_when_the_step_has_ended(runtime: Runtime, steps: Steps) -> None:
    """It becomes the lower layer of the next step at once: it must not be mounted any more."""
    first = steps.spec("/bin/sh", "-c", "sleep 1000 & echo 1 > /n")
    for number in range(2, 6):
        await steps.run(runtime, first)
        below = (str(upper(first)), *first.root.lowers)
        top = steps.layer()
        tree = TreeMount(lowers=below, upper=top.upper, work=top.work)
        first = steps.spec("/bin/sh", "-c", f"cat /n; echo {number} > /n", root=tree)
    assert (await steps.run(runtime, first)).out == "4\n"
