"""What a frontend may ask of a build: `frontends.gateway.Gateway`, answered by the engine.

A reference is solved when its files are first read, once. What source policies make of a source is settled before
anything is asked of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import trio

from buildengine.builder import CacheEntry
from buildengine.daemon.caches import CacheImports
from buildengine.daemon.resolving import Resolver
from buildengine.daemon.solving import Solving
from buildengine.daemon.steps import step
from buildengine.digest import Digest
from buildengine.errors import SourceError, UserError
from buildengine.events import EventSink, WarningEvent
from buildengine.inroot import read_regular
from buildengine.limits import DISK, PATTERNS, offload
from buildengine.platform import Platform
from buildengine.values import dataclass
from frontends.gateway import (
    USUAL_DETAILS,
    Details,
    FileInfo,
    Frontend,
    FrontendRequest,
    FrontendResult,
    PlatformResult,
    Reference,
    ResolvedImage,
    ResolvedSource,
    image_of,
)
from llb.definition import Definition
from llb.ops import ExecOp, SourceOp
from solver.reporter import Reporter
from solver.vertex import Result
from worker.localtree import LocalTree
from worker.ops.clipping import OutputLimits

if TYPE_CHECKING:  # few builds have any
    from buildengine.sourcepolicy import Policy
    from solver.reporter import Reporter
    from worker.containers import Attendant, ClientContainer
    from worker.provenance.scope import Scope

DEEPEST, MOST_AT_ONCE = 8, 64  # frontends that run for others, each for the one above it and altogether
_NO_INPUTS: Mapping[str, Definition] = MappingProxyType({})
_WARNED = Digest.sha256(b"frontend warnings")


class LocalReference:
    """A definition that the engine has accepted. `None` definitions never come here: scratch has no files."""

    def __init__(self, solving: Solving, definition: Definition) -> None:
        self._solving = solving
        self.definition = definition
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
                self._result = await self._solving.solve(self.definition)
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

            list_it = partial(listing.read_dir, root, path, include=include)  # of 20,000 names it takes 0.2 s
            return await offload(list_it, limiter=PATTERNS if include else DISK)

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
        self,
        solving: Solving,
        resolver: Resolver,
        imports: CacheImports,
        on_event: EventSink,
        request: FrontendRequest,
        find: Callable[[str], Frontend],
        scope: Scope | None = None,
        depth: int = 0,
        running: set[object] | None = None,
    ) -> None:
        """`request` is what the frontend is asked, and `find` gives those that it may run, by name. `scope` hears what
        is asked for here, where the build's provenance is wanted. `depth` frontends run for each other down to here,
        and `running` are those of the whole build."""
        self._solving = solving
        self._resolver = resolver
        self._imports = imports
        self._on_event = on_event
        self._request = request
        self._find = find
        self._scope = scope
        self._depth = depth
        self._running: set[object] = set() if running is None else running

    async def run_frontend(
        self, name: str, options: Mapping[str, str], inputs: Mapping[str, Definition] = _NO_INPUTS
    ) -> FrontendResult:
        if self._depth == DEEPEST:
            hint = (
                "does a frontend run itself? The option cmdline keeps dockerfile.v0 from looking for a syntax directive"
            )
            raise UserError(f"more than {DEEPEST} frontends run for each other", hint=hint)
        if len(self._running) == MOST_AT_ONCE:
            raise UserError(f"more than {MOST_AT_ONCE} frontends run at once for others")
        request = self._request.nested(options, inputs)
        scope = self._scope.nested(name, options) if self._scope is not None else None
        inner = LocalGateway(
            self._solving,
            self._resolver,
            self._imports,
            self._on_event,
            request,
            self._find,
            scope,
            self._depth + 1,
            self._running,
        )
        self._running.add(inner)
        try:
            result = await self._find(name).build(inner, request)
            return replace(result, results=tuple([await inner._given(made) for made in result.results]))
        finally:
            self._running.remove(inner)

    async def _given(self, made: PlatformResult) -> PlatformResult:
        """A result of the frontend's own, with what policies make of it: whoever it is for knows it by that."""
        attested = [replace(said, definition=await self._settled(said.definition)) for said in made.attestations]
        return replace(made, definition=await self._settled(made.definition), attestations=tuple(attested))

    async def _settled(self, definition: Definition | None) -> Definition | None:
        if definition is None or definition.is_scratch:
            return None
        return (await self.solve(definition)).definition

    async def solve(self, definition: Definition, policies: Sequence[Policy] = ()) -> LocalReference:
        settled = await self._solving.policies.definition(definition, policies)
        if self._scope is not None:
            self._scope.solved(definition, settled)
        return LocalReference(self._solving, settled)

    async def resolve_image(
        self, reference: str, *, platform: Platform, mode: str = "default", name: str = ""
    ) -> ResolvedImage:
        shown = name or f"[internal] load metadata for {reference}"
        return await image_of(self, reference, platform=platform, mode=mode, name=shown)

    async def resolve_source(
        self,
        source: SourceOp,
        *,
        platform: Platform | None,
        mode: str = "default",
        name: str = "",
        policies: Sequence[Policy] = (),
        details: Details = USUAL_DETAILS,
    ) -> ResolvedSource:
        settled = await self._solving.policies.source(source, platform, policies)
        found = await self._resolver.resolve(settled, platform, mode, name, details)
        if self._scope is not None and isinstance(found, ResolvedImage):
            is_local = settled.identifier.startswith("oci-layout:")
            self._scope.resolved(found.reference, platform, found.digest, is_local=is_local)
        return found

    def keep_failures(self) -> None:
        """From now on `failed` knows of steps that fail, until whoever asked for that has called `forget_failures`."""
        self._solving.context.failures.want()

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

    async def run_attended(self, op: ExecOp, root: LocalReference, *, platform: Platform, attendant: Attendant) -> None:
        """`op`'s process on the tree `root`, to its end. Raises ExecFailed unless it ends well, and BuildError."""
        from worker.containers import run_attended

        inputs = [await root.result()]
        await run_attended(self._solving.context, op, inputs, platform=platform, attendant=attendant)

    @property
    def output_limits(self) -> OutputLimits:
        """How much of a process's output is told."""
        return self._solving.context.output

    def show(self, name: str) -> AbstractContextManager[Reporter]:
        """A step of its own in the progress, for as long as the block lasts."""
        return step(self._on_event, name)

    def import_caches(self, caches: Sequence[CacheEntry]) -> None:
        self._imports.add(caches)

    def warn(self, warning: WarningEvent) -> None:
        self._on_event(warning if warning.vertex else replace(warning, vertex=_WARNED))
