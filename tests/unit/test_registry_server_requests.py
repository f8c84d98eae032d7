"""Paths, ranges and manifests as the registry of our own understands them: values in, values out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.digest import Digest
from cache.served import Referral, ServedManifest
from tests.fakes.registry_client import OCI_INDEX, OCI_LAYER, OCI_MANIFEST, described, index, manifest
from worker.oci.types import DOCKER_LAYER_FOREIGN, DOCKER_MANIFEST
from worker.registry.server import manifests, ranges, referrers
from worker.registry.server.answers import Refusal
from worker.registry.server.ranges import Span
from worker.registry.server.routes import (
    MOST,
    Base,
    Blob,
    Catalog,
    Manifest,
    Page,
    Referrers,
    Route,
    Tags,
    Upload,
    Uploads,
    parse,
)

DIGEST = Digest.sha256(b"x")
ID = "0b0f0a52-1f4e-4d4e-8a3e-0123456789ab"


def refusal(function: Any, *arguments: Any, **named: Any) -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        function(*arguments, **named)
    answer = caught.value.answer
    assert isinstance(answer.body, bytes)
    (error,) = json.loads(answer.body)["errors"]
    assert error["message"]
    return answer.status, error["code"]


# --- routes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "route"),
    [
        ("/v2/", Base()),
        ("/v2", Base()),
        ("/v2/_catalog", Catalog(page=Page())),
        ("/v2/_catalog?n=5&last=a/b", Catalog(page=Page(most=5, after="a/b", is_limited=True))),
        ("/v2/a/b/tags/list", Tags(name="a/b", page=Page())),
        ("/v2/a/tags/list?n=99999999&last=v1", Tags(name="a", page=Page(most=MOST, after="v1", is_limited=True))),
        ("/v2/tags/list/tags/list", Tags(name="tags/list", page=Page())),
        ("/v2/a/manifests/v1.0_x-y", Manifest(name="a", tag="v1.0_x-y")),
        (f"/v2/a/manifests/{DIGEST}", Manifest(name="a", digest=DIGEST)),
        (
            f"/v2/a/manifests/{DIGEST.replace(':', '%3A')}?tag=1&tag=2&tag=1",
            Manifest(name="a", digest=DIGEST, tags=("1", "2")),
        ),
        (f"/v2/a__b/c--d/blobs/{DIGEST}", Blob(name="a__b/c--d", digest=DIGEST)),
        ("/v2/a/blobs/uploads/", Uploads(name="a")),
        ("/v2/a/blobs/uploads?digest-algorithm=sha256", Uploads(name="a")),
        (f"/v2/a/blobs/uploads/?digest={DIGEST}", Uploads(name="a", digest=DIGEST)),
        (f"/v2/a/blobs/uploads/?mount={DIGEST}&from=b/c", Uploads(name="a", mount=DIGEST, source="b/c")),
        (f"/v2/a/blobs/uploads/{ID}", Upload(name="a", id=ID)),
        (f"/v2/a/blobs/uploads/{ID}?digest={DIGEST}", Upload(name="a", id=ID, digest=DIGEST)),
        (f"/v2/a/referrers/{DIGEST}", Referrers(name="a", digest=DIGEST)),
        (
            f"/v2/a/referrers/{DIGEST}?artifactType=a%2Fb&last={DIGEST}",
            Referrers(name="a", digest=DIGEST, artifact_type="a/b", after=DIGEST),
        ),
    ],
)
def test_what_a_path_asks_for(target: str, route: Route) -> None:
    assert parse(target) == route


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/", 404, "UNSUPPORTED"),
        ("/v1/a/tags/list", 404, "UNSUPPORTED"),
        ("/v2/a/nothing/here", 404, "UNSUPPORTED"),
        ("/v2/A/tags/list", 400, "NAME_INVALID"),
        ("/v2/a..b/tags/list", 400, "NAME_INVALID"),
        ("/v2/a/../b/tags/list", 400, "NAME_INVALID"),
        ("/v2/-a/tags/list", 400, "NAME_INVALID"),
        ("/v2/a_/tags/list", 400, "NAME_INVALID"),
        ("/v2//tags/list", 400, "NAME_INVALID"),
        ("/v2/" + "a/" * 127 + "aa/tags/list", 400, "NAME_INVALID"),
        ("/v2/a/manifests/" + "t" * 129, 400, "MANIFEST_INVALID"),
        ("/v2/a/manifests/.t", 400, "MANIFEST_INVALID"),
        ("/v2/a/manifests/", 400, "MANIFEST_INVALID"),
        ("/v2/a/blobs/sha512:" + "0" * 128, 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/blake3:" + "0" * 64, 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/sha256:0", 400, "DIGEST_INVALID"),
        ("/v2/a/blobs/uploads/?digest-algorithm=sha512", 400, "DIGEST_INVALID"),
        (f"/v2/a/blobs/uploads/?mount={DIGEST}&from=../b", 400, "NAME_INVALID"),
        ("/v2/a/blobs/uploads/1", 404, "BLOB_UPLOAD_UNKNOWN"),
        (f"/v2/a/blobs/uploads/{ID.upper()}", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("/v2/a/tags/list?n=x", 400, "UNSUPPORTED"),
        ("/v2/a/tags/list?n=", 400, "UNSUPPORTED"),
    ],
)
def test_what_no_path_may_be(target: str, status: int, code: str) -> None:
    assert refusal(parse, target) == (status, code)


NAMES = st.lists(st.sampled_from(["a", "b.c", "blobs", "..", "", "%2e%2e", "A", "\x00"]), max_size=3).map("/".join)
ENDS = ["", "/tags/list", "/manifests/t", f"/manifests/{DIGEST}", f"/blobs/{DIGEST}", "/blobs/uploads/"]
ENDS += [f"/blobs/uploads/{ID}", f"/referrers/{DIGEST}", "/_catalog", "/\xff"]


@given(st.sampled_from(["/v2/", "/v2/", "/"]), NAMES, st.sampled_from(ENDS))
def test_any_path_is_understood_or_refused(start: str, names: str, end: str) -> None:
    try:
        route = parse(start + names + end)
    except Refusal:
        return
    name = getattr(route, "name", "a")
    assert ".." not in name
    assert name == name.strip("/")
    assert all(part.strip() for part in name.split("/"))


# --- ranges ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-9", Span(start=0, length=10)),
        ("bytes=90-", Span(start=90, length=10)),
        ("bytes=90-1000", Span(start=90, length=10)),
        ("bytes=-10", Span(start=90, length=10)),
        ("bytes=-1000", Span(start=0, length=100)),
        ("bytes = 5-5", Span(start=5, length=1)),
        ("", None),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
    ],
)
def test_the_range_of_a_request(header: str, span: Span | None) -> None:
    assert ranges.requested(header, 100) == span


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=5-4", "bytes=-0", "bytes=999999999999999999-"])
def test_a_range_that_there_is_not(header: str) -> None:
    assert refusal(ranges.requested, header, 100) == (416, "SIZE_INVALID")


def test_nothing_of_an_empty_blob() -> None:
    assert ranges.requested("", 0) is None
    assert refusal(ranges.requested, "bytes=0-", 0) == (416, "SIZE_INVALID")


def test_the_place_of_a_chunk() -> None:
    assert ranges.chunk("0-0") == Span(start=0, length=1)
    assert ranges.chunk("10-19") == Span(start=10, length=10)
    for wrong in ("", "10", "19-10", "bytes 0-1/2", "-1", "1-", "0-" + "9" * 30):
        assert refusal(ranges.chunk, wrong) == (400, "BLOB_UPLOAD_INVALID")


# --- manifests ------------------------------------------------------------------------------------------------------


def read(raw: bytes, media_type: str = "", digest: Digest | None = None) -> manifests.Incoming:
    return manifests.read(raw, media_type=media_type, digest=digest)


def test_a_manifest_needs_its_config_and_layers() -> None:
    raw = manifest(b"{}", b"layer")
    incoming = read(raw, f"{OCI_MANIFEST}; charset=utf-8", Digest.sha256(raw))
    assert incoming.manifest == ServedManifest(
        digest=Digest.sha256(raw),
        size=len(raw),
        media_type=OCI_MANIFEST,
        artifact_type="application/vnd.oci.image.config.v1+json",
    )
    assert incoming.needs == (
        Referral(digest=Digest.sha256(b"{}"), size=2, is_manifest=False),
        Referral(digest=Digest.sha256(b"layer"), size=5, is_manifest=False),
    )


@pytest.mark.parametrize("kind", [DOCKER_LAYER_FOREIGN, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"])
def test_layers_that_may_not_be_distributed_are_not_needed(kind: str) -> None:
    raw = manifest(b"{}", layers=[described(b"far away", kind, urls=["https://example.com/layer"])])
    assert [need.digest for need in read(raw).needs] == [Digest.sha256(b"{}")]


def test_an_index_needs_its_manifests_and_a_cache_lists_blobs() -> None:
    entries = [described(b"m", OCI_MANIFEST), described(b"i", OCI_INDEX), described(b"l", OCI_LAYER)]
    incoming = read(index(manifests=entries), OCI_INDEX)
    assert [need.is_manifest for need in incoming.needs] == [True, True, None]
    assert incoming.manifest.artifact_type == ""


def test_a_referrer_is_listed_as_the_specification_wants_it() -> None:
    subject = described(b"subject", OCI_MANIFEST)
    raw = manifest(b"{}", subject=subject, annotations={"b": "1", "a": "2"}, artifactType="a/b")
    found = read(raw).manifest
    assert found.subject == subject["digest"]
    expected = described(raw, OCI_MANIFEST, annotations={"a": "2", "b": "1"}, artifactType="a/b")
    assert json.loads(found.descriptor) == expected
    assert Digest.sha256(b"subject") not in {need.digest for need in read(raw).needs}


@pytest.mark.parametrize(
    ("raw", "media_type", "digest", "code"),
    [
        (manifest(b"{}"), OCI_MANIFEST, DIGEST, "DIGEST_INVALID"),
        (manifest(b"{}"), OCI_INDEX, None, "MANIFEST_INVALID"),
        (manifest(b"{}"), DOCKER_MANIFEST, None, "MANIFEST_INVALID"),
        (manifest(b"{}"), "text/plain", None, "MANIFEST_INVALID"),
        (manifest(b"{}", manifests=[]), OCI_MANIFEST, None, "MANIFEST_INVALID"),
        (manifest(b"{}", config=None), OCI_MANIFEST, None, "MANIFEST_INVALID"),
        (manifest(b"{}", subject="x"), OCI_MANIFEST, None, "MANIFEST_INVALID"),
        (manifest(b"{}", subject={"digest": "../x"}), OCI_MANIFEST, None, "MANIFEST_INVALID"),
        (manifest(b"{}", layers=[{**described(b"l", OCI_LAYER), "size": -1}]), "", None, "MANIFEST_INVALID"),
        (b"[" * 100_000, OCI_MANIFEST, None, "MANIFEST_INVALID"),
        (b'{"schemaVersion": 1, "name": "a", "fsLayers": []}', "", None, "MANIFEST_INVALID"),
    ],
)
def test_what_may_not_come_in(raw: bytes, media_type: str, digest: Digest | None, code: str) -> None:
    assert refusal(read, raw, media_type, digest) == (400, code)


def test_what_is_missing_is_named() -> None:
    needs = tuple(Referral(digest=Digest.sha256(bytes([n])), size=n) for n in range(3))
    body = manifests.missing(needs).answer.body
    assert isinstance(body, bytes)
    (error,) = json.loads(body)["errors"]
    assert error["code"] == "MANIFEST_BLOB_UNKNOWN"
    assert error["detail"] == [{"digest": need.digest, "size": need.size} for need in needs]


# --- referrers ------------------------------------------------------------------------------------------------------


def referrer(number: int, size: int = 10) -> ServedManifest:
    text = json.dumps({"n": number, "x": "y" * size})
    return ServedManifest(digest=Digest.sha256(b"%d" % number), size=1, media_type="x", descriptor=text)


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        ([referrer(n) for n in range(3)], 3),
        ([referrer(n) for n in range(referrers.MOST + 1)], referrers.MOST),
        ([referrer(n, 1 << 20) for n in range(5)], 2),
        ([referrer(n, 4 << 20) for n in range(2)], 1),
    ],
)
def test_referrers_come_in_pages_that_clients_take(found: list[ServedManifest], shown: int) -> None:
    answer = referrers.listing(Referrers(name="app", digest=DIGEST, artifact_type="a/b"), found)
    assert isinstance(answer.body, bytes)
    document = json.loads(answer.body)
    assert [one["n"] for one in document["manifests"]] == list(range(shown))
    links = [value for name, value in answer.headers if name == "Link"]
    if shown == len(found):
        assert links == []
    else:
        target = links[0].partition("<")[2].partition(">")[0]
        after = found[shown - 1].digest
        assert parse(target) == Referrers(name="app", digest=DIGEST, artifact_type="a/b", after=after)
