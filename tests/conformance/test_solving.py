"""One definition, two engines: the archives that both export hold the same files."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from buildengine.builder import BuildRequest, Export
from buildengine.daemon.engine import open_engine
from buildengine.daemon.local_session import DockerConfigCredentials, local_session
from buildengine.events import discard
from buildengine.platform import local
from frontends import catalog
from frontends.gateway import FrontendRequest, FrontendResult, Gateway, PlatformResult
from llb.definition import Definition
from tests.bench.engines import BuildKit
from tests.builds import FIXTURES, Store
from tests.conformance import peer
from tests.conformance.definitions import ROOTFS, SOLVED, TIME
from tests.fakes.runtime_steps import make_rootfs

pytest_plugins = [FIXTURES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A frontend whose result is a definition that was made elsewhere."""

    definition: Definition

    async def build(self, gateway: Gateway, request: FrontendRequest) -> FrontendResult:
        result = PlatformResult(platform=local(), definition=self.definition, config=b"{}")
        return FrontendResult(results=(result,))


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rootfs(tmp_path_factory.mktemp("conformance") / ROOTFS)


@pytest.fixture(scope="module")
def buildkit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuildKit]:
    with peer.daemon(tmp_path_factory.mktemp("buildkit")) as running:
        yield running


async def solve(store: Store, definition: Definition, archive: Path, directories: Mapping[str, Path]) -> None:
    """Build a definition with an engine of ours into a tar archive."""
    request = BuildRequest(
        ref=archive.name,
        directories=directories,
        exports=(Export(type="tar", dest=str(archive)),),
        platforms=(local(),),
    )
    credentials = DockerConfigCredentials(Path("/nowhere"), {})
    async with open_engine(store.config) as engine:
        await engine.build(request, local_session(request, credentials=credentials, environment={}), discard)


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
    name: str, buildkit: BuildKit, rootfs: Path, empty_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "find", lambda _: Given(definition=SOLVED[name]))
    theirs, ours = tmp_path / "theirs.tar", tmp_path / "ours.tar"
    peer.solve(buildkit, SOLVED[name], theirs, rootfs)
    await solve(empty_store, SOLVED[name], ours, {ROOTFS: rootfs})
    expected = files(theirs)
    assert expected
    assert _different(files(ours), expected) == []


def _different(ours: Mapping[str, tuple[object, ...]], theirs: Mapping[str, tuple[object, ...]]) -> Sequence[str]:
    names = sorted(set(ours) | set(theirs))
    return [f"{n}: {ours.get(n)} here, {theirs.get(n)} there" for n in names if ours.get(n) != theirs.get(n)]
