"""What is taken for an archive where a Dockerfile or an archive may come."""

from __future__ import annotations

import io
import tarfile

import pytest

from buildengine.archive import is_archive


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_is_known_by_its_checksum(format: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        archive.addfile(tarfile.TarInfo("a"))
    data = buffer.getvalue()
    assert is_archive(data)
    assert is_archive(data[:512])
    assert not is_archive(data[:511])
    assert not is_archive(b"b" + data[1:])
    assert not is_archive(data[:148] + b"-1\0     " + data[156:])


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_what_is_compressed_is_an_archive(mode: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{mode}"):
        pass
    assert is_archive(buffer.getvalue())


def test_zstd_by_its_magic() -> None:
    assert is_archive(b"\x28\xb5\x2f\xfd")


@pytest.mark.parametrize("text", [b"", b"FROM busybox\n", b"FROM busybox\n" * 100, bytes(512), b"\x1f\x8b"])
def test_what_is_no_archive(text: bytes) -> None:
    assert not is_archive(text)
