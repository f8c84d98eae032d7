"""A root of arm64 programs for tests, made of Debian's packages, and steps on it.

A test module asks for them with `pytest_plugins = [__name__ of this]`. The packages are fetched once a session.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from buildengine.platform import parse
from tests.fakes.runtime_steps import BUSYBOX, Steps, make_rootfs
from tests.needs import lacking
from worker.runtime import isolate, runnable
from worker.runtime.emulation import FORMATS, Emulator

QEMU = Path("/usr/bin/qemu-aarch64-static")
_NATIVE = ("sh", "cat", "ls", "mount", "uname")  # programs of this host in /native


@pytest.fixture(scope="session")
def arm64_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static busybox and setcap, unpacked into a tar archive."""
    archive = tmp_path_factory.mktemp("arm64") / "packages.tar"
    argv = ["mmdebstrap", "--quiet", "--architectures=arm64", "--variant=extract"]
    argv += ["--include=busybox-static,libcap2-bin", "bookworm", str(archive)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return archive


@pytest.fixture(scope="session")
def arm64_base(arm64_packages: Path) -> Path:
    """A root with all names of busybox, and a few programs of this host's processor in /native."""
    isolate.private_mounts()
    base = make_rootfs(arm64_packages.parent / "base")
    (base / "bin/busybox").unlink()
    subprocess.run(["tar", "-C", base, "--exclude=./dev", "-xf", arm64_packages], check=True)
    (base / "native").mkdir()
    shutil.copy(BUSYBOX, base / "native/busybox")
    for name in _NATIVE:
        (base / "native" / name).symlink_to("busybox")
    return base


@pytest.fixture
def arm64_steps(arm64_base: Path, tmp_path: Path) -> Steps:
    return Steps(arm64_base, tmp_path)


@pytest.fixture
def unregistered_host() -> None:
    """Without it, what a test says about a host that has registered nothing would not be tested."""
    if runnable.choose(parse("linux/arm64")).kind != "own":
        lacking("this host has registered an emulator for arm64")


@pytest.fixture(scope="session")
def arm64_emulator() -> Emulator:
    """What an arm64 step registers for itself, however this host is set up."""
    form = FORMATS["arm64"]
    return Emulator(name="qemu-aarch64", program=str(QEMU), magic=form.header(), mask=form.mask())
