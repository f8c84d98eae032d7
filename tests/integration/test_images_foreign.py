"""Building on images that others made: buildah's and skopeo's, from a registry and from archives that are loaded."""

from __future__ import annotations

import gzip
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bases import BaseImage, image, layer, push
from tests.builds import write
from tests.fakes import file_trees
from tests.fakes import image_tools as tools
from tests.fakes.file_trees import Entry
from tests.fakes.image_tools import Bench

pytest_plugins = [tools.FIXTURES]

_FOREIGN = """
FROM busybox
COPY tree /tree
RUN rm -rf /tree/gone && ln /tree/file /tree/hard && chmod 4711 /tree/set-id && chown 12:34 /tree/owned && \\
    mkfifo /tree/fifo && rm /bin/zcat && rm -rf /var/spool
RUN rm -rf /tree/replaced && mkdir /tree/replaced && echo new > /tree/replaced/new && rm -r /tree/emptied/*
ENV FOREIGN=yes
USER 12
HEALTHCHECK --interval=7s CMD true
SHELL ["/bin/sh", "-exc"]
ONBUILD RUN test "$FOREIGN" = yes
"""
_CHILD = """
FROM {name}
USER root
RUN test ! -e /tree/gone; test -u /tree/set-id; cat /tree/replaced/new; rm /tree/file; echo "$FOREIGN" > /child
"""
_LAYER_COUNT = 4  # busybox's and three of the Dockerfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """The image that buildah made: its files, its config, and the archives of it below `work`."""

    work: Path
    tree: dict[str, Entry]
    config: dict[str, Any]


@pytest.fixture(scope="module")
def foreign(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foreign]:
    """Made once; pushed as foreign:docker, :oci, :zstd and :plain, and written as archives."""
    work = tmp_path_factory.mktemp("foreign")
    files = ("gone/a", "file", "set-id", "owned", "replaced/old", "emptied/a", "emptied/b/c", "ünïcødé")
    context = write(work / "context", {f"tree/{name}": f"{name}\n" for name in files} | {"Dockerfile": _FOREIGN})
    bench.buildah.build(context, "foreign")
    archive = work / "docker.tar"
    bench.buildah("push", "foreign", f"docker-archive:{archive}:docker.io/library/loaded:docker")
    for name, form in (("docker", "v2s2"), ("oci", "oci")):
        target = f"docker://{bench.host}/library/foreign:{name}"
        bench.buildah("push", "--tls-verify=false", "--format", form, "foreign", target)
    zstd = ("--quiet", "--format", "oci", "--dest-compress-format", "zstd", f"docker-archive:{archive}")
    tools.skopeo("copy", *zstd, f"oci:{work}/zstd:x")
    target = f"docker://{bench.host}/library/foreign:zstd"
    same = ("--quiet", "--preserve-digests", "--dest-tls-verify=false")  # or it puts gzip blobs that are there already
    tools.skopeo("copy", *same, f"oci:{work}/zstd:x", target)
    bench.buildah("push", "--format", "oci", "foreign", f"oci-archive:{work}/oci.tar:docker.io/library/loaded:oci")
    (work / "packed.tar.gz").write_bytes(gzip.compress(archive.read_bytes(), 1))
    config = tools.inspect(f"docker-archive:{archive}", "--config", "--raw")
    push(bench.host, "library/foreign", _uncompressed(archive, config), tag="plain")
    tree = tools.unpack(tools.layout_of(f"docker-archive:{archive}", work / "layout"), work / "tree")
    yield Foreign(work=work, tree=file_trees.listing(tree), config=config)
    tools.remove(work)


def _uncompressed(archive: Path, config: dict[str, Any]) -> BaseImage:
    with tarfile.open(archive) as packed:
        layers = [
            packed.extractfile(f"{diff_id.removeprefix('sha256:')}.tar") for diff_id in config["rootfs"]["diff_ids"]
        ]
        data = tuple(layer.read() for layer in layers if layer is not None)
    return BaseImage(layers=data, config=config["config"], packed=False)


@pytest.mark.parametrize("tag", ["docker", "oci", "zstd", "plain"])
def test_a_base_from_a_registry(bench: Bench, foreign: Foreign, work: Path, tag: str) -> None:
    own = tools.pybuild(work, bench.host)
    kinds = {"docker": "tar.gzip", "oci": "tar+gzip", "zstd": "tar+zstd", "plain": "tar"}
    source = f"docker://{bench.host}/library/foreign:{tag}"
    published = tools.inspect(source, "--raw", "--tls-verify=false")
    assert {re.split("v1.|diff.", layer["mediaType"])[-1] for layer in published["layers"]} == {kinds[tag]}
    config = tools.inspect(source, "--config", "--raw", "--tls-verify=false")
    manifest = _check_child(own, foreign, config, work, f"foreign:{tag}")
    assert [layer["digest"] for layer in manifest["layers"][:_LAYER_COUNT]] == [
        layer["digest"] for layer in published["layers"]
    ]


@pytest.mark.parametrize(
    ("archive", "kind"), [("docker.tar", "docker"), ("oci.tar", "oci"), ("packed.tar.gz", "docker")]
)
def test_a_base_from_an_archive(bench: Bench, foreign: Foreign, work: Path, archive: str, kind: str) -> None:
    own = tools.pybuild(work, "127.0.0.1:1")  # nobody answers there
    assert f"Loaded image: loaded:{kind}" in own("image", "load", "-i", foreign.work / archive).decode()
    config = tools.inspect(f"{kind}-archive:{foreign.work}/{kind}.tar", "--config", "--raw")
    _check_child(own, foreign, config, work, f"loaded:{kind}")


def _check_child(own: tools.Pybuild, foreign: Foreign, base: dict[str, Any], work: Path, name: str) -> dict[str, Any]:
    """Build a child of the image with the config `base`, and look at its files and config; its manifest."""
    context = write(work / "context", {"Dockerfile": _CHILD.format(name=name)})
    own.build(
        context, "-o", f"type=oci,name=child,dest={work}/child.tar", "-o", f"type=docker,dest={work}/child.docker"
    )
    layout = tools.layout_of(f"oci-archive:{work}/child.tar", work / "layout")
    tree = file_trees.listing(tools.unpack(layout, work / "tree"))
    found = file_trees.differences(tree, foreign.tree, since=float("inf"))
    assert sorted(line for line in found if ": mtime" not in line) == [
        "child: only here",
        "tree/file: missing here",
        "tree/hard: same_file '' 'tree/file'",
    ]
    assert [line for line in found if ": mtime" in line and not line.startswith((".:", "tree:"))] == []
    assert (work / "tree/child").read_text() == "yes\n"

    config = tools.inspect(f"docker-archive:{work}/child.docker", "--config", "--raw")
    assert config["rootfs"]["diff_ids"][:_LAYER_COUNT] == foreign.config["rootfs"]["diff_ids"]
    for key in ("Env", "Cmd", "Healthcheck", "Shell"):
        assert config["config"].get(key) == base["config"].get(key), key
    assert config["config"]["User"] == "root"
    assert "OnBuild" not in config["config"]
    return tools.inspect(f"oci-archive:{work}/child.tar", "--raw")


# --- and the other way round ----------------------------------------------------------------------------------

_OURS = """
FROM busybox
COPY tree /tree
RUN rm -rf /tree/gone && ln /tree/file /tree/hard && rm -rf /tree/replaced && mkdir /tree/replaced && rm /bin/zcat
RUN chown -R 12:34 /tree/emptied && rm -r /tree/emptied/* && echo new > /tree/replaced/new
"""


@pytest.mark.parametrize("attributes", ["", "oci-mediatypes=true,compression=zstd,force-compression=true"])
def test_buildah_builds_on_ours(bench: Bench, work: Path, attributes: str) -> None:
    files = ("gone/a", "file", "set-id", "replaced/old", "emptied/a", "emptied/b/c", "ünïcødé")
    context = write(work / "context", {f"tree/{name}": f"{name}\n" for name in files} | {"Dockerfile": _OURS})
    bench.pybuild.build(context, "-o", f"type=docker,name=ours,dest={work}/ours.tar,{attributes}".rstrip(","))
    kind = "oci" if attributes else "docker"
    source = f"{kind}-archive:{work}/ours.tar"
    same = ("--preserve-digests",) if attributes else ()  # or it puts gzip blobs that are there already
    tools.skopeo(
        "copy", "--quiet", "--dest-tls-verify=false", *same, source, f"docker://{bench.host}/library/ours:{kind}"
    )
    child = write(
        work / "child", {"Dockerfile": f"FROM ours:{kind}\nRUN test ! -e /tree/gone && cat /tree/*/new > /child\n"}
    )
    bench.buildah.build(child, f"docker-archive:{work}/child.tar")
    mine = file_trees.listing(tools.unpack(tools.layout_of(source, work / "a"), work / "mine"))
    theirs = file_trees.listing(
        tools.unpack(tools.layout_of(f"docker-archive:{work}/child.tar", work / "b"), work / "theirs")
    )
    found = [line for line in file_trees.differences(mine, theirs, since=float("inf")) if ": mtime" not in line]
    assert found == ["child: missing here", *(f"{name}: missing here" for name in _LEFT_BY_BUILDAH)]


_LEFT_BY_BUILDAH = ("etc/hostname", "etc/hosts", "etc/resolv.conf", "run")


def test_the_platform_of_an_index_is_taken(bench: Bench, work: Path) -> None:
    """COPY needs no program of the other architecture; what is built for this one can be copied from."""
    bases = [image(layer({"arch": name.encode(), "bin/": b""}), architecture=name) for name in ("amd64", "arm64")]
    push(bench.host, "library/two", *bases)
    dockerfile = (
        "FROM --platform=$BUILDPLATFORM two AS tools\nFROM two\nARG TARGETARCH\n"
        "COPY --from=tools /arch /built-on\nCOPY Dockerfile /for-$TARGETARCH\n"
    )
    context = write(work / "context", {"Dockerfile": dockerfile})
    for name in ("arm64", "amd64"):
        bench.pybuild.build(context, "--platform", f"linux/{name}", "-o", f"type=oci,name=x,dest={work}/{name}.tar")
        assert tools.inspect(f"oci-archive:{work}/{name}.tar", "--override-arch", name)["Architecture"] == name
        tree = tools.unpack(tools.extracted(work / f"{name}.tar"), work / name, tag="latest")
        assert (tree / "arch").read_text() == name
        assert (tree / "built-on").read_text() == "amd64"
        assert (tree / f"for-{name}").exists()
