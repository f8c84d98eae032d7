"""What a source is now, without fetching it: an image of a registry or a layout, a git repository, a download.

Everything is resolved once for the whole build: whoever asks again for the same gets the same, even if a tag moves
meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from buildengine import platform as platforms
from buildengine.daemon.steps import step
from buildengine.events import EventSink
from buildengine.platform import Platform
from buildengine.reference import parse
from frontends.gateway import (
    USUAL_DETAILS,
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
from worker.context import BuildContext
from worker.images import BaseImage
from worker.sources import origin as origins
from worker.sources.origin import GitOrigin, HttpOrigin, ImageOrigin, LayoutOrigin, LocalOrigin

if TYPE_CHECKING:  # few builds ask for it
    from worker.registry.signatures import SignatureChain


class Resolver:
    """For one build. Source policies are not its business."""

    def __init__(self, context: BuildContext, on_event: EventSink) -> None:
        self._context = context
        self._on_event = on_event
        self._locks: dict[object, trio.Lock] = {}
        self._resolved: dict[object, BaseImage] = {}
        self._chains: dict[object, AttestationChain] = {}

    async def resolve(
        self, source: SourceOp, platform: Platform | None, mode: str, name: str, details: Details = USUAL_DETAILS
    ) -> ResolvedSource:
        """`name` is what progress calls it. Raises SourceError."""
        origin = origins.parse(source)
        shown = name or f"resolve image config for {source.identifier}"
        match origin:
            case ImageOrigin() if details.chain:
                return await self._attested(source, origin, platform or platforms.local(), mode, shown, details)
            case ImageOrigin() | LayoutOrigin():
                image = await self._image(origin, platform or platforms.local(), mode, shown)
                config = image.config.raw if details.config else b""
                return ResolvedImage(source=source, digest=image.digest, config=config)
            case GitOrigin():
                with step(self._on_event, shown):
                    return await self._git(source, origin, details)
            case HttpOrigin():
                with step(self._on_event, shown):
                    return await self._http(source, origin)
            case LocalOrigin():
                return ResolvedDirectory(source=source)

    async def _image(self, origin: ImageOrigin | LayoutOrigin, platform: Platform, mode: str, shown: str) -> BaseImage:
        key = (origin, platform, mode)
        images = self._context.images
        async with self._locks.setdefault(key, trio.Lock()):
            if key not in self._resolved:
                with step(self._on_event, shown, salt=str(platform)):
                    if isinstance(origin, LayoutOrigin):
                        self._resolved[key] = await images.resolve_layout(origin, platform=platform)
                    else:
                        self._resolved[key] = await images.resolve(origin.reference, platform=platform, mode=mode)
        return self._resolved[key]

    async def _attested(
        self, source: SourceOp, origin: ImageOrigin, platform: Platform, mode: str, shown: str, details: Details
    ) -> ResolvedImage:
        """The chain is that of the digest whose config is told; alone it needs neither config nor image manifest."""
        reference, config = parse(origin.reference), b""
        if details.config:
            image = await self._image(origin, platform, mode, shown)
            reference, config = reference.with_digest(image.digest), image.config.raw
        key = (str(reference), platform)
        async with self._locks.setdefault(key, trio.Lock()):
            if key not in self._chains:
                with step(self._on_event, shown, salt=str(platform)):
                    self._chains[key] = _told(await self._context.images.signatures(reference, platform))
        chain = self._chains[key]
        return ResolvedImage(source=source, digest=chain.root, config=config, chain=chain)

    async def _git(self, source: SourceOp, origin: GitOrigin, details: Details) -> ResolvedGit:
        from worker.ops.git import open_access

        context = self._context
        async with open_access(context.session, origin) as access:
            remotes = await context.remotes()
            found = await remotes.resolve_git(origin, access)
            objects = await remotes.git().objects(origin, found, access) if details.objects else None
        commit = found.commit if objects is None else objects.commit
        return ResolvedGit(
            source=source,
            ref=found.ref,
            checksum=found.object,
            commit_checksum=commit if commit != found.object else "",
            commit_object=b"" if objects is None else objects.commit_object,
            tag_object=b"" if objects is None else objects.tag_object,
        )

    async def _http(self, source: SourceOp, origin: HttpOrigin) -> ResolvedHttp:
        found = await (await self._context.remotes()).resolve_http(origin, self._context.session.secrets)
        return ResolvedHttp(source=source, checksum=found.digest, filename=found.filename, modified=found.modified)


def _told(chain: SignatureChain) -> AttestationChain:
    return AttestationChain(
        root=chain.root,
        image_manifest=chain.image,
        attestation_manifest=chain.attestation,
        signature_manifest=chain.signature,
        blobs=tuple(
            ChainBlob(media_type=each.media_type, digest=each.digest, annotations=each.annotations, data=data)
            for each, data in chain.blobs
        ),
    )
