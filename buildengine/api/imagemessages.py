"""Between the messages of `pybuild.v1` and the values of the engine, both ways. No I/O."""

from __future__ import annotations

from buildengine.api import images_pb2 as pb
from buildengine.api.platformmessages import platform_as_sent, platform_message
from buildengine.builder import ImageInfo, PulledImage, PullRequest
from buildengine.digest import Digest
from buildengine.platform import Platform


def image_message(info: ImageInfo) -> pb.Image:
    return pb.Image(
        name=info.name,
        digest=info.digest,
        config_digest=info.config_digest or "",
        created=info.created,
        size=info.size,
        platforms=map(platform_message, info.platforms),
    )


def image_info(message: pb.Image) -> ImageInfo:
    return ImageInfo(
        name=message.name,
        digest=Digest(message.digest),
        config_digest=Digest(message.config_digest) if message.config_digest else None,
        created=message.created,
        size=message.size,
        platforms=tuple(map(platform_as_sent, message.platforms)),
    )


def pull_message(request: PullRequest, session: str) -> pb.PullImageRequest:
    return pb.PullImageRequest(
        reference=request.reference,
        platform=None if request.platform is None else platform_message(request.platform),
        all_platforms=request.all_platforms,
        session=session,
    )


def pull_request(message: pb.PullImageRequest) -> PullRequest:
    return PullRequest(
        reference=message.reference, platform=asked_platform(message), all_platforms=message.all_platforms
    )


def pulled_message(pulled: PulledImage) -> pb.PulledImage:
    return pb.PulledImage(name=pulled.name, digest=pulled.digest, is_new=pulled.is_new)


def pulled_image(message: pb.PulledImage) -> PulledImage:
    return PulledImage(name=message.name, digest=Digest(message.digest), is_new=message.is_new)


def asked_platform(message: pb.ImageRequest | pb.PullImageRequest) -> Platform | None:
    return platform_as_sent(message.platform) if message.HasField("platform") else None
