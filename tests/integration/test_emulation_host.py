"""What the host has registered, and how a step for another platform is run there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.fakes.emulation_host import how_arm64_runs, registered_on_the_host
from worker.runtime import binfmt, runnable
from worker.runtime.emulation import FORMATS, PLATFORMS, Emulator, Registration

pytest_plugins = ["tests.fakes.emulation_fixtures"]

_DEBIANS = Path("/usr/lib/binfmt.d")  # what qemu-user-static brings for systemd-binfmt
_IN_THE_STEP = "emulated by /usr/bin/qemu-aarch64-static in the step"


def test_the_packages_own_registrations_mean_the_same_programs() -> None:
    for architecture, form in FORMATS.items():
        path = _DEBIANS / f"qemu-{form.qemu}.conf"
        if architecture in ("amd64", "386") and not path.exists():
            continue  # Debian registers none for what an amd64 host runs
        _, _, kind, offset, magic, mask, _, _ = path.read_text().strip().split(":")
        assert (kind, offset) == ("M", "")
        theirs = Registration(interpreter="", flags="", offset=0, magic=_bytes(magic), mask=_bytes(mask))
        ours = Registration(interpreter="", flags="", offset=0, magic=form.header(), mask=form.mask())
        assert theirs.takes(form.header()), architecture
        assert ours.takes(theirs.magic), architecture


def _bytes(text: str) -> bytes:
    return re.sub(rb"\\x(..)", lambda match: bytes.fromhex(match[1].decode()), text.encode())


@pytest.mark.usefixtures("unregistered_host")
@pytest.mark.parametrize(
    ("flags", "expected"),
    [("POCF", "registered on the host"), ("PF", "registered on the host"), ("OCF", _IN_THE_STEP), ("P", _IN_THE_STEP)],
)
def test_a_registration_of_the_host_is_used_if_it_has_the_flags(
    arm64_emulator: Emulator, flags: str, expected: str
) -> None:
    assert how_arm64_runs() == _IN_THE_STEP
    with registered_on_the_host(arm64_emulator, flags):
        assert how_arm64_runs() == expected
    assert how_arm64_runs() == _IN_THE_STEP


def test_looking_mounts_nothing() -> None:
    before = Path("/proc/self/mountinfo").read_text(), len(os.listdir("/proc/self/fd"))
    binfmt.entries()
    assert (Path("/proc/self/mountinfo").read_text(), len(os.listdir("/proc/self/fd"))) == before


@pytest.mark.usefixtures("unregistered_host")
def test_the_table_of_this_host() -> None:
    table = {str(row.platform): row.how for row in runnable.table()}
    assert list(table) == [str(platform) for platform in PLATFORMS]
    assert table["linux/arm64"] == _IN_THE_STEP
    assert table["linux/amd64"] == "native"
    assert all(table.values())


def test_without_emulators_the_package_is_named(tmp_path: Path) -> None:
    (row,) = [row for row in runnable.table(directory=tmp_path) if str(row.platform) == "linux/s390x"]
    assert (row.how, row.reason) == (
        "",
        "steps for linux/s390x need an emulator, and this host has no static qemu-s390x",
    )
    assert "package qemu-user-static" in row.hint


def test_an_emulator_that_needs_its_libraries_is_none(tmp_path: Path) -> None:
    """Its dynamic loader would be looked for in the image."""
    (tmp_path / "qemu-s390x").symlink_to("/bin/sh")
    assert runnable.find_emulator("s390x", str(tmp_path)) == ""
    (tmp_path / "qemu-s390x").unlink()
    (tmp_path / "qemu-s390x").write_text("#!/bin/sh\n")
    (tmp_path / "qemu-s390x").chmod(0o755)
    assert runnable.find_emulator("s390x", str(tmp_path)) == ""
    (tmp_path / "qemu-s390x-static").symlink_to("/usr/bin/qemu-s390x-static")
    assert runnable.find_emulator("s390x", str(tmp_path)) == "/usr/bin/qemu-s390x-static"
