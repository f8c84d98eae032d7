"""What a frontend may ask of a build: `frontends.gateway.Gateway`, answered by the engine.

A reference is solved when its files are first read, once. A frontend's image references are resolved once for
the whole build: whoever asks again for the same one gets the same digest, even if the tag moves meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from buildengine.builder import CacheEntry
from buildengine.daemon.caches import CacheImports
from buildengine.daemon.solving import Solving
from buildengine.daemon.steps import step
from buildengine.digest import Digest
from buildengine.errors import SourceError, UserError
from buildengine.events import EventSink, WarningEvent
from buildengine.inroot import read_regular
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends.gateway import FileInfo, Reference, ResolvedGit, ResolvedHttp, ResolvedImage, ResolvedSource
from llb.definition import Definition
from llb.ops import ExecOp, SourceOp
from solver.vertex import Result
from worker.localtree import LocalTree
from worker.sources import origin as origins
from worker.sources.origin import GitOrigin, HttpOrigin, ImageOrigin, LayoutOrigin

if TYPE_CHECKING:  # few builds have any
    from worker.containers import ClientContainer
    from worker.provenance.scope import Scope

_WARNED = Digest.sha256(b"frontend warnings")


class LocalReference:
    """A definition that the engine has accepted. `None` definitions never come here: scratch has no files."""

    def __init__(self, solving: Solving, definition: Definition) -> None:
        self._solving = solving
        self._definition = definition
        self._lock = trio.Lock()
        self._result: Result | None = None
        self._solved = False

    @classmethod
    def of(cls, solving: Solving, result: Result | None) -> LocalReference:
        """One to something that is there already, and that somebody else holds."""
        made = cls(solving, Definition())
        made._result, made._solved = result, True
        return made

    async def result(self) -> Result | None:
        async with self._lock:
            if not self._solved:
                self._result = await self._solving.solve(self._definition)
                self._solved = True
        return self._result

    async def evaluate(self) -> None:
        await self.result()

    async def read_file(self, path: str, *, limit: int = 16 << 20, offset: int = 0, length: int | None = None) -> bytes:
        result = await self.result()
        inline = result.inline_file(path) if isinstance(result, LocalTree) else None
        if inline is not None:
            return inline[offset:][:length]
        async with self._root(result, path) as root:
            return read_regular(root, path, limit=limit, offset=offset, length=length)

    async def read_dir(self, path: str, *, include: str = "") -> Sequence[FileInfo]:
        async with self._root(await self.result(), path) as root:
            from buildengine.daemon import listing

            return listing.read_dir(root, path, include=include)

    async def stat_file(self, path: str) -> FileInfo:
        async with self._root(await self.result(), path) as root:
            from buildengine.daemon import listing

            return listing.stat_file(root, path)

    @asynccontextmanager
    async def _root(self, result: Result | None, path: str) -> AsyncIterator[int]:
        """The tree's root for as long as the block lasts. What goes wrong in it is about `path`."""
        trees = self._solving.context.trees
        try:
            if isinstance(result, LocalTree):
                with result.opened(path) as root:
                    yield root
            else:
                stack = await trees.stack_of(result)
                await trees.ensure(stack)
                with trees.open_stack(stack) as root:
                    yield root
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedStep:
    """A `worker.failures.Failed`, with references in place of results."""

    inputs: tuple[LocalReference | None, ...]
    mounts: tuple[LocalReference | None, ...]
    action: int | None
    dependency: int | None


class LocalGateway:
    """`frontends.gateway.Gateway` for one build."""

    def __init__(
        self, solving: Solving, imports: CacheImports, on_event: EventSink, scope: Scope | None = None
    ) -> None:
        """`scope` hears what is asked for here, where the build's provenance is wanted."""
        self._solving = solving
        self._imports = imports
        self._on_event = on_event
        self._scope = scope
        self._locks: dict[object, trio.Lock] = {}
        self._resolved: dict[object, ResolvedImage] = {}

    def nested(self, frontend: str, options: Mapping[str, str]) -> LocalGateway:
        if self._scope is None:
            return self
        inner = LocalGateway(self._solving, self._imports, self._on_event, self._scope.nested(frontend, options))
        inner._locks, inner._resolved = self._locks, self._resolved
        return inner

    async def solve(self, definition: Definition) -> LocalReference:
        if self._scope is not None:
            self._scope.solved(definition)
        return LocalReference(self._solving, definition)

    async def resolve_image(
        self, reference: str, *, platform: Platform, mode: str = "default", name: str = ""
    ) -> ResolvedImage:
        origin = ImageOrigin(reference=reference, resolve_mode=mode)
        return await self._resolve_image(origin, platform, name or f"[internal] load metadata for {reference}")

    async def _resolve_image(self, origin: ImageOrigin | LayoutOrigin, platform: Platform, shown: str) -> ResolvedImage:
        key = (origin, platform)
        images = self._solving.context.images
        async with self._locks.setdefault(key, trio.Lock()):
            if key not in self._resolved:
                with step(self._on_event, shown, salt=str(platform)):
                    if isinstance(origin, LayoutOrigin):
                        image = await images.resolve_layout(origin, platform=platform)
                    else:
                        image = await images.resolve(origin.reference, platform=platform, mode=origin.resolve_mode)
                    self._resolved[key] = ResolvedImage(
                        reference=image.reference, digest=image.digest, config=image.config.raw
                    )
        if self._scope is not None:
            digest, is_local = self._resolved[key].digest, isinstance(origin, LayoutOrigin)
            self._scope.resolved(origin.reference, platform, digest, is_local=is_local)
        return self._resolved[key]

    async def resolve_source(
        self, source: SourceOp, *, platform: Platform, mode: str = "default", name: str = ""
    ) -> ResolvedSource:
        origin = origins.parse(source)
        if isinstance(origin, ImageOrigin):
            return await self.resolve_image(origin.reference, platform=platform, mode=mode, name=name)
        shown = name or f"resolve image config for {source.identifier}"
        if isinstance(origin, LayoutOrigin):
            return await self._resolve_image(origin, platform, shown)
        if isinstance(origin, GitOrigin):
            with step(self._on_event, shown):
                return await self._resolve_git(origin)
        if isinstance(origin, HttpOrigin):
            with step(self._on_event, shown):
                return await self._resolve_http(origin)
        raise UserError(f"{source.identifier}: only images, git repositories and downloads can be resolved")

    def keep_failures(self) -> None:
        """From now on `failed` knows of steps that fail, until `forget_failures`."""
        self._solving.context.failures.wanted = True

    def forget_failures(self) -> None:
        self._solving.context.failures.forget()

    def failed(self, vertex: str) -> FailedStep | None:
        kept = self._solving.context.failures.of(vertex)
        if kept is None:
            return None
        inputs, mounts = (
            tuple(None if each is None else LocalReference.of(self._solving, each) for each in results)
            for results in (kept.inputs, kept.mounts)
        )
        return FailedStep(inputs=inputs, mounts=mounts, action=kept.action, dependency=kept.dependency)

    @asynccontextmanager
    async def open_container(
        self, op: ExecOp, inputs: Sequence[Reference | None], *, platform: Platform, name: str
    ) -> AsyncIterator[ClientContainer]:
        """A container on these references of ours, None for the empty tree."""
        from worker.containers import open_container

        results = [await each.result() if isinstance(each, LocalReference) else None for each in inputs]
        opened = open_container(self._solving.context, op, results, platform=platform, name=name)
        async with opened as container:
            yield container

    async def _resolve_git(self, origin: GitOrigin) -> ResolvedGit:
        from worker.ops.git import open_access

        context = self._solving.context
        async with open_access(context.session, origin) as access:
            found = await (await context.remotes()).git().resolve(origin, access)
        commit = found.commit if found.commit != found.object else ""
        return ResolvedGit(ref=found.ref, checksum=found.object, commit_checksum=commit)

    async def _resolve_http(self, origin: HttpOrigin) -> ResolvedHttp:
        context = self._solving.context
        source = await (await context.remotes()).http()
        found = await source.resolve(origin, context.session.secrets)
        return ResolvedHttp(checksum=found.digest, filename=found.filename, modified=found.modified)

    def import_caches(self, caches: Sequence[CacheEntry]) -> None:
        self._imports.add(caches)

    def warn(self, warning: WarningEvent) -> None:
        self._on_event(warning if warning.vertex else replace(warning, vertex=_WARNED))
