"""Builds for several platforms: one graph, one index, files apart; and what the image store does with an index."""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.builds import FIXTURES, Store, write
from tests.fakes.image_tools import extracted

pytest_plugins = [FIXTURES]

BOTH = ("--platform", "linux/amd64,linux/arm64")
SHARED = """\
FROM --platform=$BUILDPLATFORM base AS work
RUN echo made > /made

FROM scratch AS last
ARG TARGETPLATFORM TARGETARCH
COPY --from=work /made /
COPY files/$TARGETARCH /arch
LABEL platform=$TARGETPLATFORM
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    files = {"Dockerfile": SHARED, "files/amd64": "a", "files/arm64": "b", "files/arm": "c"}
    return write(tmp_path / "context", files)


class Layout:
    """An OCI layout in a directory that holds one image."""

    def __init__(self, directory: Path) -> None:
        self._blobs = directory / "blobs/sha256"
        (self.entry,) = json.loads((directory / "index.json").read_bytes())["manifests"]
        self.target = self.document(self.entry)

    def document(self, descriptor: dict[str, Any]) -> Any:
        return json.loads((self._blobs / descriptor["digest"].removeprefix("sha256:")).read_bytes())

    @property
    def manifests(self) -> list[dict[str, Any]]:
        return [self.document(entry) for entry in self.target["manifests"]]

    def config(self, number: int) -> Any:
        return self.document(self.manifests[number]["config"])


async def layout(store: Store, context: Path, out: Path, *flags: str, attrs: str = "") -> Layout:
    await store.build(context, *flags, "-o", f"type=oci,tar=false,dest={out}{attrs}")
    return Layout(out)


# --- one graph, one index


async def test_shared_steps_run_once(store: Store, context: Path, tmp_path: Path) -> None:
    built = await store.build(context, *BOTH, "-o", f"type=oci,dest={tmp_path / 'out'}")
    names = [step.name for step in built.steps.values()]
    assert [name for name in names if "RUN" in name] == ["[linux/amd64 work 2/2] RUN echo made > /made"]
    assert "[linux/amd64 last 2/2] COPY files/amd64 /arch" in names
    assert "[linux/arm64 last 2/2] COPY files/arm64 /arch" in names
    assert len(built.find("[linux/amd64 internal] load metadata for docker.io/library/base:latest")) == 1
    again = await store.build(context, *BOTH, "-o", f"type=oci,dest={tmp_path / 'out'}")
    assert again.ran == []


async def test_an_index_with_a_manifest_for_each(store: Store, context: Path, tmp_path: Path) -> None:
    found = await layout(store, context, tmp_path / "out", "--platform", "linux/arm/v6,linux/arm64,linux/amd64/v2")
    assert found.target["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert [entry["platform"] for entry in found.target["manifests"]] == [
        {"architecture": "arm", "os": "linux", "variant": "v6"},
        {"architecture": "arm64", "os": "linux"},
        {"architecture": "amd64", "os": "linux", "variant": "v2"},
    ]
    configs = [found.config(number) for number in range(3)]
    assert [config["config"]["Labels"]["platform"] for config in configs] == [
        "linux/arm/v6", "linux/arm64", "linux/amd64/v2",
    ]  # fmt: skip
    assert [config.get("variant") for config in configs] == ["v6", None, "v2"]


async def test_dockers_media_types(store: Store, context: Path, tmp_path: Path) -> None:
    found = await layout(store, context, tmp_path / "out", *BOTH, attrs=",oci-mediatypes=false")
    assert found.target["mediaType"] == "application/vnd.docker.distribution.manifest.list.v2+json"
    docker = "application/vnd.docker.distribution.manifest.v2+json"
    assert {entry["mediaType"] for entry in found.target["manifests"]} == {docker}


async def test_an_index_of_one(store: Store, context: Path, tmp_path: Path) -> None:
    flags = ("--build-arg", "BUILDKIT_MULTI_PLATFORM=1", "--platform", "linux/arm64", "--annotation", "index:a=1")
    found = await layout(store, context, tmp_path / "out", *flags)
    assert [entry["platform"]["architecture"] for entry in found.target["manifests"]] == ["arm64"]
    assert found.target["annotations"] == {"a": "1"}
    await store.build(context, *flags, "-o", f"type=local,dest={tmp_path / 'files'}", *("--annotation", "b=1"))
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["linux_arm64"]
    refused = await store.build(context, *flags, "-o", f"type=docker,dest={tmp_path / 'docker'}", status=1)
    assert refused.error == "type=docker holds one image, not an index"


async def test_one_platform_where_several_are_not_wanted(store: Store, context: Path) -> None:
    built = await store.build(context, *BOTH, "--build-arg", "BUILDKIT_MULTI_PLATFORM=0", status=1)
    assert built.error == "conflicting config: returning multiple target platforms is not allowed"


async def test_annotations_of_every_scope(store: Store, context: Path, tmp_path: Path) -> None:
    given = (
        "all=1",
        "manifest[linux/arm64],manifest-descriptor[linux/arm64]:one=2",
        "index,index-descriptor:both=3",
        "manifest[linux/aarch64]:all=4",
    )
    flags = [flag for text in given for flag in ("--annotation", text)]
    found = await layout(store, context, tmp_path / "out", *BOTH, *flags, attrs=",annotation.own=5")
    assert [manifest["annotations"] for manifest in found.manifests] == [
        {"all": "1", "own": "5"},
        {"all": "4", "one": "2", "own": "5"},
    ]
    assert [entry.get("annotations") for entry in found.target["manifests"]] == [None, {"one": "2"}]
    assert found.target["annotations"] == {"both": "3"}
    assert found.entry["annotations"]["both"] == "3"


async def test_annotations_without_a_place(store: Store, context: Path) -> None:
    flags = ("-o", "type=image", "--annotation")
    built = await store.build(context, *BOTH, *flags, "manifest[linux/s390x]:a=1", status=1)
    assert built.error == "invalid annotation: no platform linux/s390x in the result"
    assert not built.steps  # said before anything ran
    built = await store.build(context, *flags, "index:a=1", status=1)
    assert built.error == "index annotations are not supported for the export of a single platform"


# --- files


async def test_files_are_apart(store: Store, context: Path, tmp_path: Path) -> None:
    await store.build(context, *BOTH, "-o", f"type=local,dest={tmp_path / 'out'}")
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*"))
    assert found == [
        "linux_amd64", "linux_amd64/arch", "linux_amd64/made", "linux_arm64", "linux_arm64/arch", "linux_arm64/made",
    ]  # fmt: skip
    assert (tmp_path / "out/linux_arm64/arch").read_text() == "b"
    await store.build(context, *BOTH, "-o", f"type=tar,dest={tmp_path / 'out.tar'}")
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert archive.getnames() == found
    await store.build(context, "-o", f"type=tar,platform-split=true,dest={tmp_path / 'one.tar'}")
    with tarfile.open(tmp_path / "one.tar") as archive:
        assert archive.getnames() == found[:3]


async def test_links_in_a_tar_of_several(store: Store, tmp_path: Path) -> None:
    text = "FROM --platform=$BUILDPLATFORM base AS a\nRUN mkdir /x && echo 1 > /x/a && ln /x/a /x/b && ln -s a /x/c\n"
    context = write(tmp_path / "links", {"Dockerfile": f"{text}FROM scratch\nCOPY --from=a /x /\n"})
    await store.build(context, *BOTH, "-o", f"type=tar,dest={tmp_path / 'out.tar'}")
    found = extracted(tmp_path / "out.tar")
    for name in ("linux_amd64", "linux_arm64"):
        assert (found / name / "a").stat().st_ino == (found / name / "b").stat().st_ino
        assert (found / name / "c").read_text() == "1\n"


async def test_files_in_one_directory(store: Store, tmp_path: Path) -> None:
    text = "FROM scratch\nARG TARGETARCH\nCOPY files/$TARGETARCH /d/$TARGETARCH\n"
    context = write(tmp_path / "context", {"Dockerfile": text, "files/amd64": "a", "files/arm64": "b"})
    merged = ("-o", f"type=local,platform-split=false,dest={tmp_path / 'out'}")
    await store.build(context, *BOTH, *merged)
    assert sorted(path.name for path in (tmp_path / "out/d").iterdir()) == ["amd64", "arm64"]
    write(context, {"Dockerfile": "FROM scratch\nCOPY files /\n"})
    built = await store.build(context, *BOTH, *merged, status=1)
    assert built.error.endswith(" from linux/amd64 with linux/arm64 when split option is disabled")
    text = "FROM scratch\nARG TARGETARCH\nCOPY kinds/$TARGETARCH /d/\n"
    write(context, {"Dockerfile": text, "kinds/amd64/e": "a file", "kinds/arm64/e/f": "in a directory"})
    built = await store.build(context, *BOTH, *merged, status=1)
    assert built.error.startswith("cannot overwrite d/e from linux/amd64 with linux/arm64 when split")


# --- the store


def test_an_index_in_the_store(store: Store, context: Path, tmp_path: Path) -> None:
    meta, iid, saved = tmp_path / "meta", tmp_path / "iid", tmp_path / "saved.tar"
    store.command("build", context, *BOTH, "-t", "app:1", "--metadata-file", meta, "--iidfile", iid)
    told = json.loads(meta.read_bytes())
    digest = told["containerimage.digest"]
    assert iid.read_text() == digest
    assert "containerimage.config.digest" not in told
    assert told["containerimage.descriptor"]["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert told["image.name"] == "docker.io/library/app:1"
    assert told["buildx.build.ref"].startswith("default/default/")

    listed = store.command("image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Platforms}}")
    assert f"app:1 {digest} linux/amd64, linux/arm64" in listed.stdout.splitlines()
    for flags, architecture in (((), "amd64"), (("--platform", "linux/arm64"), "arm64")):
        (document,) = json.loads(store.command("image", "inspect", *flags, "app:1").stdout)
        assert document["Architecture"] == architecture
        assert document["Config"]["Labels"] == {"platform": f"linux/{architecture}"}
        assert document["RepoDigests"] == [f"app@{digest}"]
        assert document["Platforms"] == ["linux/amd64", "linux/arm64"]
        history = store.command("image", "history", *flags, "app:1", "--no-trunc").stdout
        assert f"COPY files/{architecture} /arch" in history
    refused = store.command("image", "inspect", "--platform", "linux/s390x", "app:1", status=1)
    assert "app:1 is not for linux/s390x" in refused.error
    assert "linux/amd64, linux/arm64" in refused.error

    store.command("image", "tag", "app:1", "other:2")
    store.command("image", "save", "app:1", "-o", saved)
    manifests = json.loads(skopeo("inspect", "--raw", f"oci-archive:{saved}"))["manifests"]
    assert [entry["platform"]["architecture"] for entry in manifests] == ["amd64", "arm64"]
    assert store.command("image", "rm", "app:1").stdout == "Untagged: app:1\n"
    assert f"Deleted: {digest}" in store.command("image", "rm", "other:2").stdout
    assert store.command("image", "load", "-i", saved).stdout == "Loaded image: app:1\n"
    assert f"app:1 {digest}" in names_and_ids(store)


def names_and_ids(store: Store) -> list[str]:
    lines = store.command("image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout
    return lines.splitlines()


def skopeo(*arguments: str) -> bytes:
    return subprocess.run(["skopeo", *arguments], check=True, capture_output=True).stdout


@pytest.mark.parametrize(
    ("flags", "media_type"),
    [
        (BOTH, "application/vnd.oci.image.index.v1+json"),
        ((*BOTH, "-o", "type=image,oci-mediatypes=false"), "application/vnd.docker.distribution.manifest.list.v2+json"),
        ((), "application/vnd.docker.distribution.manifest.v2+json"),
    ],
    ids=["several", "dockers-list", "one"],
)
def test_what_an_image_is_unless_it_says(
    flags: tuple[str, ...], media_type: str, store: Store, context: Path, tmp_path: Path
) -> None:
    store.command("build", context, *flags, "-t", "app:1", "--metadata-file", tmp_path / "meta")
    told = json.loads((tmp_path / "meta").read_bytes())
    assert told["containerimage.descriptor"]["mediaType"] == media_type


def test_skopeo_copies_all_of_it_and_back(store: Store, context: Path, tmp_path: Path) -> None:
    ours, between, back = f"oci-archive:{tmp_path}/a.tar", f"oci:{tmp_path}/b:x", f"oci-archive:{tmp_path}/c.tar:x"
    store.command("build", context, *BOTH, "-o", f"type=oci,dest={tmp_path / 'a.tar'},name=app:1")
    skopeo("copy", "--all", ours, between)
    skopeo("copy", "--all", between, back)
    assert skopeo("inspect", "--raw", ours) == skopeo("inspect", "--raw", back)


def test_a_base_for_each_platform(store: Store, context: Path, tmp_path: Path) -> None:
    """FROM takes of an index in the store what is for the target, and says what there is where nothing is."""
    name = "localhost:1/multi"  # where no registry is
    store.command("build", context, *BOTH, "-t", name)
    child = write(tmp_path / "child", {"Dockerfile": f"FROM {name}\nCOPY x /x\n", "x": ""})
    store.command("build", child, *BOTH, "-o", f"type=oci,tar=false,dest={tmp_path / 'out'}")
    found = Layout(tmp_path / "out")
    labels = [found.config(number)["config"]["Labels"]["platform"] for number in range(2)]
    assert labels == ["linux/amd64", "linux/arm64"]
    built = store.command("build", child, "--platform", "linux/s390x", status=1)
    assert "localhost:1/multi:latest of the local store is for linux/amd64, linux/arm64" in built.error


# --- what is no platform


@pytest.mark.parametrize(
    ("text", "meant"),
    [("linux/amd46", "linux/amd64"), ("arm64/linux", "linux/arm64"), ("linx/riscv64", "linux/riscv64")],
)
def test_a_platform_that_there_is_not(text: str, meant: str, store: Store, context: Path) -> None:
    built = store.command("build", context, "--platform", text, status=2)
    assert f"unknown platform {text}" in built.error
    assert f"did you mean {meant}?" in built.error


async def test_an_image_that_is_not_there_and_one_whose_name_is_much_like_it(store: Store, tmp_path: Path) -> None:
    context = write(tmp_path / "context", {"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a"})
    await store.build(context, "-t", "localhost:1/tools/compiler")
    write(context, {"Dockerfile": "FROM localhost:1/tools/complier\n"})
    built = store.command("build", context, status=1)
    assert "hint: did you mean localhost:1/tools/compiler:latest, which is in the local store?" in built.error
    write(context, {"Dockerfile": "FROM localhost:1/other\n"})  # only the host and the tag are the same
    assert "hint: nothing listens there" in store.command("build", context, status=1).error
