"""What a step cannot do: to the host, to its neighbours, to the engine that runs it."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from buildengine.errors import HostError, UserError
from cache.overlay import TreeMount
from tests.fakes.runtime_elf import elf_interpreter, exit_with_errno_of_opening, write_program
from tests.fakes.runtime_steps import KINDS, Steps, control_groups, listing, upper
from tests.needs import lacking
from worker.runtime import cgroups, syscalls
from worker.runtime.runtime import Kind, Runtime, open_runtime
from worker.runtime.spec import StepLimits, TmpfsMount

pytest_plugins = ["tests.fakes.runtime_fixtures"]

HOST = TreeMount(lowers=("/",))  # this host's files, with what a step writes thrown away
DEFAULT_CAPABILITIES = 0xA80425FB


def python(script: str, *arguments: str) -> tuple[str, ...]:
    """A Python of the host for steps whose root is HOST."""
    return (os.path.realpath(sys.executable), "-I", "-S", "-c", script, *arguments)


async def test_capabilities_and_filter(runtime: Runtime, steps: Steps) -> None:
    result = await steps.sh(runtime, "cat /proc/self/status")
    status = dict(line.split(":\t", 1) for line in result.out.splitlines() if ":\t" in line)
    ours = int(Path("/proc/self/status").read_text().split("CapBnd:\t")[1].split()[0], 16)
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == DEFAULT_CAPABILITIES & ours, name
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "0"  # set-uid programs work in a build, as with docker
    assert status["Seccomp"] == "2"


async def test_a_user_has_no_capabilities_but_may_gain_roots(runtime: Runtime, steps: Steps) -> None:
    spec = steps.spec("/bin/sh", "-c", "grep CapEff /proc/self/status; /rootly | grep CapEff", uid=1000)
    (upper(spec) / "rootly").write_bytes((steps.base / "bin/busybox").read_bytes())
    (upper(spec) / "rootly").chmod(0o4755)
    result = await steps.run(runtime, spec)
    assert int(result.out.split()[1], 16) == 0


CALLS = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    result = libc.syscall(*[ctypes.c_long(a) for a in arguments])
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]
print(*(call(*a) for a in %r))
"""


@pytest.mark.machine("x86_64")  # its numbers
async def test_system_calls(runtime: Runtime, steps: Steps, kind: Kind) -> None:
    calls = [
        (272, 0x10000000),  # unshare(CLONE_NEWUSER)
        (56, 0x10000000, 0, 0, 0, 0),  # clone(CLONE_NEWUSER)
        (435, 0, 0),  # clone3
        (165, 0, 0, 0, 0, 0),  # mount
        (250, 0, 0),  # keyctl
        (41, 40, 1, 0),  # socket(AF_VSOCK)
        (41, 38, 5, 0),  # socket(AF_ALG)
        (41, 1, 1, 0),  # socket(AF_UNIX)
        (135, 0x20000),  # personality(PER_LINUX | 0x20000)
        (135, 0x0040000),  # personality(ADDR_NO_RANDOMIZE)
        (9999,),
        (425, 0, 0),  # io_uring_setup
    ]
    result = await steps.run(runtime, steps.spec(*python(CALLS % calls), root=HOST))
    words = ["EPERM", "EPERM", "ENOSYS", "EPERM", "EPERM", "EPERM", "EPERM", "ok", "ok", "EPERM", "ENOSYS", "EPERM"]
    if kind == "crun":  # 1.8 has no answer of its own for calls newer than its libseccomp
        words[10] = "EPERM"
    assert result.out.split() == words
    if kind == "builtin":
        wide = [(41, 0x1_0000_0026, 5, 0), (0x40000000 | 39,)]  # AF_ALG in 32 of 64 bits; getpid of x32
        result = await steps.run(runtime, steps.spec(*python(CALLS % wide), root=HOST))
        assert result.out.split() == ["EPERM", "ENOSYS"]


KEYRING = """
import ctypes
print(ctypes.CDLL(None).syscall(250, 0, -3, 0))  # keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING)
"""


@pytest.mark.machine("x86_64")  # its number
async def test_a_step_that_may_use_keys_has_a_session_keyring_of_its_own(kind: Kind, steps: Steps) -> None:
    async with open_runtime(kind) as runtime:
        spec = steps.spec(*python(KEYRING), root=HOST, insecure=True)
        first, second = [int((await steps.run(runtime, spec)).out) for _ in range(2)]
    ours = int(ctypes.CDLL(None).syscall(250, 0, -3, 0))
    assert len({first, second, ours}) == 3
    assert min(first, second, ours) > 0


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A block device that root of this host can read."""
    (tmp_path / "disk").write_bytes(b"disk of the host".ljust(1 << 20, b"\0"))
    made = subprocess.run(["losetup", "-f", "--show", str(tmp_path / "disk")], capture_output=True, text=True)
    if made.returncode:
        lacking("no loop devices")
    name = made.stdout.strip()
    number = os.stat(name).st_rdev
    yield os.major(number), os.minor(number)
    subprocess.run(["losetup", "-d", name], check=True)


@pytest.mark.parametrize(
    ("kind", "lacking"),
    [*((kind, ()) for kind in KINDS), ("builtin", ("cgroups",))],  # an OCI runtime brings its own control groups
)
async def test_devices_of_the_host(
    kind: Kind, lacking: tuple[str, ...], steps: Steps, loop_device: tuple[int, int]
) -> None:
    major, minor = loop_device
    script = f"mknod /dev/l b {major} {minor}; mknod /l b {major} {minor}; cat /dev/l /l /image; mknod /n c 1 3; cat /n"
    spec = steps.spec("/bin/sh", "-c", script + "; echo x > /dev/null && head -c 1 /dev/zero | wc -c")
    os.mknod(upper(spec) / "image", 0o60666, os.makedev(major, minor))  # came with the image
    async with open_runtime(kind, lacking=lacking) as runtime:
        result = await steps.run(runtime, spec)
    assert "disk of the host" not in result.out
    assert result.out == "1\n"
    assert result.err.count("not permitted") + result.err.count("ermission denied") >= 3


@pytest.mark.parametrize("lacking", [(), ("mknod",)])
async def test_device_files_are_the_steps_own(kind: Kind, steps: Steps, lacking: tuple[str, ...]) -> None:
    before = os.stat("/dev/null")
    async with open_runtime(kind, lacking=lacking) as runtime:
        result = await steps.sh(
            runtime,
            "echo x > /dev/null; head -c 3 /dev/zero | wc -c; chmod 600 /dev/null /proc/self/fd/0; chown 5 /dev/zero",
        )
    assert result.out == "3\n"
    after = os.stat("/dev/null")
    assert (before.st_mode, before.st_uid) == (after.st_mode, after.st_uid)
    assert os.stat("/dev/zero").st_uid == 0


async def test_network_none(runtime: Runtime, steps: Steps) -> None:
    result = await steps.sh(
        runtime, "ls /sys/class/net; ip addr show lo; ping -c1 -w5 127.0.0.1 | grep -c ttl", network="none"
    )
    assert result.out.splitlines()[0] == "lo"
    assert "eth0" not in result.out
    assert "127.0.0.1/8" in result.out
    assert "LOOPBACK,UP" in result.out
    assert result.out.splitlines()[-1] == "1"


async def test_network_host(runtime: Runtime, steps: Steps) -> None:
    result = await steps.sh(runtime, "readlink /proc/self/ns/net; ls /sys/class/net")
    assert result.out.split() == [os.readlink("/proc/self/ns/net"), *sorted(os.listdir("/sys/class/net"))]


async def test_namespaces(runtime: Runtime, steps: Steps) -> None:
    names = ["mnt", "pid", "ipc", "uts", "cgroup"]
    result = await steps.sh(runtime, "for n in " + " ".join(names) + "; do readlink /proc/self/ns/$n; done; ls /proc")
    assert not set(result.out.split()[:5]) & {os.readlink(f"/proc/self/ns/{name}") for name in names}
    assert len([entry for entry in result.out.split()[5:] if entry.isdigit()]) == 1


ABSTRACT = """
import socket, sys
try:
    socket.socket(socket.AF_UNIX).connect("\\0" + sys.argv[1])
    print("reached")
except OSError as error:
    print(error.strerror)
"""


@pytest.fixture
def landlock_scopes() -> None:
    if syscalls.landlock_abi() < 6:
        lacking("no Landlock scopes in this kernel")


@pytest.mark.usefixtures("landlock_scopes")
@pytest.mark.parametrize(("lacking", "answer"), [((), "Operation not permitted"), (("landlock",), "reached")])
async def test_abstract_sockets_of_the_host(steps: Steps, lacking: tuple[str, ...], answer: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + str(steps.scratch))
        server.listen()
        script = python(ABSTRACT, str(steps.scratch))
        script = (script[0], "-I", *script[3:])
        async with open_runtime(lacking=lacking) as runtime:
            result = await steps.run(runtime, steps.spec(*script, root=HOST))
    assert result.out == answer + "\n"


async def test_masked_and_read_only_parts_of_proc(runtime: Runtime, steps: Steps) -> None:
    result = await steps.sh(
        runtime,
        "cat /proc/kcore /proc/keys /proc/timer_list | wc -c; ls /proc/acpi /sys/firmware | grep -c '^[a-z]';"
        " for f in /proc/sys/kernel/hostname /proc/irq/default_smp_affinity /sys/power/state; do echo x > $f; done;"
        " mount -t tmpfs none /tmp; umount /proc/kcore; chroot / true && echo chroot",
    )
    assert result.out.split() == ["0", "0", "chroot"]
    assert len([line for line in result.err.splitlines() if "hostname: Read-only" in line]) == 1
    assert "default_smp_affinity: Read-only" in result.err
    assert "mount: permission denied" in result.err
    assert "umount: can't unmount" in result.err


@pytest.fixture
def limiting_host() -> None:
    if cgroups.detect(*(Path(f"/proc/self/{name}").read_text() for name in ("mountinfo", "cgroup"))).kind == "none":
        lacking("no control groups on this host")


@pytest.mark.usefixtures("limiting_host")
async def test_own_control_groups_are_visible_and_read_only(builtin: Runtime, steps: Steps) -> None:
    result = await steps.sh(
        builtin, "cat /proc/self/cgroup; find /sys/fs/cgroup -name 'pids.max' -exec cat {} +; echo 1 > /sys/fs/cgroup/x"
    )
    assert "pybuild" not in result.out
    assert result.out.split()[-1] == "32768"
    assert "Read-only" in result.err


async def test_insecure(kind: Kind, steps: Steps) -> None:
    async with open_runtime(kind) as runtime:
        result = await steps.sh(
            runtime,
            "cat /proc/self/status; mount -t tmpfs none /tmp && echo mounted; ls /dev/fuse /dev/loop0 /dev/net/tun;"
            " head -c1 /dev/kmsg > /dev/null && echo kmsg; echo h > /proc/sys/kernel/hostname; hostname;"
            " mkdir /sys/fs/cgroup/pids/inner",
            insecure=True,
        )
    status = dict(line.split(":\t", 1) for line in result.out.splitlines() if ":\t" in line)
    ours = Path("/proc/self/status").read_text().split("CapBnd:\t")[1].split()[0]
    assert status["CapEff"] == status["CapBnd"] == ours
    assert status["Seccomp"] == "0"
    assert result.out.splitlines()[-6:] == ["mounted", "/dev/fuse", "/dev/loop0", "/dev/net/tun", "kmsg", "h"]
    assert control_groups("inner") == []


@pytest.mark.usefixtures("limiting_host")
async def test_processes_are_limited(runtime: Runtime, steps: Steps) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21; do sleep 5 & done; echo all"
    result = await steps.sh(runtime, script, limits=StepLimits(pids=20))
    assert "all" not in result.out
    assert "can't fork" in result.err


@pytest.mark.usefixtures("limiting_host")
async def test_memory_is_limited(runtime: Runtime, steps: Steps) -> None:
    limits = StepLimits(memory=40 << 20)
    result = await steps.sh(runtime, "head -c 200000000 /dev/zero | tail; exit 3", limits=limits)
    assert result.exit.oom_killed
    assert result.exit.peak_memory <= 40 << 20
    result = await steps.sh(runtime, "exit 3", limits=limits)
    assert not result.exit.oom_killed


@pytest.mark.usefixtures("limiting_host")
async def test_cpu_is_limited(builtin: Runtime, steps: Steps) -> None:
    script = (
        "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us || cat /sys/fs/cgroup/cpu.max"
    )
    result = await steps.sh(builtin, script, limits=StepLimits(cpus=0.5))
    assert result.out.split() == ["50000", "100000"]


async def test_limits_without_control_groups(steps: Steps) -> None:
    async with open_runtime(lacking=["cgroups"]) as runtime:
        assert (await steps.sh(runtime, "ls /sys/fs/cgroup; mknod /n c 1 3")).code == 1
        with pytest.raises(HostError, match="no cgroup controller to limit memory"):
            await steps.sh(runtime, "true", limits=StepLimits(memory=1 << 30))


@pytest.mark.usefixtures("limiting_host")
async def test_cgroup_parent(kind: Kind, steps: Steps) -> None:
    parent = f"pybuildtest-{os.getpid()}"
    async with open_runtime(kind) as runtime:
        for _ in range(2):
            result = await steps.sh(runtime, "grep -c cgroup /proc/self/mountinfo", cgroup_parent=parent + "/inner")
            assert result.code == 0
        with pytest.raises(UserError, match="leaves its hierarchy"):
            await steps.sh(runtime, "true", cgroup_parent="../..")
    assert control_groups(parent) == []


async def test_an_image_cannot_shadow_pythons_library(kind: Kind, steps: Steps) -> None:
    """Neither while the step starts nor when its start fails is a file of the image read by our own code."""
    spec = steps.spec("/nope")
    library = upper(spec) / sysconfig.get_path("stdlib").lstrip("/")
    for name in ("os", "encodings/__init__", "encodings/idna", "traceback", "linecache", "codecs", "pwd", "socket"):
        path = library / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("open('/taken', 'w')\n")
    for name in ("etc/nsswitch.conf", "etc/ld.so.preload", "etc/ld.so.cache"):
        (upper(spec) / name).parent.mkdir(exist_ok=True)
        (upper(spec) / name).write_text("passwd: evil\n/evil.so\n")
    async with open_runtime(kind) as runtime:
        with pytest.raises(UserError):
            await steps.run(runtime, spec)
        for bad in ("\udcff", "/tmp/\u20ac"):
            with pytest.raises(UserError):
                await steps.run(runtime, steps.spec(bad, root=spec.root))
    assert "taken" not in listing(upper(spec))


@pytest.mark.machine("x86_64")  # a program in its machine code
async def test_the_interpreter_cannot_be_overwritten(builtin: Runtime, steps: Steps) -> None:
    """`#!/proc/self/exe` makes the kernel run our Python with a dynamic loader of the image's choice."""
    spec = steps.spec("/script")
    path = elf_interpreter(Path(os.path.realpath(sys.executable)))
    write_program(upper(spec) / path.lstrip("/"), exit_with_errno_of_opening("/proc/self/exe"))
    (upper(spec) / "script").write_text("#!/proc/self/exe\n")
    (upper(spec) / "script").chmod(0o755)
    result = await steps.run(builtin, spec)
    assert errno.errorcode[result.code] == "EROFS"


async def test_no_mount_reaches_the_host(runtime: Runtime, steps: Steps) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    await steps.sh(runtime, "true", mounts=(TmpfsMount(target="/x"),), files={"/etc/hosts": b""})
    assert Path("/proc/self/mountinfo").read_text() == before
    assert str(steps.scratch) not in Path("/proc/1/mountinfo").read_text()
