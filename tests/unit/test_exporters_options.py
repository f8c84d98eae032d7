"""Attributes of an output: each has its effect or is refused, none is ignored."""

from __future__ import annotations

import pytest

from buildengine.digest import Digest
from buildengine.errors import BuildError, UserError
from worker.exporters.options import read

DIGEST = Digest.sha256(b"an image")


@pytest.mark.parametrize(
    ("kind", "attrs", "message"),
    [
        ("local", {"mode": "move"}, "unknown mode 'move' of a local export"),
        ("tar", {"mode": "delete"}, "unknown attribute 'mode' for an export of type tar"),
        ("image", {"compression": "estargz"}, "compression=estargz is not supported"),
        ("image", {"compression": "lz4"}, "unsupported layer compression type 'lz4'"),
        ("image", {"compression-level": "10"}, "gzip has no compression level 10"),
        ("oci", {"compression": "zstd", "compression-level": "23"}, "zstd has no compression level 23"),
        ("image", {"compression-level": "--5"}, "compression-level=--5: not a number"),
        ("image", {"compression-level": "²"}, "compression-level=²: not a number"),
        ("tar", {"source-date-epoch": "-1"}, "invalid source-date-epoch=-1: not a number of seconds"),
        ("oci", {"source-date-epoch": "253402300800"}, "invalid source-date-epoch=253402300800: this is no time"),
        ("image", {"annotation-indx.a": "1"}, "unknown annotation type 'indx'"),
        ("image", {"annotation[].a": "1"}, "unknown attribute 'annotation[].a' for an export of type image"),
        ("local", {"annotation.a": "1"}, "unknown attribute 'annotation.a' for an export of type local"),
        ("image", {"registry.insecure": "maybe"}, "registry.insecure=maybe: not a boolean"),
        ("image", {"push": "true"}, "an image that is pushed needs a name"),
        (
            "image",
            {"push-by-digest": "true", "name": "host.io/app:1"},
            "host.io/app:1 has a tag, and push-by-digest pushes without one",
        ),
        ("oci", {"push": "true"}, "unknown attribute 'push' for an export of type oci"),
        ("image", {"unpack": "maybe"}, "unpack=maybe: not a boolean"),
        ("image", {"store": "maybe"}, "store=maybe: not a boolean"),
        ("oci", {"store": "false"}, "unknown attribute 'store' for an export of type oci"),
        ("docker", {"unpack": "true"}, "unknown attribute 'unpack' for an export of type docker"),
    ],
)
def test_what_is_refused(kind: str, attrs: dict[str, str], message: str) -> None:
    with pytest.raises(BuildError) as caught:
        read(kind, attrs)
    assert caught.value.message == message
    assert caught.value.hint or "boolean" in message


def test_what_asks_for_nothing_may_stand() -> None:
    attrs = {"registry.insecure": "0", "push": "false", "dangling-name-prefix": ""}
    assert read("image", {**attrs, "unpack": "true"}) == read("image", {})
    assert read("tar", {"platform-split": "false"}).platform_split is False


def test_what_has_an_effect() -> None:
    assert (read("local", {}).delete, read("local", {"mode": "copy"}).delete) == (False, False)
    assert read("local", {"mode": "delete"}).delete
    assert (read("image", {}).store, read("image", {"store": "false"}).store) == (True, False)
    assert (read("oci", {}).tar, read("docker", {"tar": "false"}).tar) == (True, False)


def test_whose_epoch_counts() -> None:
    """The build's, unless the exporter has one of its own; an empty one is none at all."""
    found = [read("oci", attrs, epoch=5).epoch for attrs in ({}, {"source-date-epoch": "7"}, {"source-date-epoch": ""})]
    assert found == [5, 7, None]


def test_one_image_only() -> None:
    docker = read("docker", {})
    docker.check_platforms(1)
    for count, multi_platform, held in ((2, False, "2 platforms"), (1, True, "an index")):
        with pytest.raises(UserError, match=f"type=docker holds one image, not {held}") as caught:
            docker.check_platforms(count, multi_platform=multi_platform)
        assert caught.value.hint == "use type=oci, or build for one platform"


def test_a_tar_is_not_merged() -> None:
    merged = read("tar", {"platform-split": "false"})
    merged.check_platforms(1)
    read("local", {"platform-split": "false"}).check_platforms(2)
    with pytest.raises(UserError, match="type=tar does not merge several platforms"):
        merged.check_platforms(2)


def test_others_hold_several() -> None:
    for kind in ("image", "oci", "local", "tar"):
        read(kind, {}).check_platforms(3, multi_platform=True)


# --- names


def names_of(**attrs: str) -> list[str]:
    options = read("image", {name.replace("_", "-"): value for name, value in attrs.items()})
    return [str(name) for name in options.names_of(DIGEST)]


def test_names_of_the_result() -> None:
    asked = read("image", {"name": "*", "push": "true"})
    assert asked.names == ()
    assert [str(name) for name in asked.named("a,b:1").names] == [
        "docker.io/library/a:latest",
        "docker.io/library/b:1",
    ]
    assert asked.named("") is asked
    given = read("image", {"name": "c"})
    assert given.named("a") is given


def test_names_with_the_digest() -> None:
    assert names_of(name="a,b:1") == ["docker.io/library/a:latest", "docker.io/library/b:1"]
    assert names_of(name="b:1", name_canonical="true") == [
        "docker.io/library/b:1",
        f"docker.io/library/b:1@{DIGEST}",
    ]
    dangling = f"docker.io/library/left@{DIGEST}"
    assert names_of(dangling_name_prefix="left") == [dangling]
    assert names_of(dangling_name_prefix="left", name="a") == ["docker.io/library/a:latest", dangling]
    only = {"dangling_name_prefix": "left", "danging_name_empty_only": "true"}
    assert names_of(**only, name="a") == ["docker.io/library/a:latest"]
    assert names_of(**only) == [dangling]


# --- annotations


def test_scopes_of_annotations() -> None:
    read_options = read(
        "oci",
        {
            "annotation.all": "1",
            "annotation-manifest[linux/aarch64].one": "2",
            "annotation[linux/arm64].all": "3",
            "annotation-manifest-descriptor[linux/arm64].desc": "4",
            "annotation-index.idx": "5",
            "annotation-index-descriptor.idesc": "6",
        },
    )
    annotations = read_options.annotations
    assert annotations.manifest("linux/amd64") == {"all": "1"}
    assert annotations.manifest("linux/arm64") == {"all": "3", "one": "2"}
    assert annotations.manifest_descriptor("linux/amd64") == {}
    assert annotations.manifest_descriptor("linux/arm64") == {"desc": "4"}
    assert (annotations.index, annotations.index_descriptor) == ({"idx": "5"}, {"idesc": "6"})


def test_which_annotations_need_oci_documents() -> None:
    wanted = {
        "annotation": False,
        "annotation-manifest": False,
        "annotation-manifest-descriptor": True,
        "annotation-index": True,
        "annotation-index-descriptor": True,
    }
    for name, oci in wanted.items():
        assert read("image", {f"{name}.a": "1"}).oci_media_types is oci, name
        assert read("image", {f"{name}.a": "1", "oci-mediatypes": "true"}).oci_media_types


def test_annotations_without_a_place() -> None:
    index = read("image", {"annotation-index.a": "1"}).annotations
    index.check(["linux/amd64"], multi_platform=True)
    with pytest.raises(UserError, match="index annotations are not supported for the export of a single platform"):
        index.check(["linux/amd64"], multi_platform=False)
    other = read("image", {"annotation[linux/arm64].a": "1"}).annotations
    other.check(["linux/amd64", "linux/arm64"], multi_platform=True)
    with pytest.raises(UserError, match="no platform linux/arm64 in the result"):
        other.check(["linux/amd64"], multi_platform=False)


def test_a_frontend_annotates_too() -> None:
    """What it says wins over what the output was asked for, and needs OCI's documents as much."""
    asked = read("image", {"annotation.a": "asked", "annotation.b": "asked", "annotation-index.i": "asked"})
    said = read("image", {"annotation[linux/amd64].a": "said", "annotation-index.j": "said"}).annotations
    both = asked.annotated(said)
    assert both.oci_media_types
    assert both.annotations.manifest("linux/amd64") == {"a": "said", "b": "asked"}
    assert both.annotations.manifest("linux/arm64") == {"a": "asked", "b": "asked"}
    assert both.annotations.index == {"i": "asked", "j": "said"}
    plain = read("image", {"annotation.a": "asked"})
    assert plain.annotated(read("image", {}).annotations) == plain


def test_attestations() -> None:
    """Inline is what registries and stores hold. What is to be attested is asked of the build, not of an output."""
    assert read("image", {"attest:provenance": "mode=max"}) == read("image", {})
    assert [read(kind, {}).inline_attestations for kind in ("image", "oci", "docker")] == [True, False, False]
    assert read("oci", {"attestation-inline": "true"}).inline_attestations
    artifact = read("image", {"oci-artifact": "true"})
    assert (artifact.artifacts, artifact.oci_media_types) == (True, True)
    assert read("tar", {"attestation-prefix": "x."}).attestation_prefix == "x."
    with pytest.raises(UserError, match="is no beginning of a file name"):
        read("local", {"attestation-prefix": "../"})
