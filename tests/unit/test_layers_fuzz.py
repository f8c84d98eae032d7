"""Archives of any entries in any order: applied or refused, never anything else, and never anything outside."""

from __future__ import annotations

import io
import os
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buildengine.errors import BuildError
from cache.overlay import TreeMount
from tests.unit.layers_trees import archive, directory, file, opaque, symlink
from worker.layers.apply import apply
from worker.layers.removal import remove
from worker.layers.tar import Kind, TarHeader
from worker.layers.unpack import extraction_into

parts = st.sampled_from(
    [b"a", b"b", b"l", b"up", b"lower", b"..", b".", b"", b".wh.a", b".wh..wh..opq", b".wh...", b"n" * 256]
)
names = st.lists(parts, min_size=1, max_size=4).map(b"/".join)
targets = names | st.sampled_from([b"/", b"../../..", b"/lower", b"a", b"../outside", b"/proc/self/fd"])
entries = st.builds(
    TarHeader,
    name=names,
    kind=st.sampled_from(Kind),
    mode=st.integers(0, 0o7777),
    uid=st.sampled_from([0, 1000]),
    size=st.sampled_from([0, 10]),
    linkname=targets,
    major=st.sampled_from([0, 1]),
    minor=st.sampled_from([0, 3]),
    xattrs=st.dictionaries(st.sampled_from(["user.a", "trusted.overlay.opaque", "security.capability"]), st.just(b"1")),
)
archives = st.lists(entries, max_size=12).map(
    lambda headers: archive(*((header, b"x" * header.size if header.kind is Kind.FILE else b"") for header in headers))
)


@given(data=archives, cut=st.integers(1, 4000))
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_archive(data: bytes, cut: int, tmp_path: Path) -> None:
    work = tmp_path / os.urandom(8).hex()
    for name in ("lower", "layer", "plain", "outside"):
        (work / name).mkdir(parents=True)
    below = archive(
        directory(b"lower"), file(b"lower/a", b"1"), symlink(b"l", b"lower"), file(b"b"), symlink(b"up", b"..")
    )
    apply(io.BytesIO(below), work / "lower")
    before, open_before = os.stat(work / "lower" / "lower" / "a"), len(os.listdir("/proc/self/fd"))
    with suppress(BuildError):
        apply(io.BytesIO(data), work / "layer", lowers=TreeMount(lowers=(str(work / "lower"),)))
    root = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    with suppress(BuildError), extraction_into(root, (b"plain",), (5, 5)) as extraction:
        for start in range(0, len(data), cut):
            extraction.feed(data[start : start + cut])
        extraction.finish()
    assert sorted(os.listdir(work)) == ["layer", "lower", "outside", "plain"]
    assert os.listdir(work / "outside") == []
    after = os.stat(work / "lower" / "lower" / "a")
    assert (after.st_nlink, after.st_ctime_ns) == (before.st_nlink, before.st_ctime_ns)
    for name in (b"layer", b"plain"):
        remove(root, name)
    os.close(root)
    assert len(os.listdir("/proc/self/fd")) == open_before


def test_an_opaque_directory_that_is_replaced_hides_no_more_than_before(tmp_path: Path) -> None:
    data = archive(directory(b"a"), opaque(b"a"), file(b"a", b"1"), directory(b"a"), file(b"a/b", b"2"))
    apply(io.BytesIO(data), tmp_path)
    assert os.getxattr(tmp_path / "a", "trusted.overlay.opaque") == b"y"
    assert (tmp_path / "a" / "b").read_bytes() == b"2"
