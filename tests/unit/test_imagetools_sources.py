"""What may be a source of `imagetools create`, and in which repository it is."""

from __future__ import annotations

import json

import pytest

from buildengine.daemon.sources import named_sources
from buildengine.errors import UserError
from buildengine.reference import parse

DIGEST = "sha256:" + "a" * 64
ENTRY = {
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "digest": DIGEST,
    "size": 7,
    "platform": {"os": "x"},
}


def test_references() -> None:
    first, second = named_sources(["app:1", f"h:5000/a:t@{DIGEST}"], [])
    assert str(first.reference) == "docker.io/library/app:1"
    assert str(second.reference) == f"h:5000/a@{DIGEST}"  # the digest decides


@pytest.mark.parametrize("text", [DIGEST, f" {json.dumps(ENTRY)}\n"])
def test_digests_and_descriptors_are_in_the_one_repository_that_is_named(text: str) -> None:
    assert str(named_sources([text], [parse("h.x/a:1")])[0].reference) == f"h.x/a@{DIGEST}"
    assert str(named_sources(["h.x/a:2", text], [])[1].reference) == f"h.x/a@{DIGEST}"
    assert str(named_sources(["h.x/a:2", text], [parse("h.x/a:1")])[1].reference) == f"h.x/a@{DIGEST}"
    for others in (["h.x/b:1"], []):
        with pytest.raises(UserError, match="nobody says in which repository") as caught:
            named_sources([*others, text], [parse("h.x/a:1")] if others else [])
        assert f"REPOSITORY@{DIGEST}" in (caught.value.hint or "")


def test_a_descriptor_keeps_what_it_says() -> None:
    (source,) = named_sources([json.dumps({**ENTRY, "urls": []})], [parse("h.x/a:1")])
    assert source.entry == ENTRY


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sha256:abc", "invalid digest"),
        ("UPPER", "must be lowercase"),
        ("", "is not a repository name"),
        ("{", "is not valid JSON"),
        ("{}", "digest is missing"),
        ('{"digest": "md5:x"}', "is not a digest"),
        (json.dumps({**ENTRY, "schemaVersion": 2}), "not a whole manifest"),
        (json.dumps({**ENTRY, "platform": {"os": 5}}), "platform.os is not a string"),
        (json.dumps({**ENTRY, "size": -1}), "size is not between"),
    ],
)
def test_what_is_no_source(text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        named_sources([text], [parse("h.x/a:1")])


def test_nothing_is_no_image() -> None:
    with pytest.raises(UserError, match="nothing to make an image of"):
        named_sources([], [parse("h.x/a:1")])
