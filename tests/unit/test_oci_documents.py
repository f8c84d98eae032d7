"""Manifests, indexes and configs: what is taken, what is refused, and the exact bytes that are written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildengine.digest import Digest
from buildengine.errors import BuildError, UserError
from buildengine.platform import Platform
from tests.fakes.registry_server import Image, descriptor, index
from worker.oci import jsonbytes, types
from worker.oci.document import InvalidImage
from worker.oci.types import (
    Descriptor,
    Index,
    Manifest,
    diff_ids_by_layer,
    parse_config,
    parse_manifest,
    parse_manifest_or_index,
)

HEX = "a" * 64


# --- bytes --------------------------------------------------------------------------------------------------


def test_indented_as_go_writes_it() -> None:
    # json.MarshalIndent(map[string]any{"a": "<é&\u2028>\t", "b": []int{}, "c": map[string]int{}, ...}, "", "  ")
    document = {"a": "<é&\u2028>\t", "b": [], "c": {}, "d": [1]}
    assert jsonbytes.indented(document) == (
        b'{\n  "a": "\\u003c\xc3\xa9\\u0026\\u2028\\u003e\\t",\n  "b": [],\n  "c": {},\n  "d": [\n    1\n  ]\n}'
    )
    assert jsonbytes.compact(document) == b'{"a":"\\u003c\xc3\xa9\\u0026\\u2028\\u003e\\t","b":[],"c":{},"d":[1]}'


def test_what_is_not_json_is_not_written() -> None:
    with pytest.raises(UserError, match="not valid Unicode"):
        jsonbytes.compact({"a": "\udc80"})
    with pytest.raises(ValueError, match="Out of range"):
        jsonbytes.compact({"a": float("nan")})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc<>&", max_size=3), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text("ab", max_size=2), JSON, max_size=4))
def test_whatever_is_written_is_read_back(document: dict[str, Any]) -> None:
    assert json.loads(jsonbytes.indented(document)) == document
    assert json.loads(jsonbytes.compact(document)) == document


def test_a_descriptor_is_written_in_gos_field_order() -> None:
    full = Descriptor(
        media_type=types.OCI_MANIFEST,
        digest=Digest("sha256:" + HEX),
        size=1,
        urls=("https://x",),
        annotations={"b": "2", "a": "1"},
        platform=Platform(os="linux", architecture="arm", variant="v7", os_version="1", os_features=("f",)),
        artifact_type="t/x",
    )
    assert jsonbytes.compact(full.to_json()) == (
        b'{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:' + HEX.encode() + b'","size":1,'
        b'"urls":["https://x"],"annotations":{"a":"1","b":"2"},"platform":{"architecture":"arm","os":"linux",'
        b'"os.version":"1","os.features":["f"],"variant":"v7"},"artifactType":"t/x"}'
    )
    assert hash(full) == hash(full)


# --- parsing ------------------------------------------------------------------------------------------------


def test_a_manifest() -> None:
    image = Image()
    manifest = parse_manifest(image.manifest)
    assert manifest.raw is image.manifest
    assert manifest.digest == Digest.sha256(image.manifest)
    assert manifest.descriptor.to_json() == {
        "mediaType": types.OCI_MANIFEST,
        "digest": str(manifest.digest),
        "size": len(image.manifest),
    }
    assert [layer.size for layer in manifest.layers] == [9, 9]


def test_an_index_with_platforms_normalised() -> None:
    raw = index(Image().entry(os="Linux", architecture="x86_64"), Image().entry(os="linux", architecture="aarch64"))
    parsed = parse_manifest_or_index(raw)
    assert isinstance(parsed, Index)
    assert [str(entry.platform) for entry in parsed.manifests] == ["linux/amd64", "linux/arm64"]
    with pytest.raises(InvalidImage, match="is an index where an image manifest is needed"):
        parse_manifest(raw)


@pytest.mark.parametrize("sent", ["", "application/json", "text/plain; charset=utf-8", types.OCI_MANIFEST + "; x=y"])
def test_the_type_is_the_documents_own_or_what_its_fields_show(sent: str) -> None:
    document = json.loads(Image().manifest)
    assert isinstance(parse_manifest_or_index(json.dumps(document).encode(), media_type=sent), Manifest)
    del document["mediaType"]
    assert isinstance(parse_manifest_or_index(json.dumps(document).encode(), media_type=sent), Manifest)


def test_a_config() -> None:
    raw = json.dumps(
        {"architecture": "arm", "os": "linux", "config": {"Env": ["A=b"]}, "rootfs": {"diff_ids": ["sha256:" + HEX]}}
    ).encode()
    config = parse_config(raw)
    assert str(config.platform) == "linux/arm/v7"
    assert config.diff_ids == (Digest("sha256:" + HEX),)
    assert config.document["config"] == {"Env": ["A=b"]}
    assert parse_config(b"{}").diff_ids == ()


def test_null_is_nothing_as_go_writes_it() -> None:
    raw = (
        b'{"schemaVersion":2,"config":%s,"layers":null,"annotations":null}'
        % json.dumps(descriptor(b"{}", types.OCI_CONFIG, urls=None, platform=None)).encode()
    )
    assert parse_manifest(raw).layers == ()


def change(**fields: Any) -> bytes:
    return json.dumps({**json.loads(Image().manifest), **fields}).encode()


LAYER = json.loads(Image().manifest)["layers"][0]


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "manifest is not valid JSON"),
        (b"\xff\xfe", "manifest is not valid JSON"),
        (b"\xef\xbb\xbf{}", "manifest is not valid JSON"),
        (b'{"a": NaN}', "manifest is not valid JSON: NaN is not JSON"),
        (b'{"a": Infinity}', "manifest is not valid JSON"),
        (b'{"schemaVersion": ' + b"9" * 5000 + b"}", "manifest is not valid JSON"),
        (b'{"a":' * 200_000, "manifest is nested too deeply"),
        (b"5", "manifest is not a JSON object"),
        (b" " * (types.MANIFEST_LIMIT + 1), "manifest has 4194305 bytes, more than the 4194304 allowed"),
        (change(schemaVersion="2"), "schemaVersion is not a number"),
        (change(schemaVersion=1), "schema 1"),
        (change(mediaType=5), "mediaType is not a string"),
        (change(mediaType="application/x"), "has the media type 'application/x'"),
        (change(mediaType=types.OCI_INDEX), "has the media type"),
        (change(manifests=[]), "claims to be both"),
        (change(config=[]), "manifest: config is not an object"),
        (change(config=None), "manifest: config is missing"),
        (change(config={}), "manifest: config.mediaType is missing"),
        (change(layers={}), "manifest: layers is not a list"),
        (change(layers=[1]), r"manifest: layers\[0\] is not an object"),
        (change(layers=[LAYER] * 10_001), "layers has 10001 entries, more than the 10000 allowed"),
        (change(layers=[{**LAYER, "size": True}]), r"layers\[0\].size is not a number"),
        (change(layers=[{**LAYER, "size": 1.5}]), r"layers\[0\].size is not a number"),
        (change(layers=[{**LAYER, "size": 1 << 60}]), r"layers\[0\].size is not between"),
        (change(layers=[{**LAYER, "size": -1}]), r"layers\[0\].size is not between"),
        (change(layers=[{**LAYER, "digest": "sha256:../../etc"}]), r"layers\[0\].digest is not a digest"),
        (change(layers=[{**LAYER, "digest": "sha512:" + "a" * 128}]), "sha512; sha256 is supported"),
        (change(layers=[{**LAYER, "digest": "sha256:" + HEX.upper()}]), "is not a digest"),
        (change(layers=[{**LAYER, "urls": [5]}]), r"layers\[0\].urls\[0\] is not a short string"),
        (change(layers=[{**LAYER, "annotations": {"a": 1}}]), r"layers\[0\].annotations\['a'\] is not a string"),
        (change(layers=[{**LAYER, "platform": "linux"}]), r"layers\[0\].platform is not an object"),
        (change(layers=[{**LAYER, "platform": {"os": "x" * 1000}}]), "platform.os is longer than 256 characters"),
        (change(annotations=[]), "annotations is not an object of strings"),
    ],
)
def test_what_no_manifest_is(raw: bytes, problem: str) -> None:
    with pytest.raises(InvalidImage, match=problem):
        parse_manifest_or_index(raw)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"[]", "is not a JSON object"),
        (b'{"rootfs": 5}', "rootfs is not an object"),
        (b'{"rootfs": {"diff_ids": "x"}}', "rootfs.diff_ids is not a list"),
        (b'{"rootfs": {"diff_ids": ["x"]}}', r"rootfs.diff_ids\[0\] is not a digest"),
        (b'{"os": 1}', "os is not a string"),
    ],
)
def test_what_no_config_is(raw: bytes, problem: str) -> None:
    with pytest.raises(InvalidImage, match=problem):
        parse_config(raw)


@given(JSON)
def test_no_document_makes_it_stumble(document: Any) -> None:
    raw = json.dumps(document).encode()
    for parse in (parse_manifest_or_index, parse_config):
        try:
            parse(raw)
        except BuildError:
            pass


@given(st.sampled_from(["config", "layers", "annotations", "mediaType", "schemaVersion", "manifests"]), JSON)
def test_no_field_makes_it_stumble(name: str, value: Any) -> None:
    try:
        parse_manifest_or_index(change(**{name: value}))
    except InvalidImage:
        pass


def test_layers_and_diff_ids() -> None:
    image = Image()
    pairs = diff_ids_by_layer(parse_manifest(image.manifest), parse_config(image.config))
    assert [layer.digest for layer, _ in pairs] == [Digest.sha256(layer) for layer in image.layers]
