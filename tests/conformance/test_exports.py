"""The documents and archives of an export, byte for byte as BuildKit's: indexes, annotations, types, Windows paths.

Without compression: whose gzip it is would decide otherwise. Everything else that has a digest must have the same one.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.engines import Daemon
from tests.builds import FIXTURES, Store, write
from tests.conformance.peer import daemon

pytest_plugins = [FIXTURES]

EPOCH = "1700000000"
SIMPLE = """\
FROM scratch AS one
COPY files /
LABEL a=b
FROM scratch
ARG TARGETARCH
ENV ARCH=$TARGETARCH
WORKDIR /srv
COPY --from=one / /srv/
COPY --link files/d /linked
EXPOSE 80
HEALTHCHECK --interval=5s CMD true
CMD ["x"]
"""
WINDOWS = """\
# escape=`
FROM scratch AS one
WORKDIR C:\\app
COPY files\\a .\\
COPY --parents files\\d\\b C:/x/
WORKDIR sub\\dir
COPY ["files/d", "c:\\\\Program Files\\\\d\\\\"]
ADD files sub2
COPY <<A <<B c:\\in\\
hello
A
there
B
CMD echo %PATH%
FROM one
COPY --from=one \\app\\ c:\\again
ENTRYPOINT ["cmd.exe"]
"""
ANNOTATIONS = (
    "annotation.m=1,annotation-manifest[linux/arm64].m=2,annotation-manifest-descriptor.md=3,"
    "annotation-manifest-descriptor[linux/arm64].own=4,annotation-index.i=5,annotation-index-descriptor.id=6"
)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with daemon(tmp_path_factory.mktemp("peer")) as running:
        yield running


def theirs(peer: Daemon, context: Path, platforms: str, output: str) -> None:
    argv = [*peer.ctl(), "build", "--progress", "plain", "--frontend", "dockerfile.v0", "--no-cache"]
    argv += ["--local", f"context={context}", "--local", f"dockerfile={context}", "--output", output]
    argv += ["--opt", f"platform={platforms}", "--opt", f"build-arg:SOURCE_DATE_EPOCH={EPOCH}"]
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-4000:]


def ours(store: Store, context: Path, platforms: str, output: str) -> None:
    store.command("build", context, "--platform", platforms, "-o", output, environment={"SOURCE_DATE_EPOCH": EPOCH})


def contents(archive: Path) -> dict[str, bytes]:
    """The files of a tar archive."""
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}


@pytest.mark.parametrize(
    ("dockerfile", "platforms", "attrs"),
    [
        (SIMPLE, "linux/amd64,linux/arm64", f"type=oci,name=docker.io/library/app:1,{ANNOTATIONS}"),
        (SIMPLE, "linux/arm/v6,darwin/arm64", "type=oci,oci-mediatypes=false,annotation.x=1"),
        (SIMPLE, "linux/arm/v6", "type=oci,oci-mediatypes=false,annotation-manifest-descriptor.x=1"),
        (SIMPLE, "linux/amd64", "type=docker,name=docker.io/library/app:1"),
        (SIMPLE, "linux/s390x", "type=docker,oci-mediatypes=true,annotation.x=1"),
        (SIMPLE, "windows(10.0.17763.1)/amd64,windows(10.0.1)/amd64", "type=oci"),
        (WINDOWS, "windows/amd64", "type=oci"),
    ],
    ids=["index", "docker-list", "descriptor", "docker", "docker-oci", "versions", "windows"],
)
def test_images(dockerfile: str, platforms: str, attrs: str, peer: Daemon, empty_store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": dockerfile, "files/a": "1\n", "files/d/b": "2\n"})
    output = f"{attrs},compression=uncompressed,rewrite-timestamp=true,dest="
    theirs(peer, context, platforms, f"{output}{tmp_path}/theirs")
    ours(empty_store, context, platforms, f"{output}{tmp_path}/ours")
    expected, found = contents(tmp_path / "theirs"), contents(tmp_path / "ours")
    found.pop("repositories", None)  # for readers from before the content store
    assert json.loads(found["index.json"]) == json.loads(expected["index.json"])
    assert found == expected


@pytest.mark.parametrize("platforms", ["linux/amd64", "linux/arm/v6,darwin/arm64"])
def test_files(platforms: str, peer: Daemon, empty_store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": SIMPLE, "files/a": "1\n", "files/d/b": "2\n"})
    theirs(peer, context, platforms, f"type=tar,dest={tmp_path}/theirs")
    ours(empty_store, context, platforms, f"type=tar,dest={tmp_path}/ours")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
