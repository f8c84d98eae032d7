"""What the distribution-spec asks of a registry, asked of ours and of docker's own.

Each behaviour is stated once. Where docker-registry 2.8.2 does otherwise the test says how, and is expected to fail
there: should docker's behaviour change, the test tells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import wraps
from http.client import HTTPException
from json import JSONDecodeError
from typing import Any

import pytest

from tests.fakes.own_registry import own_registry
from tests.fakes.registry_client import (
    OCI_INDEX,
    OCI_MANIFEST,
    OCTETS,
    RegistryClient,
    Response,
    described,
    digest_of,
    index,
    manifest,
    with_query,
)
from tests.integration.test_registry_docker import DockerRegistry

OURS, DOCKER = "ours", "docker"
DATA = bytes(range(256)) * 40
ABSENT = digest_of(b"nobody has this")


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    place = tmp_path_factory.mktemp("registries")
    storage = {"filesystem": {"rootdirectory": str(place / "data")}, "delete": {"enabled": True}}
    docker = DockerRegistry(place / "docker", storage=storage)
    try:
        with own_registry(place / "root") as ours:
            yield {OURS: ours.address, DOCKER: docker.host}
            assert ours.complaints == ""
    finally:
        docker.stop()


class DockersRegistry(RegistryClient):
    """docker-registry 2.8.2, of Debian."""


@pytest.fixture(params=[OURS, DOCKER])
def registry(request: pytest.FixtureRequest, addresses: dict[str, str]) -> RegistryClient:
    kind = DockersRegistry if request.param == DOCKER else RegistryClient
    return kind(addresses[request.param])


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return "t/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:100]


def docker_deviates(how: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Docker's registry does not do what the test wants of both: a test of that, too. `how` is for who reads it."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @wraps(test)
        def run(**arguments: Any) -> None:
            if not isinstance(arguments["registry"], DockersRegistry):
                test(**arguments)
                return
            with pytest.raises((AssertionError, HTTPException, JSONDecodeError)):
                test(**arguments)

        return run

    return decorate


def refused(response: Response, status: int, *codes: str) -> None:
    assert (response.status, response.codes) == (status, set(codes))


# --- pull -----------------------------------------------------------------------------------------------------------


def test_the_base_says_that_this_is_a_registry(registry: RegistryClient) -> None:
    response = registry.ask("GET", "/v2/")
    assert response.status == 200
    assert response.header("Docker-Distribution-API-Version") == "registry/2.0"


def test_what_is_pushed_is_pulled_by_get_and_announced_by_head(registry: RegistryClient, name: str) -> None:
    registry.push_blob(name, DATA)
    got, head = (registry.ask(method, f"/v2/{name}/blobs/{digest_of(DATA)}") for method in ("GET", "HEAD"))
    assert (got.status, head.status) == (200, 200)
    assert (got.body, head.body) == (DATA, b"")
    for response in (got, head):
        assert response.header("Content-Length") == str(len(DATA))
        assert response.header("Docker-Content-Digest") == digest_of(DATA)


def test_a_manifest_keeps_its_bytes_and_its_type(registry: RegistryClient, name: str) -> None:
    registry.push_blob(name, b"{}")
    raw = manifest(b"{}").replace(b'"config"', b'\n\t "config"')
    assert registry.push_manifest(name, "latest", raw).status == 201
    for reference in ("latest", digest_of(raw)):
        for method, body in (("GET", raw), ("HEAD", b"")):
            response = registry.ask(method, f"/v2/{name}/manifests/{reference}", Accept=OCI_MANIFEST)
            assert (response.status, response.body) == (200, body)
            assert response.header("Content-Type") == OCI_MANIFEST
            assert response.header("Content-Length") == str(len(raw))
            assert response.header("Docker-Content-Digest") == digest_of(raw)


def test_what_is_not_there_is_not_found(registry: RegistryClient, name: str) -> None:
    registry.push_image(name, "latest")
    refused(registry.ask("GET", f"/v2/{name}/blobs/{ABSENT}"), 404, "BLOB_UNKNOWN")
    refused(registry.ask("GET", f"/v2/{name}/manifests/{ABSENT}"), 404, "MANIFEST_UNKNOWN")
    refused(registry.ask("GET", f"/v2/{name}/manifests/never", Accept=OCI_MANIFEST), 404, "MANIFEST_UNKNOWN")
    refused(registry.ask("GET", f"/v2/{name}-not/tags/list"), 404, "NAME_UNKNOWN")
    for kind, reference in (("blobs", ABSENT), ("manifests", "never")):
        response = registry.ask("HEAD", f"/v2/{name}/{kind}/{reference}")
        assert (response.status, response.body) == (404, b"")


def test_a_blob_belongs_to_the_repositories_that_have_it(registry: RegistryClient, name: str) -> None:
    registry.push_blob(name, DATA)
    assert registry.ask("HEAD", f"/v2/{name}/other/blobs/{digest_of(DATA)}").status == 404


@pytest.mark.parametrize(
    ("wanted", "part", "said"),
    [
        ("bytes=500-1499", slice(500, 1500), "bytes 500-1499/10240"),
        ("bytes=500-", slice(500, None), "bytes 500-10239/10240"),
        ("bytes=-500", slice(-500, None), "bytes 9740-10239/10240"),
        ("bytes=10000-99999", slice(10000, None), "bytes 10000-10239/10240"),
        ("bytes=0-0", slice(0, 1), "bytes 0-0/10240"),
    ],
)
def test_a_part_of_a_blob(registry: RegistryClient, name: str, wanted: str, part: slice, said: str) -> None:
    registry.push_blob(name, DATA)
    response = registry.ask("GET", f"/v2/{name}/blobs/{digest_of(DATA)}", Range=wanted)
    assert (response.status, response.header("Content-Range")) == (206, said)
    assert response.body == DATA[part]


@docker_deviates("answers 416 with the length of the whole blob and the body of an error")
@pytest.mark.parametrize("wanted", ["bytes=10240-", "bytes=500-0"])
def test_a_part_that_there_is_not(registry: RegistryClient, name: str, wanted: str) -> None:
    registry.push_blob(name, DATA)
    assert registry.ask("GET", f"/v2/{name}/blobs/{digest_of(DATA)}", Range=wanted).status == 416


def test_who_has_it_is_not_sent_it_again(registry: RegistryClient, name: str) -> None:
    digest = registry.push_image(name, "latest", layers=(DATA,))
    for target in (f"/v2/{name}/blobs/{digest_of(DATA)}", f"/v2/{name}/manifests/latest"):
        tag = registry.ask("GET", target, Accept=OCI_MANIFEST).header("ETag")
        assert tag
        response = registry.ask("GET", target, If_None_Match=tag, Accept=OCI_MANIFEST)
        assert (response.status, response.body) == (304, b"")
    assert digest


# --- push -----------------------------------------------------------------------------------------------------------


def test_a_blob_in_one_put(registry: RegistryClient, name: str) -> None:
    begun = registry.ask("POST", f"/v2/{name}/blobs/uploads/", b"")
    assert (begun.status, begun.body) == (202, b"")
    ended = registry.ask("PUT", with_query(begun.header("Location") or "", digest=digest_of(DATA)), DATA)
    assert (ended.status, ended.header("Docker-Content-Digest")) == (201, digest_of(DATA))
    assert registry.ask("GET", ended.header("Location") or "").body == DATA


@docker_deviates("answers 202 to a POST with the blob in it, and takes none of it")
def test_a_blob_in_one_post(registry: RegistryClient, name: str) -> None:
    response = registry.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest_of(DATA)}", DATA, Content_Type=OCTETS)
    assert response.status == 201
    assert registry.ask("GET", response.header("Location") or "").body == DATA


def test_a_blob_in_chunks(registry: RegistryClient, name: str) -> None:
    location, sent = registry.begin(name), 0
    for size in (1000, 5000, 1):
        piece = DATA[sent : sent + size]
        response = registry.ask("PATCH", location, piece, Content_Range=f"{sent}-{sent + size - 1}")
        sent += size
        assert (response.status, response.header("Range")) == (202, f"0-{sent - 1}")
        location = response.header("Location") or ""
    rest = DATA[sent:]
    where = with_query(location, digest=digest_of(DATA))
    ended = registry.ask("PUT", where, rest, Content_Range=f"{sent}-{len(DATA) - 1}")
    assert ended.status == 201
    assert registry.ask("GET", ended.header("Location") or "").body == DATA


def test_a_blob_of_unknown_length(registry: RegistryClient, name: str) -> None:
    response = registry.ask("PATCH", registry.begin(name), iter([DATA[:7], DATA[7:]]), Content_Type=OCTETS)
    assert (response.status, response.header("Range")) == (202, f"0-{len(DATA) - 1}")
    ended = registry.ask("PUT", with_query(response.header("Location") or "", digest=digest_of(DATA)), b"")
    assert ended.status == 201


def test_an_upload_says_how_far_it_is(registry: RegistryClient, name: str) -> None:
    location = registry.begin(name)
    location = registry.ask("PATCH", location, DATA[:100]).header("Location") or ""
    response = registry.ask("GET", location)
    assert (response.status, response.header("Range")) == (204, "0-99")
    assert response.header("Location")


@docker_deviates("takes no notice of Content-Range, and appends")
@pytest.mark.parametrize("place", ["200-299", "0-99"])
def test_a_chunk_out_of_order_is_refused_and_the_upload_goes_on(
    registry: RegistryClient, name: str, place: str
) -> None:
    location = registry.ask("PATCH", registry.begin(name), DATA[:100], Content_Range="0-99").header("Location") or ""
    response = registry.ask("PATCH", location, DATA[:100], Content_Range=place)
    assert response.status == 416
    assert response.header("Range") == "0-99"
    assert registry.ask("GET", location).header("Range") == "0-99"
    rest = with_query(location, digest=digest_of(DATA))
    assert registry.ask("PUT", rest, DATA[100:], Content_Range=f"100-{len(DATA) - 1}").status == 201


def test_other_bytes_than_those_of_the_digest(registry: RegistryClient, name: str) -> None:
    response = registry.ask("PUT", with_query(registry.begin(name), digest=ABSENT), DATA)
    refused(response, 400, "DIGEST_INVALID")
    assert registry.ask("HEAD", f"/v2/{name}/blobs/{ABSENT}").status == 404
    assert registry.ask("HEAD", f"/v2/{name}/blobs/{digest_of(DATA)}").status == 404


def test_the_end_of_an_upload_needs_a_digest(registry: RegistryClient, name: str) -> None:
    refused(registry.ask("PUT", registry.begin(name), DATA), 400, "DIGEST_INVALID")


def test_an_upload_can_be_cancelled(registry: RegistryClient, name: str) -> None:
    location = registry.begin(name)
    assert registry.ask("DELETE", location).status == 204
    refused(registry.ask("GET", location), 404, "BLOB_UPLOAD_UNKNOWN")
    refused(registry.ask("PATCH", location, b"x"), 404, "BLOB_UPLOAD_UNKNOWN")


def test_an_empty_blob(registry: RegistryClient, name: str) -> None:
    registry.push_blob(name, b"")
    response = registry.ask("GET", f"/v2/{name}/blobs/{digest_of(b'')}")
    assert (response.status, response.body, response.header("Content-Length")) == (200, b"", "0")


def test_a_blob_is_mounted_from_another_repository(registry: RegistryClient, name: str) -> None:
    registry.push_blob(name, DATA)
    target = f"/v2/{name}/to/blobs/uploads/?mount={digest_of(DATA)}&from={name}"
    response = registry.ask("POST", target, b"")
    assert (response.status, response.header("Docker-Content-Digest")) == (201, digest_of(DATA))
    assert registry.ask("GET", response.header("Location") or "").body == DATA


def test_what_cannot_be_mounted_is_uploaded(registry: RegistryClient, name: str) -> None:
    response = registry.ask("POST", f"/v2/{name}/blobs/uploads/?mount={ABSENT}&from={name}", b"")
    assert response.status == 202
    assert registry.ask("GET", response.header("Location") or "").status == 204


@docker_deviates("mounts from a repository that is named only")
def test_a_blob_is_mounted_from_wherever_it_is(registry: RegistryClient, name: str) -> None:
    registry.push_blob(name, DATA)
    assert registry.ask("POST", f"/v2/{name}/to/blobs/uploads/?mount={digest_of(DATA)}", b"").status == 201


# --- manifests ------------------------------------------------------------------------------------------------------


def test_a_manifest_needs_its_blobs(registry: RegistryClient, name: str) -> None:
    registry.push_blob(name, b"{}")
    response = registry.push_manifest(name, "latest", manifest(b"{}", DATA))
    assert response.status in (400, 404)
    assert response.codes == {"MANIFEST_BLOB_UNKNOWN"}
    assert digest_of(DATA) in response.body.decode()
    assert registry.ask("GET", f"/v2/{name}/manifests/latest").status == 404


def test_an_index_and_what_is_in_it(registry: RegistryClient, name: str) -> None:
    registry.push_image(name, "one", layers=(b"1",))
    raw = index(manifest(b"{}", b"1"))
    assert registry.push_manifest(name, "all", raw, OCI_INDEX).status == 201
    response = registry.ask("GET", f"/v2/{name}/manifests/all", Accept=OCI_INDEX)
    assert (response.body, response.header("Content-Type")) == (raw, OCI_INDEX)
    response = registry.push_manifest(name, "more", index(manifest(b"{}", b"2")), OCI_INDEX)
    assert response.status in (400, 404)
    assert response.codes == {"MANIFEST_BLOB_UNKNOWN"}


def test_a_manifest_by_another_digest_is_refused(registry: RegistryClient, name: str) -> None:
    registry.push_blob(name, b"{}")
    refused(registry.push_manifest(name, ABSENT, manifest(b"{}")), 400, "DIGEST_INVALID")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff\xfe"])
def test_what_is_no_manifest(registry: RegistryClient, name: str, raw: bytes) -> None:
    refused(registry.push_manifest(name, "latest", raw), 400, "MANIFEST_INVALID")


@docker_deviates("answers 500 to null, and names blobs that nobody asked for otherwise")
@pytest.mark.parametrize("raw", [b"null", b'{"schemaVersion": 2}'])
def test_what_is_json_and_no_manifest(registry: RegistryClient, name: str, raw: bytes) -> None:
    refused(registry.push_manifest(name, "latest", raw), 400, "MANIFEST_INVALID")


def test_a_tag_moves(registry: RegistryClient, name: str) -> None:
    first = registry.push_image(name, "latest", layers=(b"1",))
    second = registry.push_image(name, "latest", layers=(b"2",))
    head = registry.ask("HEAD", f"/v2/{name}/manifests/latest", Accept=OCI_MANIFEST)
    assert head.header("Docker-Content-Digest") == second
    assert registry.ask("HEAD", f"/v2/{name}/manifests/{first}", Accept=OCI_MANIFEST).status == 200


@docker_deviates("knows no tags in the query")
def test_a_push_by_digest_brings_tags_along(registry: RegistryClient, name: str) -> None:
    registry.push_blob(name, b"{}")
    raw = manifest(b"{}")
    tags = [f"v{number}" for number in range(12)]
    target = digest_of(raw) + "?" + "&".join(f"tag={tag}" for tag in tags)
    response = registry.push_manifest(name, target, raw)
    assert response.status == 201
    assert response.headers.get_all("OCI-Tag") == tags
    assert registry.ask("GET", f"/v2/{name}/tags/list").json()["tags"] == sorted(tags)


# --- discovery ------------------------------------------------------------------------------------------------------


@docker_deviates("lists tags in the order of its directory")
def test_tags_are_listed_in_the_order_of_their_bytes(registry: RegistryClient, name: str) -> None:
    tags = ["b", "a", "Z", "_1", "10", "9", "a.b", "a-b"]
    for tag in tags:
        registry.push_image(name, tag)
    assert registry.ask("GET", f"/v2/{name}/tags/list").json() == {"name": name, "tags": sorted(tags)}


@docker_deviates("lists all tags, whatever n and last say")
def test_tags_page_by_page(registry: RegistryClient, name: str) -> None:
    tags = [f"t{number}" for number in range(7)]
    for tag in tags:
        registry.push_image(name, tag)
    target: str | None = f"/v2/{name}/tags/list?n=3"
    pages = []
    while target:
        response = registry.ask("GET", target)
        pages.append(response.json()["tags"])
        link = response.header("Link")
        target = None if link is None else re.fullmatch(r'<([^>]+)>; rel="next"', link)[1]
    assert pages == [tags[:3], tags[3:6], tags[6:]]
    assert registry.ask("GET", f"/v2/{name}/tags/list?last=t4").json()["tags"] == ["t5", "t6"]
    none = registry.ask("GET", f"/v2/{name}/tags/list?n=0")
    assert (none.json()["tags"], none.header("Link")) == ([], None)


def test_repositories_page_by_page(registry: RegistryClient, name: str) -> None:
    for part in ("a", "b", "c"):
        registry.push_image(f"{name}/{part}", "latest")
    response = registry.ask("GET", f"/v2/_catalog?n=2&last={name}")
    assert response.json() == {"repositories": [f"{name}/a", f"{name}/b"]}
    assert 'rel="next"' in (response.header("Link") or "")


@docker_deviates("has no referrers API")
def test_referrers_are_listed_with_what_they_say_of_themselves(registry: RegistryClient, name: str) -> None:
    subject = registry.push_image(name, "latest")
    about = {"subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}}
    registry.push_blob(name, DATA)
    by_config = manifest(b"{}", DATA, **about, annotations={"a": "b"})
    by_type = manifest(b"{}", **about, artifactType="application/x-sbom")
    listing = index(**about, annotations={"c": "d"})
    for raw, kind in ((by_config, OCI_MANIFEST), (by_type, OCI_MANIFEST), (listing, OCI_INDEX)):
        response = registry.push_manifest(name, digest_of(raw), raw, kind)
        assert (response.status, response.header("OCI-Subject")) == (201, subject)
    response = registry.ask("GET", f"/v2/{name}/referrers/{subject}")
    assert (response.status, response.header("Content-Type")) == (200, OCI_INDEX)
    config_type = json.loads(by_config)["config"]["mediaType"]
    expected = [
        described(by_config, OCI_MANIFEST, artifactType=config_type, annotations={"a": "b"}),
        described(by_type, OCI_MANIFEST, artifactType="application/x-sbom"),
        described(listing, OCI_INDEX, annotations={"c": "d"}),
    ]
    assert sorted(response.json()["manifests"], key=str) == sorted(expected, key=str)
    filtered = registry.ask("GET", f"/v2/{name}/referrers/{subject}?artifactType=application/x-sbom")
    assert filtered.header("OCI-Filters-Applied") == "artifactType"
    assert filtered.json()["manifests"] == [expected[1]]


@docker_deviates("has no referrers API")
def test_nobody_refers_to_it(registry: RegistryClient, name: str) -> None:
    response = registry.ask("GET", f"/v2/{name}/referrers/{ABSENT}")
    assert response.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    refused(registry.ask("GET", f"/v2/{name}/referrers/sha256:x"), 400, "DIGEST_INVALID")


@docker_deviates("has no referrers API, and says nothing of the subject")
def test_a_subject_may_come_later_or_never(registry: RegistryClient, name: str) -> None:
    registry.push_blob(name, b"{}")
    raw = manifest(b"{}", subject={"mediaType": OCI_MANIFEST, "digest": ABSENT, "size": 1})
    assert registry.push_manifest(name, "sbom", raw).header("OCI-Subject") == ABSENT
    assert len(registry.ask("GET", f"/v2/{name}/referrers/{ABSENT}").json()["manifests"]) == 1


# --- deletion -------------------------------------------------------------------------------------------------------


@docker_deviates("deletes by digest only")
def test_a_deleted_tag_leaves_the_manifest(registry: RegistryClient, name: str) -> None:
    digest = registry.push_image(name, "latest")
    assert registry.ask("DELETE", f"/v2/{name}/manifests/latest").status == 202
    refused(registry.ask("GET", f"/v2/{name}/manifests/latest"), 404, "MANIFEST_UNKNOWN")
    assert registry.ask("GET", f"/v2/{name}/manifests/{digest}").status == 200
    assert registry.ask("GET", f"/v2/{name}/tags/list").json()["tags"] == []


def test_a_deleted_manifest_takes_its_tags_along(registry: RegistryClient, name: str) -> None:
    digest = registry.push_image(name, "one", layers=(b"1",))
    registry.push_image(name, "two", layers=(b"1",))
    assert registry.ask("DELETE", f"/v2/{name}/manifests/{digest}").status == 202
    for reference in (digest, "one", "two"):
        assert registry.ask("GET", f"/v2/{name}/manifests/{reference}", Accept=OCI_MANIFEST).status == 404
    assert registry.ask("DELETE", f"/v2/{name}/manifests/{digest}").status == 404


def test_a_deleted_blob_stays_for_the_others(registry: RegistryClient, name: str) -> None:
    for repository in (name, f"{name}/other"):
        registry.push_blob(repository, DATA)
    target = f"/v2/{name}/blobs/{digest_of(DATA)}"
    assert registry.ask("DELETE", target).status == 202
    assert registry.ask("HEAD", target).status == 404
    assert registry.ask("DELETE", target).status == 404
    assert registry.ask("GET", f"/v2/{name}/other/blobs/{digest_of(DATA)}").body == DATA


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["sha256:abc", "sha256:" + "A" * 64, "md5:" + "0" * 32, "nonsense"])
def test_a_digest_that_is_none(registry: RegistryClient, name: str, wrong: str) -> None:
    response = registry.ask("PUT", with_query(registry.begin(name), digest=wrong), DATA)
    assert response.status == 400
    assert response.codes == {"DIGEST_INVALID"}


def test_a_method_that_is_not_for_this(registry: RegistryClient, name: str) -> None:
    response = registry.ask("PATCH", f"/v2/{name}/manifests/latest", b"x")
    assert response.status == 405


@docker_deviates("takes the sha512 digest that another digest would have")
def test_only_sha256(registry: RegistryClient, name: str) -> None:
    response = registry.ask("GET", f"/v2/{name}/blobs/sha512:" + "0" * 128)
    refused(response, 400, "DIGEST_INVALID")
    assert "sha256" in response.json()["errors"][0]["message"]
