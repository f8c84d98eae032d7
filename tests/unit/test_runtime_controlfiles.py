"""Files that the kernel makes as they are read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.runtime import controlfiles


def test_a_file_of_the_kernel_is_read_to_its_end() -> None:
    """One read(2) of it gives 4 KiB: it goes by lines, and there are more than those hold."""
    expected = Path("/proc/self/smaps").read_bytes()
    assert len(expected) > 1 << 14
    first, *_, last = expected.decode(errors="surrogateescape").splitlines()
    fd = os.open("/proc/self/smaps", os.O_RDONLY)
    try:
        assert len(os.read(fd, 1 << 20)) < len(expected) // 2
    finally:
        os.close(fd)
    found = controlfiles.read("/proc/self/smaps").splitlines()
    assert (found[0], found[-1].split()[0]) == (first, last.split()[0])


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_bytes(b"/mnt/\xff\n")
    assert os.fsencode(controlfiles.read(str(tmp_path / "mountinfo"))) == b"/mnt/\xff\n"


def test_each_text_is_a_write_of_its_own_and_an_error_names_it(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "control").touch()
    try:
        controlfiles.write("control", "a", "b", dir_fd=directory)
    finally:
        os.close(directory)
    assert (tmp_path / "control").read_text() == "ab"
    with pytest.raises(OSError, match="No space left") as caught:
        controlfiles.write("/dev/full", "x")
    assert caught.value.filename == "/dev/full = x"
