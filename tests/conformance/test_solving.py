"""One definition, two engines: the archives that both export hold the same files."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from buildengine.builder import Export
from tests.bench.engines import Daemon
from tests.builds import FIXTURES, Store
from tests.conformance import peer
from tests.conformance.definitions import ROOTFS, SOLVED, TIME
from tests.fakes.given_definition import solve
from tests.fakes.runtime_steps import make_rootfs

pytest_plugins = [FIXTURES]


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rootfs(tmp_path_factory.mktemp("conformance") / ROOTFS)


@pytest.fixture(scope="module")
def buildkit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with peer.daemon(tmp_path_factory.mktemp("buildkit")) as running:
        yield running


def files(archive: Path) -> dict[str, tuple[object, ...]]:
    """All that counts of each member. A time is the definition's or the build's; a directory's says nothing."""
    found: dict[str, tuple[object, ...]] = {}
    with tarfile.open(archive) as opened:
        for member in opened:
            data = opened.extractfile(member) if member.isreg() else None
            digest = hashlib.sha256(data.read()).hexdigest() if data else ""
            when = "" if member.isdir() else "given" if member.mtime == TIME else "built"
            xattrs = {key: value for key, value in member.pax_headers.items() if key.startswith("SCHILY.xattr.")}
            what = (member.type, oct(member.mode), member.uid, member.gid, member.size, member.linkname)
            found[member.name.removeprefix("./").rstrip("/")] = (*what, digest, when, xattrs)
    return found


@pytest.mark.parametrize("name", SOLVED)
async def test_both_engines_make_the_same_files(
    name: str, buildkit: Daemon, rootfs: Path, empty_store: Store, tmp_path: Path
) -> None:
    theirs, ours = tmp_path / "theirs.tar", tmp_path / "ours.tar"
    peer.solve(buildkit, SOLVED[name], theirs, rootfs)
    await solve(empty_store, SOLVED[name], Export(type="tar", dest=str(ours)), {ROOTFS: rootfs})
    expected = files(theirs)
    assert expected
    assert _different(files(ours), expected) == []


def _different(ours: Mapping[str, tuple[object, ...]], theirs: Mapping[str, tuple[object, ...]]) -> Sequence[str]:
    names = sorted(set(ours) | set(theirs))
    return [f"{n}: {ours.get(n)} here, {theirs.get(n)} there" for n in names if ours.get(n) != theirs.get(n)]
