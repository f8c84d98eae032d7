"""What signs an image, as its registry has it: what a source policy looks at before it lets the image in.

    root index -> the platform's manifest -> the attestation manifest about it -> a signature that refers to that

Everything is read from the registry, but for what that has sent before; nothing is verified here but digests.

Facts: moby/policy-helpers image/resolve.go (ResolveSignatureChain), BuildKit source/containerimage/source.go (what is
read of it), distribution-spec "Listing Referrers" (and the tag in its place).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from buildengine.digest import Digest
from buildengine.errors import RegistryError, SourceError
from buildengine.platform import Platform
from buildengine.reference import Reference
from buildengine.values import dataclass
from worker.oci.choose import candidates
from worker.oci.document import InvalidImage
from worker.oci.types import (
    CONFIG_LIMIT,
    MANIFEST_TYPES,
    OCI_INDEX,
    Descriptor,
    Index,
    Manifest,
    parse_manifest_or_index,
)
from worker.registry.client import manifest_path
from worker.registry.puller import KnownBlobs, Registry

_REFERENCE_TYPE, _REFERENCE_DIGEST = "vnd.docker.reference.type", "vnd.docker.reference.digest"
_ATTESTATION = "attestation-manifest"
# The better one first; of several of a kind the first one counts.
_SIGNATURES = ("application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.cosign.artifact.sig.v1+json")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureChain:
    """`blobs` are the root, the attestation manifest, the signature manifest and its layers, each with its bytes."""

    root: Digest
    image: Digest
    attestation: Digest | None = None
    signature: Digest | None = None
    blobs: tuple[tuple[Descriptor, bytes], ...]


async def signature_chain(
    registry: Registry, reference: Reference, platform: Platform, *, known: KnownBlobs
) -> SignatureChain:
    """The chain of the image that `reference` names for `platform`, as far as it goes. Raises SourceError."""
    root = await registry.fetch_manifest(reference, known=known)
    if not isinstance(root, Index) or root.media_type != OCI_INDEX:
        raise SourceError(f"{reference.familiar}: expected image index descriptor, got {root.media_type}")
    manifests = tuple(entry for entry in root.manifests if entry.media_type in MANIFEST_TYPES)
    found = candidates(replace(root, manifests=manifests), platform)
    if not found:
        raise SourceError(f"{reference.familiar}: no manifest for platform {platform}")
    image, blobs = found[0], [(root.descriptor, root.raw)]
    attestation = next((entry for entry in manifests if _is_about(entry, image)), None)
    if attestation is None:
        return SignatureChain(root=root.digest, image=image.digest, blobs=tuple(blobs))
    attested = await registry.fetch_manifest(reference.with_digest(attestation.digest), known=known)
    blobs.append((attestation, attested.raw))
    signature = _best(await _referrers(registry, reference, attestation.digest))
    if signature is not None:
        signed = await registry.fetch_manifest(reference.with_digest(signature.digest), known=known)
        blobs.append((signature, signed.raw))
        blobs += await _layers(registry, reference, signed)
    return SignatureChain(
        root=root.digest,
        image=image.digest,
        attestation=attestation.digest,
        signature=None if signature is None else signature.digest,
        blobs=tuple(blobs),
    )


def _is_about(entry: Descriptor, image: Descriptor) -> bool:
    said = entry.annotations
    return said.get(_REFERENCE_TYPE) == _ATTESTATION and said.get(_REFERENCE_DIGEST) == image.digest


def _best(referrers: Sequence[Descriptor]) -> Descriptor | None:
    known = (entry for entry in referrers if entry.artifact_type in _SIGNATURES)
    return min(known, key=lambda entry: _SIGNATURES.index(entry.artifact_type), default=None)


async def _referrers(registry: Registry, reference: Reference, subject: Digest) -> Sequence[Descriptor]:
    """What refers to `subject`: as the registry lists it, or as a tag of the repository does where it cannot."""
    what = f"referrers of {subject} in {reference.familiar}"
    try:
        raw = await registry.fetch_document(reference, f"referrers/{subject}", what=what)
    except RegistryError:
        tag = str(subject).replace(":", "-")
        try:
            raw = await registry.fetch_document(reference, manifest_path(tag), what=what)
        except RegistryError as error:
            if error.status == 404:
                return ()
            raise
    index = parse_manifest_or_index(raw, what=what)
    return index.manifests if isinstance(index, Index) else ()


async def _layers(
    registry: Registry, reference: Reference, signed: Manifest | Index
) -> Sequence[tuple[Descriptor, bytes]]:
    layers = signed.layers if isinstance(signed, Manifest) else ()
    if sum(layer.size for layer in layers) > CONFIG_LIMIT:
        raise InvalidImage(f"the signature {signed.digest} of {reference.familiar} is larger than {CONFIG_LIMIT} bytes")
    return [(layer, await registry.fetch_config(reference, layer)) for layer in layers]
