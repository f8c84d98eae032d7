"""Image config, manifest and index: what depends on the family of types, on the base and on the epoch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from buildengine.digest import Digest
from buildengine.platform import Platform
from worker.exporters import document
from worker.exporters.document import DOCKER, OCI, ExportLayer, MediaTypes
from worker.oci.types import Descriptor

AMD64 = Platform(os="linux", architecture="amd64")
WINDOWS = Platform(os="windows", architecture="amd64")
DIGEST = Digest.sha256(b"a layer")
EPOCH = 1_700_000_000
THEN = "2023-11-14T22:13:20Z"
BEFORE, AFTER = "2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"


def layer(media_type: str = OCI.layers[1], **more: Any) -> ExportLayer:
    return ExportLayer(digest=DIGEST, size=5, media_type=media_type, diff_id=DIGEST, created=2e9, **more)


def manifest(given: ExportLayer, family: MediaTypes) -> dict[str, Any]:
    (found,) = json.loads(document.manifest_bytes(b"{}", [given], family))["layers"]
    return dict(found)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_layers_are_named_by_the_family(kind: int) -> None:
    for given in (OCI.layers, DOCKER.layers, OCI.foreign, DOCKER.foreign):
        for family in (OCI, DOCKER):
            assert manifest(layer(given[kind]), family)["mediaType"] == family.layers[kind]
            kept = manifest(layer(given[kind], urls=("https://a/b",)), family)
            assert (kept["mediaType"], kept["urls"]) == (family.foreign[kind], ["https://a/b"])


def test_a_type_nobody_knows_stays() -> None:
    assert manifest(layer("application/x"), DOCKER)["mediaType"] == "application/x"


def test_annotations_of_layers_are_for_oci() -> None:
    annotated = layer(annotations={"a": "1"})
    assert manifest(annotated, OCI)["annotations"] == {"a": "1"}
    assert "annotations" not in manifest(annotated, DOCKER)


def config(history: list[dict[str, Any]], *, base: list[dict[str, Any]] | None = None, layers: int = 2) -> Any:
    raw = json.dumps({"os": "linux", "architecture": "amd64", "history": history}).encode()
    based = json.dumps({"history": base}).encode() if base is not None else b""
    return json.loads(document.config_bytes(raw, AMD64, [layer()] * layers, epoch=EPOCH, base=based))


def test_the_history_of_the_base_keeps_its_times() -> None:
    base: list[dict[str, Any]] = [
        {"created": AFTER, "created_by": "base"},
        {"created": AFTER, "created_by": "env", "empty_layer": True},
    ]
    made = config([*base, {"created_by": "ours"}], base=base)
    assert [entry["created"] for entry in made["history"]] == [AFTER, AFTER, THEN]


def test_what_differs_from_the_base_is_clamped_and_all_after_it() -> None:
    base = [{"created": AFTER, "created_by": "one"}, {"created": AFTER, "created_by": "two"}]
    made = config([{"created": AFTER, "created_by": "changed"}, base[1]], base=base)
    assert [entry["created"] for entry in made["history"]] == [THEN, THEN]
    without = config([{"created": BEFORE, "created_by": "one"}, base[1]])
    assert [entry["created"] for entry in without["history"]] == [BEFORE, THEN]


def test_a_base_that_said_nothing() -> None:
    made = config([{"created_by": "ours"}], base=[], layers=1)
    assert [entry["created"] for entry in made["history"]] == [THEN]


def test_the_platform_of_a_descriptor() -> None:
    said = json.dumps({"os": "windows", "architecture": "amd64", "os.version": "10.0.1", "os.features": ["f"]}).encode()
    found = document.described(WINDOWS, said)
    assert (found.os_version, found.os_features) == ("10.0.1", ("f",))
    asked = Platform(os="windows", architecture="amd64", os_version="10.0.2")
    assert document.described(asked, said).os_version == "10.0.2"
    assert document.described(AMD64, said) == AMD64  # nobody chooses among images of Linux by these
    assert document.described(WINDOWS, b'{"os":"linux","os.version":"1"}') == WINDOWS


def test_an_index_with_annotations() -> None:
    raw = document.manifest_bytes(b"{}", [], OCI)
    described = Descriptor(media_type=OCI.manifest, digest=Digest.sha256(raw), size=len(raw))
    index = document.index_bytes([described], OCI, annotations={"b": "2", "a": "1"})
    assert list(json.loads(index)["annotations"]) == ["a", "b"]
    assert b"annotations" not in document.index_bytes([described], OCI)
