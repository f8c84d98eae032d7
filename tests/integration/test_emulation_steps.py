"""Steps whose programs are for another processor, through an emulator that they register for themselves."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from buildengine.errors import HostError
from tests.fakes.emulation_host import how_arm64_runs, registered_on_the_host
from tests.fakes.runtime_steps import Result, Steps, upper
from worker.runtime import binfmt
from worker.runtime.emulation import Emulator
from worker.runtime.runtime import Runtime
from worker.runtime.spec import ProcessSpec, Rlimit, StepLimits

pytest_plugins = ["tests.fakes.runtime_fixtures", "tests.fakes.emulation_fixtures"]
pytestmark = pytest.mark.timeout(300)  # the first one fetches packages

PATH = "PATH=/bin:/sbin"

# What the acceptance of emulation asks for, and all that a file can have of an owner.
_CHANGES = """
uname -m && grep -c builder /etc/passwd && su builder -c 'id -u; echo mine > /tmp/of-builder'
mkdir -p /made/by && chown 60000:60001 /made && chmod 2750 /made && chown 0:60000 /made/by
cp /sbin/getcap /made/program && setcap cap_net_raw,cap_chown+ep /made/program && getcap /made/program
cp /sbin/capsh /set-id && chmod 4755 /set-id && su builder -c '/set-id --print' | grep ^uid
chown builder:60000 /set-id; chmod 6711 /set-id; mkfifo -m 640 /made/fifo; ln -s x /made/link
chown -h 5:6 /made/link; rm -r /native; rm /etc/hosts; mkdir /native; touch /native/new
"""


class Emulated:
    """Runs steps on the arm64 base."""

    def __init__(self, steps: Steps, runtime: Runtime, emulator: Emulator | None) -> None:
        self.steps, self.runtime, self.emulator = steps, runtime, emulator

    def spec(self, script: str, **fields: object) -> ProcessSpec:
        return self.steps.spec("/bin/sh", "-c", script, **{"env": (PATH,), "emulator": self.emulator} | fields)

    async def sh(self, script: str, **fields: object) -> Result:
        return await self.steps.run(self.runtime, self.spec(script, **fields))


@pytest.fixture
def emulated(arm64_steps: Steps, builtin: Runtime, arm64_emulator: Emulator) -> Emulated:
    return Emulated(arm64_steps, builtin, arm64_emulator)


def entries(directory: Path) -> dict[str, tuple[object, ...]]:
    """Type and mode, owners, link text and xattrs (less overlay's own) of every path below."""
    found: dict[str, tuple[object, ...]] = {}
    for parent, folders, files in os.walk(directory):
        for path in (os.path.join(parent, name) for name in folders + files):
            info = os.lstat(path)
            names = [name for name in os.listxattr(path, follow_symlinks=False) if "overlay.origin" not in name]
            xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
            text = os.readlink(path) if stat.S_ISLNK(info.st_mode) else ""
            owners = (info.st_uid, info.st_gid)
            found[os.path.relpath(path, directory)] = (info.st_mode, owners, info.st_rdev, text, xattrs)
    return found


async def test_a_step_leaves_what_it_leaves_under_a_host_registration(
    emulated: Emulated, arm64_emulator: Emulator
) -> None:
    own = emulated.spec(_CHANGES)
    by_itself = await emulated.steps.run(emulated.runtime, own)
    with registered_on_the_host(arm64_emulator):
        assert how_arm64_runs() == "registered on the host"
        hosts = emulated.spec(_CHANGES, emulator=None)
        by_host = await emulated.steps.run(emulated.runtime, hosts)
    assert by_itself.out.splitlines() == [
        "aarch64", "1", "1000", "/made/program cap_chown,cap_net_raw=ep", "uid=1000(root) euid=0(root)",
    ]  # fmt: skip
    assert (by_itself.code, by_itself.out, by_itself.err) == (by_host.code, by_host.out, by_host.err)
    left = entries(upper(own))
    assert left == entries(upper(hosts))
    assert left["made"][:2] == (stat.S_IFDIR | 0o2750, (60000, 60001))
    assert left["etc/hosts"][2] == 0  # a whiteout: overlay's device 0:0
    assert stat.S_ISCHR(left["etc/hosts"][0])
    assert left["native"][-1] == {"trusted.overlay.opaque": b"y"}
    assert list(left["made/program"][-1]) == ["security.capability"]


async def test_every_runtime_uses_what_the_host_has_registered(
    arm64_steps: Steps, runtime: Runtime, arm64_emulator: Emulator
) -> None:
    with registered_on_the_host(arm64_emulator):
        step = Emulated(arm64_steps, runtime, None)
        result = await step.sh("uname -m; mknod /device c 1 3 && su builder -c 'id -u'")
    assert (result.code, result.out) == (0, "aarch64\n1000\n")


async def test_what_differs_there_is_refused(emulated: Emulated) -> None:
    result = await emulated.sh("mknod /device c 1 3; ping -c 1 127.0.0.1; nc -l -p 81; mknod /pipe p && test -p /pipe")
    assert result.code == 0
    assert [line.partition(":")[0] for line in result.err.splitlines()] == ["mknod", "ping", "nc"]
    assert "Operation not permitted" in result.err
    assert result.err.lower().count("permission denied") == 2


async def test_a_network_of_its_own_is_its_own(emulated: Emulated) -> None:
    """The namespace belongs to the step's user namespace: raw sockets and low ports work."""
    script = "ping -c 1 127.0.0.1 && (nc -l -p 81 </dev/null & sleep 0.3; echo word | nc -w 2 127.0.0.1 81)"
    result = await emulated.sh(script + "; ls /sys/class/net", network="none")
    assert "1 packets received" in result.out
    assert result.out.splitlines()[-2:] == ["word", "lo"]


async def test_device_files_are_the_steps_own(emulated: Emulated) -> None:
    result = await emulated.sh("head -c 3 /dev/zero | wc -c; chmod 600 /dev/null; ls -l /dev/null; echo > /dev/full")
    assert result.out.splitlines()[0] == "3"
    assert result.out.splitlines()[1].startswith("crw-------")
    assert "No space left" in result.err
    assert stat.S_IMODE(os.stat("/dev/null").st_mode) == 0o666


async def test_capabilities_and_filter_are_every_steps(emulated: Emulated) -> None:
    status = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status"
    own = await emulated.sh(f"cat /proc/self/uid_map; {status}; mount -t tmpfs x /tmp; hostname other")
    assert own.out.split()[:3] == ["0", "0", "4294967295"]
    assert "CapBnd:\t00000000a80425fb" in own.out
    assert "CapEff:\t00000000a80425fb" in own.out
    assert "Seccomp:\t2" in own.out
    assert "NoNewPrivs:\t0" in own.out
    assert len(own.err.splitlines()) == 2  # both refused


async def test_an_insecure_step_can_mount(emulated: Emulated) -> None:
    result = await emulated.sh("mount -t tmpfs x /tmp && hostname other && hostname", insecure=True)
    assert (result.code, result.out) == (0, "other\n")


async def test_a_native_program_of_the_image_cannot_write_to_the_emulator(emulated: Emulated) -> None:
    result = await emulated.sh('sleep 30 & /native/sh -c ": > /proc/$!/exe"')
    assert result.err.endswith("/exe: Read-only file system\n")


async def test_the_step_cannot_register_anything(emulated: Emulated) -> None:
    result = await emulated.sh("ls /proc/sys/fs/binfmt_misc; mkdir /b; mount -t binfmt_misc x /b; ls -l /proc/1/fd")
    assert "permission denied" in result.err.lower()
    assert "binfmt" not in result.out


async def test_limits_hold(emulated: Emulated) -> None:
    limits = (Rlimit(name="nofile", soft=40, hard=50), Rlimit(name="memlock", soft=4 << 20, hard=4 << 20))
    result = await emulated.sh("ulimit -n; ulimit -Hn; cat /proc/1/limits | grep locked", rlimits=limits)
    assert result.out.splitlines()[:2] == ["40", "50"]
    assert result.out.splitlines()[2].split()[3:5] == ["4194304", "4194304"]
    killed = await emulated.sh("tail /dev/zero", limits=StepLimits(memory=96 << 20))
    assert killed.exit.oom_killed


async def test_a_user_of_the_step_and_a_failure_to_start(emulated: Emulated) -> None:
    result = await emulated.sh("id -u; id -G; pwd; ls -ld .", uid=1000, gid=1001, groups=(60000,), cwd="/new")
    assert result.out.splitlines()[:3] == ["1000", "1001 60000", "/new"]
    assert result.out.splitlines()[3].split()[2:4] == ["builder", "1001"]
    assert (await emulated.sh("exit 42")).code == 42


async def test_an_emulator_that_cannot_be_registered(emulated: Emulated, arm64_emulator: Emulator) -> None:
    for program in ("/nonexistent/qemu", "/etc/passwd"):
        with pytest.raises(HostError, match="an emulator cannot be registered for the step") as raised:
            await emulated.sh("true", emulator=replace(arm64_emulator, program=program))
        assert "register qemu on the host" in (raised.value.hint or "")
    assert (await emulated.sh("true")).code == 0


async def test_nothing_reaches_the_host(emulated: Emulated) -> None:
    before = binfmt.entries()
    seen: list[list[dict[str, str]]] = []
    await emulated.runtime.run(emulated.spec("echo"), secrets={}, on_output=lambda *_: seen.append(binfmt.entries()))
    assert seen == [before]
    assert binfmt.entries() == before
