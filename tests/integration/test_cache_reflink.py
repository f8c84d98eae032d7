"""A file system that can share blocks between files: what the store copies there costs no space."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builds import FIXTURES, Store, write
from tests.fakes.runtime_steps import BUSYBOX
from tests.needs import lacking

pytest_plugins = [FIXTURES]

SIZE = 24 << 20
WRITTEN = """\
FROM scratch AS first
COPY bin /bin
COPY big /big
RUN ["/bin/sh", "-c", "echo more >> /big"]
"""
COPIED = "FROM scratch\nCOPY --from=first /big /again\n"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """An XFS in a file, mounted in the mount namespace of the tests."""
    image, place = tmp_path / "disk", tmp_path / "xfs"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "xfs", "-o", "loop", image, place], capture_output=True, text=True)
    if "unknown filesystem type" in mounted.stderr:
        lacking("this kernel has no XFS")
    assert mounted.returncode == 0, mounted.stderr
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize(
    ("snapshotter", "dockerfile", "count"),
    [
        ("overlay", WRITTEN, 2),  # the kernel copies up what a step writes to
        ("copy", WRITTEN + COPIED, 3),
    ],
    ids=["overlay", "copy"],
)
async def test_copies_share_their_blocks(
    place: Path, tmp_path: Path, snapshotter: str, dockerfile: str, count: int
) -> None:
    context = write(place / "context", {"Dockerfile": dockerfile, "big": os.urandom(SIZE)})
    (context / "bin").mkdir()
    shutil.copy(BUSYBOX, context / "bin/sh")
    store = Store(place / "root", tmp_path, PYBUILD_WORKER_SNAPSHOTTER=snapshotter)
    before = used(place)
    await store.build(context)
    copies = [path for path in store.root.rglob("*") if path.is_file() and path.stat().st_size >= SIZE]
    assert len(copies) >= count
    assert used(place) - before < SIZE, f"{len(copies)} copies of {SIZE} bytes"


def used(place: Path) -> int:
    """How many bytes of the file system are taken, once everything is written."""
    subprocess.run(["sync", "--file-system", place], check=True)
    state = os.statvfs(place)
    return (state.f_blocks - state.f_bfree) * state.f_frsize
