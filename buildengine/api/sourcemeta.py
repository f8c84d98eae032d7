"""What a source is now, asked and answered: ResolveSourceMeta and its messages.

Facts: BuildKit frontend/gateway/gateway.go (ResolveSourceMeta, ToPBResolveSourceMetaResponse, toPBAttestationChain).
"""

from __future__ import annotations

from buildengine.api import gateway_pb2 as pb
from buildengine.digest import Digest
from frontends.gateway import (
    AttestationChain,
    ChainBlob,
    Details,
    ResolvedDirectory,
    ResolvedGit,
    ResolvedHttp,
    ResolvedImage,
    ResolvedSource,
)
from llb.ops import SourceOp
from llb.pb import ops_pb2


def source_of(message: ops_pb2.SourceOp) -> SourceOp:
    return SourceOp(identifier=message.identifier, attrs=dict(message.attrs))


def source_message(source: SourceOp) -> ops_pb2.SourceOp:
    return ops_pb2.SourceOp(identifier=source.identifier, attrs=source.attrs)


def details_of(request: pb.ResolveSourceMetaRequest) -> Details:
    image = request.Image
    return Details(config=not image.NoConfig, chain=image.AttestationChain, objects=request.Git.ReturnObject)


def ask_details(request: pb.ResolveSourceMetaRequest, details: Details) -> None:
    """What `details_of` reads."""
    if not details.config or details.chain:
        wanted = pb.ResolveSourceImageRequest(NoConfig=not details.config, AttestationChain=details.chain)
        request.Image.CopyFrom(wanted)
    if details.objects:
        request.Git.CopyFrom(pb.ResolveSourceGitRequest(ReturnObject=True))


def answer(found: ResolvedSource) -> pb.ResolveSourceMetaResponse:
    message = pb.ResolveSourceMetaResponse(Source=source_message(found.source))
    if isinstance(found, ResolvedImage):
        chain = None if found.chain is None else _chain_message(found.chain)
        message.Image.CopyFrom(
            pb.ResolveSourceImageResponse(Digest=found.digest, Config=found.config, AttestationChain=chain)
        )
    elif isinstance(found, ResolvedGit):
        message.Git.CopyFrom(
            pb.ResolveSourceGitResponse(
                Checksum=found.checksum,
                Ref=found.ref,
                CommitChecksum=found.commit_checksum,
                CommitObject=found.commit_object,
                TagObject=found.tag_object,
            )
        )
    elif isinstance(found, ResolvedHttp):
        from buildengine.api.convert import timestamp  # with it come all messages of the Control service

        modified = None if found.modified is None else timestamp(found.modified)
        message.HTTP.CopyFrom(
            pb.ResolveSourceHTTPResponse(Checksum=found.checksum, Filename=found.filename, LastModified=modified)
        )
    return message


def resolved(message: pb.ResolveSourceMetaResponse) -> ResolvedSource:
    """What `answer` was given. Raises InvalidDigest for a digest that is none."""
    source = source_of(message.Source)
    if message.HasField("Image"):
        image = message.Image
        chain = _chain(image.AttestationChain) if image.HasField("AttestationChain") else None
        return ResolvedImage(source=source, digest=Digest(image.Digest), config=image.Config, chain=chain)
    if message.HasField("Git"):
        git = message.Git
        return ResolvedGit(
            source=source,
            ref=git.Ref,
            checksum=git.Checksum,
            commit_checksum=git.CommitChecksum,
            commit_object=git.CommitObject,
            tag_object=git.TagObject,
        )
    if message.HasField("HTTP"):
        http = message.HTTP
        modified = http.LastModified.seconds if http.HasField("LastModified") else None
        return ResolvedHttp(source=source, checksum=Digest(http.Checksum), filename=http.Filename, modified=modified)
    return ResolvedDirectory(source=source)


def _chain_message(chain: AttestationChain) -> pb.AttestationChain:
    message = pb.AttestationChain(
        Root=chain.root,
        ImageManifest=chain.image_manifest,
        AttestationManifest=chain.attestation_manifest or "",
        SignatureManifests=[chain.signature_manifest] if chain.signature_manifest else [],
    )
    for blob in chain.blobs:
        described = pb.Descriptor(
            media_type=blob.media_type, digest=blob.digest, size=len(blob.data), annotations=blob.annotations
        )
        message.Blobs[blob.digest].CopyFrom(pb.Blob(descriptor=described, data=blob.data))
    return message


def _chain(message: pb.AttestationChain) -> AttestationChain:
    signatures = tuple(map(Digest, message.SignatureManifests))
    return AttestationChain(
        root=Digest(message.Root),
        image_manifest=Digest(message.ImageManifest),
        attestation_manifest=Digest(message.AttestationManifest) if message.AttestationManifest else None,
        signature_manifest=signatures[0] if signatures else None,
        blobs=tuple(
            ChainBlob(
                media_type=blob.descriptor.media_type,
                digest=Digest(digest),
                annotations=dict(blob.descriptor.annotations),
                data=blob.data,
            )
            for digest, blob in sorted(message.Blobs.items())
        ),
    )
