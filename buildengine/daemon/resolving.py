"""What a source is now, without fetching it: an image of a registry or a layout, a git repository, a download.

Everything is resolved once for the whole build: whoever asks again for the same gets the same, even if a tag moves
meanwhile.
"""

from __future__ import annotations

import trio

from buildengine import platform as platforms
from buildengine.daemon.steps import step
from buildengine.events import EventSink
from buildengine.platform import Platform
from frontends.gateway import ResolvedDirectory, ResolvedGit, ResolvedHttp, ResolvedImage, ResolvedSource
from llb.ops import SourceOp
from worker.context import BuildContext
from worker.images import BaseImage
from worker.sources import origin as origins
from worker.sources.origin import GitOrigin, HttpOrigin, ImageOrigin, LayoutOrigin, LocalOrigin


class Resolver:
    """For one build. Source policies are not its business."""

    def __init__(self, context: BuildContext, on_event: EventSink) -> None:
        self._context = context
        self._on_event = on_event
        self._locks: dict[object, trio.Lock] = {}
        self._resolved: dict[object, BaseImage] = {}

    async def resolve(self, source: SourceOp, platform: Platform | None, mode: str, name: str) -> ResolvedSource:
        """`name` is what progress calls it. Raises SourceError."""
        origin = origins.parse(source)
        shown = name or f"resolve image config for {source.identifier}"
        match origin:
            case ImageOrigin() | LayoutOrigin():
                image = await self._image(origin, platform or platforms.local(), mode, shown)
                return ResolvedImage(source=source, digest=image.digest, config=image.config.raw)
            case GitOrigin():
                with step(self._on_event, shown):
                    return await self._git(source, origin)
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

    async def _git(self, source: SourceOp, origin: GitOrigin) -> ResolvedGit:
        from worker.ops.git import open_access

        context = self._context
        async with open_access(context.session, origin) as access:
            found = await (await context.remotes()).resolve_git(origin, access)
        commit = found.commit if found.commit != found.object else ""
        return ResolvedGit(source=source, ref=found.ref, checksum=found.object, commit_checksum=commit)

    async def _http(self, source: SourceOp, origin: HttpOrigin) -> ResolvedHttp:
        found = await (await self._context.remotes()).resolve_http(origin, self._context.session.secrets)
        return ResolvedHttp(source=source, checksum=found.digest, filename=found.filename, modified=found.modified)
