"""Whole builds for arm64 on a host of another kind: what a user sees."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.builds import FIXTURES, Store, write
from tests.fakes.emulation_host import registered_on_the_host
from worker.runtime import runnable
from worker.runtime.emulation import Emulator

pytest_plugins = [FIXTURES, "tests.fakes.emulation_fixtures"]
pytestmark = pytest.mark.timeout(300)  # the first one fetches packages

_DOCKERFILE = """
FROM scratch AS packages
ADD packages.tar /
SHELL ["/bin/busybox", "sh", "-ec"]
RUN mkdir -p /etc && echo 'user:x:60000:60000::/:/bin/sh' > /etc/passwd && /bin/busybox --install -s /bin

FROM packages
RUN uname -m; grep -c user /etc/passwd; su user -c 'id -u'; cp /sbin/getcap /tool; chown 60000:7 /etc/passwd
RUN setcap cap_net_raw+ep /tool; chmod 2755 /lib
"""
_FOREIGN = ("--platform", "linux/arm64")
# mov ebx, 7; mov eax, 1 (SYS_exit); int 0x80
_EXIT_7 = b"\xbb\x07\x00\x00\x00\xb8\x01\x00\x00\x00\xcd\x80"


def context(directory: Path, packages: Path, dockerfile: str) -> Path:
    write(directory, {"Dockerfile": dockerfile})
    shutil.copy(packages, directory / "packages.tar")
    return directory


def members(archive: Path) -> list[tuple[object, ...]]:
    capability = "SCHILY.xattr.security.capability"
    with tarfile.open(archive) as opened:
        return [
            (m.name, m.type, m.mode, m.uid, m.gid, m.size, m.linkname, m.pax_headers.get(capability)) for m in opened
        ]


def outputs(directory: Path) -> tuple[str, ...]:
    """The files, and the image in a layout, with nothing in it that depends on the day."""
    return "-o", f"type=tar,dest={directory}.tar", "-o", f"type=oci,tar=false,rewrite-timestamp=true,dest={directory}"


async def test_an_image_is_the_same_as_under_a_host_registration(
    empty_store: Store, arm64_packages: Path, arm64_emulator: Emulator, tmp_path: Path
) -> None:
    directory = context(tmp_path / "context", arm64_packages, _DOCKERFILE)
    empty_store.environment["SOURCE_DATE_EPOCH"] = "1700000000"
    own = await empty_store.build(directory, *_FOREIGN, *outputs(tmp_path / "own"))
    assert own.step("RUN uname -m").output.split() == ["aarch64", "1", "60000"]
    again = await empty_store.build(directory, *_FOREIGN)
    assert again.ran == []
    with registered_on_the_host(arm64_emulator):
        hosts = await empty_store.build(directory, *_FOREIGN, "--no-cache", *outputs(tmp_path / "host"))
    assert hosts.ran == own.ran
    found = members(tmp_path / "own.tar")
    assert found == members(tmp_path / "host.tar")
    assert (tmp_path / "own/index.json").read_bytes() == (tmp_path / "host/index.json").read_bytes()  # every layer
    by_name = {str(entry[0]).removeprefix("./"): entry for entry in found}
    assert by_name["etc/passwd"][3:5] == (60000, 7)
    assert by_name["tool"][-1] is not None
    assert by_name["lib"][2] == 0o2755


@pytest.mark.usefixtures("unregistered_host")
async def test_what_the_namespace_refuses_is_said(empty_store: Store, arm64_packages: Path, tmp_path: Path) -> None:
    dockerfile = 'FROM scratch\nADD packages.tar /\nRUN ["/bin/busybox", "mknod", "/device", "c", "1", "3"]\n'
    directory = context(tmp_path / "context", arm64_packages, dockerfile)
    ended = empty_store.command("build", directory, *_FOREIGN, status=1)
    assert "mknod: /device: Operation not permitted" in ended.error
    assert "the step ran emulated" in ended.error
    assert "making device files" in ended.error


@pytest.mark.usefixtures("unregistered_host")
async def test_without_an_emulator_the_error_names_the_package(
    empty_store: Store, arm64_packages: Path, tmp_path: Path
) -> None:
    os.mkdir(tmp_path / "nothing")
    dockerfile = 'FROM scratch\nADD packages.tar /\nRUN ["/bin/busybox", "true"]\n'
    directory = context(tmp_path / "context", arm64_packages, dockerfile)
    nowhere = {"PYBUILD_WORKER_EMULATORS": str(tmp_path / "nothing")}
    ended = empty_store.command("build", directory, *_FOREIGN, status=3, environment=nowhere)
    assert "steps for linux/arm64 need an emulator" in ended.error
    assert "qemu-user-static" in ended.error
    assert "Dockerfile:3" in ended.error


@pytest.mark.usefixtures("unregistered_host")
async def test_the_table(empty_store: Store) -> None:
    ended = empty_store.command("debug", "platforms")
    assert ended.stdout.splitlines()[0].split() == ["PLATFORM", "HOW"]
    assert "linux/arm64      emulated by /usr/bin/qemu-aarch64-static in the step" in ended.stdout.splitlines()


@pytest.mark.usefixtures("unregistered_host")
@pytest.mark.parametrize("runtime", ["runc", "crun"])
async def test_another_runtime_uses_only_what_the_host_has_registered(
    empty_store: Store, arm64_packages: Path, tmp_path: Path, runtime: str
) -> None:
    empty_store.environment["PYBUILD_WORKER_RUNTIME"] = runtime
    dockerfile = 'FROM scratch\nADD packages.tar /\nRUN ["/bin/busybox", "true"]\n'
    directory = context(tmp_path / "context", arm64_packages, dockerfile)
    ended = empty_store.command("build", directory, *_FOREIGN, status=3)
    said = f"{runtime} does not register /usr/bin/qemu-aarch64-static for a step"
    assert said in ended.error
    assert "use the built-in runtime, or register qemu on the host" in ended.error
    table = map(json.loads, empty_store.command("debug", "platforms", "--json").stdout.splitlines())
    (row,) = [row for row in table if row["platform"] == "linux/arm64"]
    assert (row["runs"], row["reason"].startswith(said)) == (False, True)


@pytest.mark.machine("x86_64")  # a program of its ancestor
async def test_a_32_bit_step_runs_natively(empty_store: Store, tmp_path: Path) -> None:
    """Under the filter of its own architecture."""
    context = write(tmp_path / "context", {"Dockerfile": 'FROM scratch\nADD program /\nRUN ["/program"]\n'})
    (context / "program").write_bytes(runnable.program_32(3, _EXIT_7))
    (context / "program").chmod(0o755)
    ended = await empty_store.build(context, "--platform", "linux/386", status=1)
    assert "exit code: 7" in ended.error
