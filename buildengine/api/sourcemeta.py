"""What a source is now, asked and answered: ResolveSourceMeta and its messages.

Facts: BuildKit frontend/gateway/gateway.go (ResolveSourceMeta, ToPBResolveSourceMetaResponse).
"""

from __future__ import annotations

from buildengine.api import convert
from buildengine.api import gateway_pb2 as pb
from buildengine.digest import Digest
from buildengine.platform import Platform, normalize
from frontends.gateway import ResolvedDirectory, ResolvedGit, ResolvedHttp, ResolvedImage, ResolvedSource
from llb.ops import SourceOp
from llb.pb import ops_pb2


def source_of(message: ops_pb2.SourceOp) -> SourceOp:
    return SourceOp(identifier=message.identifier, attrs=dict(message.attrs))


def source_message(source: SourceOp) -> ops_pb2.SourceOp:
    return ops_pb2.SourceOp(identifier=source.identifier, attrs=source.attrs)


def platform_of(message: ops_pb2.Platform) -> Platform:
    return normalize(
        Platform(
            os=message.OS,
            architecture=message.Architecture,
            variant=message.Variant,
            os_version=message.OSVersion,
            os_features=tuple(message.OSFeatures),
        )
    )


def answer(found: ResolvedSource, *, config: bool) -> pb.ResolveSourceMetaResponse:
    """`config`: whether that of an image is wanted too."""
    message = pb.ResolveSourceMetaResponse(Source=source_message(found.source))
    if isinstance(found, ResolvedImage):
        message.Image.CopyFrom(
            pb.ResolveSourceImageResponse(Digest=found.digest, Config=found.config if config else b"")
        )
    elif isinstance(found, ResolvedGit):
        message.Git.CopyFrom(
            pb.ResolveSourceGitResponse(Checksum=found.checksum, Ref=found.ref, CommitChecksum=found.commit_checksum)
        )
    elif isinstance(found, ResolvedHttp):
        modified = None if found.modified is None else convert.timestamp(found.modified)
        message.HTTP.CopyFrom(
            pb.ResolveSourceHTTPResponse(Checksum=found.checksum, Filename=found.filename, LastModified=modified)
        )
    return message


def resolved(message: pb.ResolveSourceMetaResponse) -> ResolvedSource:
    """What `answer` was given. Raises InvalidDigest for a digest that is none."""
    source = source_of(message.Source)
    if message.HasField("Image"):
        return ResolvedImage(source=source, digest=Digest(message.Image.Digest), config=message.Image.Config)
    if message.HasField("Git"):
        git = message.Git
        return ResolvedGit(source=source, ref=git.Ref, checksum=git.Checksum, commit_checksum=git.CommitChecksum)
    if message.HasField("HTTP"):
        http = message.HTTP
        modified = http.LastModified.seconds if http.HasField("LastModified") else None
        return ResolvedHttp(source=source, checksum=Digest(http.Checksum), filename=http.Filename, modified=modified)
    return ResolvedDirectory(source=source)
