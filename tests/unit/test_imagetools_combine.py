"""One index out of several images: what is merged, what is copied byte for byte, which attestations stay."""

from __future__ import annotations

import json
from typing import Any

import pytest

from buildengine.digest import Digest
from buildengine.errors import UserError
from buildengine.platform import parse
from tests.fakes.registry_server import Image, descriptor, index
from worker.oci import jsonbytes, types
from worker.oci.combine import Combined, Source, combine, entry_of, only_platforms
from worker.oci.types import parse_manifest_or_index

AMD64, ARM64 = Image(), Image(layers=[b"arm"], architecture="arm64")
DOCKER = Image(layers=[b"docker"], oci=False)


def source(image: Image, given: dict[str, Any] | None = None) -> Source:
    document = parse_manifest_or_index(image.manifest)
    platform = {"architecture": image.architecture, "os": "linux"}
    return Source(document=document, entry=entry_of(document, given or {}, platform))


def indexed(raw: bytes) -> Source:
    document = parse_manifest_or_index(raw)
    return Source(document=document, entry=entry_of(document, {}, None))


def manifests(combined: Combined) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(combined.raw)["manifests"]
    return found


def attestation(subject: Image) -> dict[str, Any]:
    about = {
        "vnd.docker.reference.digest": str(Digest.sha256(subject.manifest)),
        "vnd.docker.reference.type": "attestation-manifest",
    }
    raw = b"attests " + subject.manifest
    unknown = {"architecture": "unknown", "os": "unknown"}
    return descriptor(raw, types.OCI_MANIFEST, annotations=about, platform=unknown)


def test_two_manifests_make_an_index_in_the_form_of_go() -> None:
    made = combine([source(AMD64), source(ARM64)])
    assert made.media_type == types.OCI_INDEX
    assert made.raw == jsonbytes.indented(
        {"schemaVersion": 2, "mediaType": types.OCI_INDEX, "manifests": [AMD64.entry(), ARM64.entry()]}
    )
    assert made.descriptor.digest == Digest.sha256(made.raw)


def test_docker_manifests_make_a_manifest_list() -> None:
    assert combine([source(DOCKER)]).media_type == types.DOCKER_INDEX
    assert combine([source(DOCKER), source(AMD64)]).media_type == types.OCI_INDEX
    annotated = combine([source(DOCKER)], annotations={"a": "1"})
    assert annotated.media_type == types.OCI_INDEX  # Docker's has no place for annotations
    assert json.loads(annotated.raw)["annotations"] == {"a": "1"}


def test_a_single_source_is_copied() -> None:
    raw = b" " + index(AMD64.entry())
    assert combine([indexed(raw)]).raw == raw
    assert combine([indexed(raw)], prefer_index=False).raw == raw
    assert combine([source(AMD64)], prefer_index=False).raw == AMD64.manifest
    assert manifests(combine([source(AMD64)])) == [AMD64.entry()]
    assert combine([indexed(raw)], annotations={"a": "1"}).raw != raw


def test_the_entries_of_indexes_keep_their_spelling_and_their_order() -> None:
    odd = ARM64.entry(os="linux", architecture="arm64", variant="v8")
    odd |= {"data": "eA==", "artifactType": "a/b", "unknown": 1}
    made = combine([source(AMD64), indexed(index(odd, DOCKER.entry(os="windows", **{"os.version": "10.0.1"})))])
    _, second, third = manifests(made)
    assert second["platform"] == {"architecture": "arm64", "os": "linux", "variant": "v8"}
    assert list(second) == ["mediaType", "digest", "size", "data", "platform", "artifactType"]
    assert third["platform"] == {"architecture": "", "os": "windows", "os.version": "10.0.1"}


def test_a_manifest_named_twice_is_there_once() -> None:
    annotated = {**AMD64.entry(), "annotations": {"a": "1", "b": "1"}}
    again = source(
        AMD64, {"annotations": {"b": "2"}, "platform": {"os": "linux", "architecture": "amd64", "variant": "v2"}}
    )
    (entry,) = manifests(combine([indexed(index(annotated)), again]))
    assert entry["annotations"] == {"a": "1", "b": "2"}
    assert entry["platform"]["variant"] == "v2"


def test_annotations_of_entries() -> None:
    sources = [source(AMD64), source(ARM64)]
    first, second = manifests(combine(sources, entry_annotations=[("", {"a": "1"}), ("linux/arm64/v8", {"a": "2"})]))
    assert (first["annotations"], second["annotations"]) == ({"a": "1"}, {"a": "2"})
    with pytest.raises(UserError, match="no manifest is for linux/s390x") as caught:
        combine(sources, entry_annotations=[("linux/s390x", {"a": "1"})])
    assert caught.value.hint == "there are linux/amd64, linux/arm64"


def test_what_a_descriptor_says_wins_and_its_size_must_be_right() -> None:
    document = parse_manifest_or_index(AMD64.manifest)
    known = {"architecture": "arm", "os": "linux", "variant": "v7"}
    assert entry_of(document, {}, known)["platform"] == known
    given = {"platform": {"os": "windows", "os.version": "10"}}
    platform = entry_of(document, given, known)["platform"]
    assert platform == {"os": "windows", "os.version": "10", "architecture": "arm", "variant": "v7"}
    assert "platform" not in entry_of(document, {}, None)
    with pytest.raises(UserError, match="its descriptor says 5"):
        entry_of(document, {"size": 5}, None)


# --- platforms ----------------------------------------------------------------------------------------------


def test_a_platform_keeps_its_attestations() -> None:
    raw = index(
        AMD64.entry(),
        ARM64.entry(variant="v8", architecture="arm64", os="linux"),
        attestation(AMD64),
        attestation(ARM64),
    )
    combined = combine([indexed(raw)])
    chosen = only_platforms(combined, [parse("linux/arm64")])
    assert [entry["digest"] for entry in manifests(chosen)] == [
        ARM64.entry()["digest"],
        attestation(ARM64)["digest"],
    ]
    assert manifests(chosen)[0]["platform"]["variant"] == "v8"
    assert only_platforms(combined, [parse("linux/arm64"), parse("linux/amd64")]) is combined
    assert only_platforms(combined, []) is combined


def test_platforms_that_are_not_there() -> None:
    combined = combine([indexed(index(AMD64.entry(), attestation(AMD64)))])
    with pytest.raises(UserError, match="no manifest is for linux/s390x") as caught:
        only_platforms(combined, [parse("linux/s390x")])
    assert caught.value.hint == "there are linux/amd64"
    single = combine([source(AMD64)], prefer_index=False)
    assert only_platforms(single, [parse("linux/amd64")]) is single
    with pytest.raises(UserError, match="the source is for linux/amd64, not for linux/386"):
        only_platforms(single, [parse("linux/386")])


def test_entries_without_a_platform_stay() -> None:
    bare = {key: value for key, value in AMD64.entry().items() if key != "platform"}
    chosen = only_platforms(combine([indexed(index(bare, ARM64.entry()))]), [parse("linux/amd64")])
    assert [entry["digest"] for entry in manifests(chosen)] == [bare["digest"]]


def test_an_empty_index_is_copied_as_well() -> None:
    for raw in (index(), b'{"schemaVersion":2,"mediaType":"%s","manifests":null}' % types.OCI_INDEX.encode()):
        assert combine([indexed(raw)]).raw == raw
        assert json.loads(combine([indexed(raw)], annotations={"a": "1"}).raw)["manifests"] == []
