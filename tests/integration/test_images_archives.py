"""What others do with the archives we write: skopeo reads and copies them, umoci unpacks them, runc runs them.

And back: what skopeo has copied is loaded again under the same digests; GNU tar and Python list the same layers.
"""

from __future__ import annotations

import json
import re
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.bases import digest
from tests.builds import write
from tests.fakes import file_trees
from tests.fakes import image_tools as tools
from tests.fakes.image_cases import CASES
from tests.fakes.image_tools import Bench
from worker.layers.tar import Kind, TarHeader
from worker.layers.tarreader import TarReader

pytest_plugins = [tools.FIXTURES]

_DOCKERFILE = """
FROM {base}
RUN echo data > /data && chmod 600 /data && chown 1000 /data
COPY run /usr/local/bin/
ENV GREETING="hello there"
LABEL stage=test
WORKDIR /srv
USER 1000:1000
ENTRYPOINT ["/usr/local/bin/run"]
CMD ["one", "two words"]
"""
_SCRIPT = """#!/bin/sh
echo "$GREETING: $# arguments, the last is $2"
echo "$(id -u):$(id -g) in $(pwd) reads $(cat /data)"
"""


def _build(bench: Bench, work: Path, *flags: str, base: str = "busybox") -> dict[str, Any]:
    """Build the image of this module; what the metadata file says."""
    context = write(work / "context", {"Dockerfile": _DOCKERFILE.format(base=base), "run": _SCRIPT})
    (context / "run").chmod(0o755)
    bench.pybuild.build(context, *flags, "--metadata-file", work / "metadata.json")
    document: dict[str, Any] = json.loads((work / "metadata.json").read_bytes())
    return document


def test_skopeo_reads_an_oci_archive(bench: Bench, work: Path) -> None:
    told = _build(bench, work, "-o", f"type=oci,name=app:1.2,dest={work}/app.tar")
    image = f"oci-archive:{work}/app.tar:1.2"
    seen = tools.inspect(image)
    assert seen["Digest"] == told["containerimage.digest"]
    assert (seen["Architecture"], seen["Os"], seen["Labels"]) == ("amd64", "linux", {"stage": "test"})
    assert "GREETING=hello there" in seen["Env"]
    manifest = tools.inspect(image, "--raw")
    assert manifest["config"]["digest"] == told["containerimage.config.digest"]
    assert seen["Layers"] == [layer["digest"] for layer in manifest["layers"]]
    assert len(seen["Layers"]) == 4


def test_skopeo_reads_a_docker_archive(bench: Bench, work: Path) -> None:
    told = _build(bench, work, "-o", f"type=docker,name=app:1.2,dest={work}/app.tar")
    assert tools.inspect(f"docker-archive:{work}/app.tar:app:1.2")["Labels"] == {"stage": "test"}
    manifest = tools.inspect(f"docker-archive:{work}/app.tar:app:1.2", "--raw")
    assert manifest["config"]["digest"] == told["containerimage.config.digest"]
    config = tools.inspect(f"docker-archive:{work}/app.tar:app:1.2", "--config", "--raw")
    assert [layer["digest"] for layer in manifest["layers"]] == config["rootfs"]["diff_ids"]  # it unpacks them
    assert tools.inspect(f"oci-archive:{work}/app.tar")["Digest"] == told["containerimage.digest"]  # it is both


def test_a_copy_to_a_directory_and_back_has_the_same_digest(bench: Bench, work: Path) -> None:
    told = _build(bench, work, "-o", f"type=oci,name=app:1.2,dest={work}/app.tar")
    tools.skopeo("copy", "--quiet", f"oci-archive:{work}/app.tar", f"dir:{work}/dir")
    assert digest((work / "dir/manifest.json").read_bytes()) == told["containerimage.digest"]
    tools.skopeo("copy", "--quiet", f"dir:{work}/dir", f"oci-archive:{work}/back.tar:back:1")
    assert tools.inspect(f"oci-archive:{work}/back.tar")["Digest"] == told["containerimage.digest"]
    other = tools.pybuild(work, bench.host)
    assert other("image", "load", "-i", work / "back.tar").decode() == "Loaded image: back:1\n"
    (seen,) = json.loads(other("image", "inspect", "back:1"))
    assert (seen["Digest"], seen["Id"]) == (told["containerimage.digest"], told["containerimage.config.digest"])


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
def test_saved_copied_and_loaded_again(bench: Bench, work: Path, transport: str) -> None:
    types = "true" if transport == "oci-archive" else "false"
    told = _build(bench, work, "-t", "saved:1", "-t", "again:2", "-o", f"type=image,oci-mediatypes={types}")
    bench.pybuild("image", "save", "saved:1", "-o", work / "saved.tar")
    name = "saved:1" if transport == "docker-archive" else "1"
    tools.skopeo("copy", "--quiet", f"{transport}:{work}/saved.tar:{name}", f"{transport}:{work}/copy.tar:saved:1")
    other = tools.pybuild(work, bench.host)
    assert other("image", "load", "-i", work / "copy.tar").decode() == "Loaded image: saved:1\n"
    (mine,), (seen,) = (json.loads(engine("image", "inspect", "saved:1")) for engine in (bench.pybuild, other))
    assert sorted(mine["RepoTags"]) == ["again:2", "saved:1"]
    assert seen["Id"] == mine["Id"] == told["containerimage.config.digest"]
    assert seen["RootFS"] == mine["RootFS"]
    if transport == "oci-archive":
        assert seen["Layers"] == mine["Layers"]
    other("debug", "verify-store")


@pytest.mark.parametrize("base", ["busybox", "debian"])
def test_umoci_unpacks_it_and_runc_runs_it(bench: Bench, work: Path, base: str) -> None:
    _build(bench, work, "-o", f"type=oci,name=app,dest={work}/app.tar", base=base)
    said = tools.run_container(tools.extracted(work / "app.tar"), work, tag="latest")
    assert said.splitlines() == ["hello there: 2 arguments, the last is two words", "1000:1000 in /srv reads data"]


@pytest.mark.parametrize("compression", ["zstd", "uncompressed"])
def test_skopeo_converts_the_other_compressions(bench: Bench, work: Path, compression: str) -> None:
    outputs = [f"type=oci,name=x,compression={c},force-compression=true,dest={work}/{c}" for c in ("gzip", compression)]
    _build(bench, work, *(f"--output={output}" for output in outputs))
    layers = tools.inspect(f"oci-archive:{work}/{compression}", "--raw")["layers"]
    suffix = "tar+zstd" if compression == "zstd" else "tar"
    assert {layer["mediaType"].rpartition(".")[2] for layer in layers} == {suffix}
    trees = []
    for name in ("gzip", compression):
        layout = tools.layout_of(f"oci-archive:{work}/{name}", work / f"{name}.layout")
        trees.append(file_trees.listing(tools.unpack(layout, work / f"{name}.tree")))
    assert file_trees.differences(*trees, since=float("inf")) == []


# --- layers, listed three times -------------------------------------------------------------------------------

Line = tuple[str, str, str, int, str, str]  # mode, owner, size or device, time, name, target


@pytest.mark.parametrize("name", ["special", "context", "archives", "deletions"])
def test_gnu_tar_python_and_we_list_the_same(bench: Bench, work: Path, name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    bench.pybuild.build(case.prepare(work / "context"), "-o", f"type=oci,compression=uncompressed,dest={work}/x.tar")
    layout = tools.extracted(work / "x.tar")
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(_blob(layout, index["manifests"][0]["digest"]).read_bytes())
    for layer in manifest["layers"]:
        blob = _blob(layout, layer["digest"])
        if blob.read_bytes()[:2] == b"\x1f\x8b":  # of the base, as it came
            continue
        ours = list(_our_listing(blob))
        assert ours
        assert ours == list(_python_listing(blob))
        assert ours == list(_gnu_listing(blob))


def _blob(layout: Path, name: str) -> Path:
    return layout / "blobs" / name.replace(":", "/")


_KINDS = {
    Kind.FILE: stat.S_IFREG,
    Kind.LINK: stat.S_IFREG,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHAR: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FIFO: stat.S_IFIFO,
}


def _our_listing(blob: Path) -> Iterator[Line]:
    reader = TarReader()
    for entry in reader.feed(blob.read_bytes()):
        if isinstance(entry, TarHeader):
            mode = stat.filemode(_KINDS[entry.kind] | entry.mode)
            device = entry.kind in (Kind.CHAR, Kind.BLOCK)
            yield (
                "h" + mode[1:] if entry.kind is Kind.LINK else mode,
                f"{entry.uid}/{entry.gid}",
                f"{entry.major},{entry.minor}" if device else str(entry.size),
                entry.mtime // 1_000_000_000,
                _escaped(entry.name),
                _escaped(entry.linkname),
            )


def _python_listing(blob: Path) -> Iterator[Line]:
    with tarfile.open(blob, errors="surrogateescape") as archive:
        for entry in archive:
            mode = stat.filemode(_KINDS[Kind(entry.type)] | entry.mode)
            yield (
                "h" + mode[1:] if entry.islnk() else mode,
                f"{entry.uid}/{entry.gid}",
                f"{entry.devmajor},{entry.devminor}" if entry.isdev() and not entry.isfifo() else str(entry.size),
                int(entry.mtime),
                _escaped(entry.name.encode("utf-8", "surrogateescape") + (b"/" if entry.isdir() else b"")),
                _escaped(entry.linkname.encode("utf-8", "surrogateescape")),
            )


_LINE = re.compile(r"(\S{10}) (\S+) +(\S+) (\S+ \S+) (\S.*)")


def _gnu_listing(blob: Path) -> Iterator[Line]:
    flags = ["--list", "--verbose", "--full-time", "--numeric-owner", "--quoting-style=escape", "--file", str(blob)]
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
    done = subprocess.run(["tar", *flags], capture_output=True, check=True, env=environment)
    assert done.stderr == b""
    for line in done.stdout.decode().splitlines():
        found = _LINE.fullmatch(line)
        assert found, line
        mode, owner, size, time, rest = found.groups()
        name, _, target = rest.partition(" link to " if mode.startswith("h") else " -> ")
        yield mode, owner, size, int(datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp()), name, target


def _escaped(name: bytes) -> str:
    """As GNU tar's quoting style `escape` has it in the C locale."""
    known = {0x0A: "\\n", 0x5C: "\\\\"}
    return "".join(known.get(b) or (chr(b) if 0x20 <= b < 0x7F else f"\\{b:03o}") for b in name)
