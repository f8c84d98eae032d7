"""The way from an image to what signs its attestations, in registries with and without a list of referrers."""

from __future__ import annotations

from typing import Any

import pytest

from buildengine import reference
from buildengine.digest import Digest
from buildengine.errors import RegistryError, SourceError
from buildengine.platform import parse
from tests.fakes.http_server import Reply
from tests.fakes.registry_server import FakeRegistry, Image, client, descriptor, fake_registry, index
from worker.oci import types
from worker.oci.document import InvalidImage
from worker.oci.jsonbytes import compact
from worker.registry.signatures import SignatureChain, signature_chain

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
COSIGN = "application/vnd.dev.cosign.artifact.sig.v1+json"
UNKNOWN = {"architecture": "unknown", "os": "unknown"}
IMAGE = Image()


def artifact(kind: str, layer: bytes) -> bytes:
    document = {"schemaVersion": 2, "mediaType": types.OCI_MANIFEST, "artifactType": kind}
    return compact({**document, "config": descriptor(b"{}", types.OCI_EMPTY), "layers": [descriptor(layer, kind)]})


ATTESTED = artifact("application/vnd.in-toto+json", b"statement")
SIGNED = {kind: artifact(kind, kind.encode()) for kind in (COSIGN, BUNDLE)}


def about(image: Digest) -> dict[str, Any]:
    note = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": str(image)}
    return {**descriptor(ATTESTED, types.OCI_MANIFEST), "platform": UNKNOWN, "annotations": note}


def publish(fake: FakeRegistry, *, attested: bool = True) -> bytes:
    image = fake.put("app", "amd", IMAGE)
    root = index(about(Digest.sha256(b"another")), IMAGE.entry(), *([about(image)] if attested else []))
    fake.put_manifest("app", "1", root)
    fake.put_manifest("app", "attested", ATTESTED, types.OCI_MANIFEST)
    return root


def referrers(fake: FakeRegistry, *signatures: str) -> bytes:
    """What refers to the attestations, put there."""
    listed = [descriptor(ATTESTED, types.OCI_MANIFEST, artifactType="application/x")]
    for kind in signatures:
        fake.put_manifest("app", kind.partition("/")[2], SIGNED[kind], types.OCI_MANIFEST)
        fake.blobs[str(Digest.sha256(kind.encode()))] = kind.encode()
        listed.append(descriptor(SIGNED[kind], types.OCI_MANIFEST, artifactType=kind))
    return index(*listed)


def list_referrers(fake: FakeRegistry, listed: bytes) -> None:
    reply = Reply(body=listed, headers={"content-type": types.OCI_INDEX})
    path = f"/v2/app/referrers/{Digest.sha256(ATTESTED)}"
    fake.rules.append(lambda request: reply if request.path == path else None)


def tag_referrers(fake: FakeRegistry, listed: bytes) -> None:
    fake.put_manifest("app", f"sha256-{Digest.sha256(ATTESTED).hex}", listed)


async def chain(fake: FakeRegistry, platform: str = "linux/amd64") -> SignatureChain:
    async with client() as registry:
        name = reference.parse(f"{fake.host}/app:1")
        return await signature_chain(registry, name, parse(platform), known=lambda digest: None)


async def test_the_whole_way_and_of_two_signatures_the_bundle() -> None:
    async with fake_registry() as fake:
        root = publish(fake)
        list_referrers(fake, referrers(fake, COSIGN, BUNDLE))
        found = await chain(fake)
        asked = [request.path.rpartition("/")[2] for request in fake.server.requests]
    assert (found.root, found.image) == (Digest.sha256(root), Digest.sha256(IMAGE.manifest))
    assert (found.attestation, found.signature) == (Digest.sha256(ATTESTED), Digest.sha256(SIGNED[BUNDLE]))
    assert [data for _, data in found.blobs] == [root, ATTESTED, SIGNED[BUNDLE], BUNDLE.encode()]
    assert [each.digest for each, _ in found.blobs] == [Digest.sha256(data) for _, data in found.blobs]
    assert found.blobs[1][0].annotations["vnd.docker.reference.type"] == "attestation-manifest"
    assert str(found.image) not in asked, "the image itself proves nothing"


async def test_a_tag_in_the_place_of_a_list() -> None:
    async with fake_registry() as fake:
        publish(fake)
        unsigned = await chain(fake)
        tag_referrers(fake, referrers(fake, COSIGN))
        assert (await chain(fake)).signature == Digest.sha256(SIGNED[COSIGN])
    assert (unsigned.attestation, unsigned.signature) == (Digest.sha256(ATTESTED), None)
    assert len(unsigned.blobs) == 2


async def test_an_image_without_attestations() -> None:
    async with fake_registry() as fake:
        root = publish(fake, attested=False)
        found = await chain(fake)
        with pytest.raises(SourceError, match="no manifest for platform linux/s390x"):
            await chain(fake, "linux/s390x")
    assert (found.attestation, [data for _, data in found.blobs]) == (None, [root])


async def test_what_is_no_chain() -> None:
    async with fake_registry() as fake:
        fake.put("app", "1", IMAGE)
        with pytest.raises(SourceError, match=r"expected image index descriptor, got .*image\.manifest"):
            await chain(fake)
        fake.put_manifest("app", "1", index(IMAGE.entry(), media_type=types.DOCKER_INDEX), types.DOCKER_INDEX)
        with pytest.raises(SourceError, match=r"expected image index descriptor, got application/vnd\.docker"):
            await chain(fake)


async def test_signatures_that_are_not_what_they_should_be() -> None:
    async with fake_registry() as fake:
        publish(fake)
        tag_referrers(fake, referrers(fake, BUNDLE))
        fake.blobs[str(Digest.sha256(BUNDLE.encode()))] = b"x" * len(BUNDLE)
        with pytest.raises(RegistryError, match="is not sha256:"):
            await chain(fake)
        huge = artifact(BUNDLE, b"").replace(b'"size":0', b'"size":99999999')
        fake.put_manifest("app", "huge", huge, types.OCI_MANIFEST)
        tag_referrers(fake, index(descriptor(huge, types.OCI_MANIFEST, artifactType=BUNDLE)))
        with pytest.raises(InvalidImage, match="is larger than"):
            await chain(fake)
