"""The engine: a cache, a scheduler and a runtime under one roof, and what one build is made of.

    request -> frontend -> definitions by platform -> solver -> results -> exporters -> response

The engine owns lifetimes: everything that a build starts ends before `build` returns, whatever happened.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import trio

from buildengine import platform as platforms
from buildengine.builder import REQUEST_ID, BuildOutcome, BuildRequest, asks_to_attest
from buildengine.config import Config
from buildengine.daemon.askedplatforms import mismatch
from buildengine.daemon.beside import beside
from buildengine.daemon.caches import CacheImports, check_exports, open_imports
from buildengine.daemon.catalog import Catalog
from buildengine.daemon.collector import collect_garbage
from buildengine.daemon.explaining import explain
from buildengine.daemon.exports import Exports
from buildengine.daemon.gateway import LocalGateway
from buildengine.daemon.lazily import Lazily
from buildengine.daemon.policies import Policies, Verifier
from buildengine.daemon.resolving import Resolver
from buildengine.daemon.solving import Solving
from buildengine.digest import Digest
from buildengine.errors import BuildError, ContextChanged, SolveError, UserError
from buildengine.events import EventSink, WarningEvent
from buildengine.values import dataclass
from cache.opened import Cache, open_cache
from frontends.gateway import Frontend, FrontendRequest, FrontendResult
from llb.definition import Definition
from solver.job import Job, open_job
from solver.scheduler import Scheduler, open_scheduler
from worker.cachestore import WorkerCacheStore
from worker.context import BuildContext, Dns
from worker.exporters.result import BuildResult
from worker.images import Images, open_images
from worker.ops.clipping import OutputLimits
from worker.runtime.spec import StepLimits
from worker.session import Session
from worker.trees import Trees

if TYPE_CHECKING:  # a cached build starts none of these
    from buildengine.api.daemon import WorkerInfo
    from buildengine.daemon.attesting import Attesting
    from buildengine.daemon.workerfacts import WorkerFacts
    from worker.registry.hosts import RegistryConfig
    from worker.remotes import Remotes
    from worker.runtime.runtime import Kind, Runtime

_STEPS_RUN = 0.1  # seconds after the launcher's start: the steps that can run do
_NO_INPUTS: Mapping[str, Definition] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a daemon wants told of a build: `is_remembered` for its history, and what it says of itself in any case."""

    is_remembered: bool = False
    environment: Mapping[str, object] = field(default_factory=dict)


@asynccontextmanager
async def open_engine(config: Config, runtime: Runtime | None = None) -> AsyncIterator[Engine]:
    """An engine on the state directory of `config`. Needs root and the engine's own mount namespace.

    `runtime` is the caller's, where steps will run for certain; without it one is started when the first step is.
    """
    async with open_cache(config.root, snapshotter=config.worker.snapshotter) as cache, AsyncExitStack() as later:

        async def start_runtime() -> Runtime:
            if runtime is not None:
                return runtime

            from worker.runtime.runtime import open_runtime

            scheduler.nursery.start_soon(_load_ahead)
            return await later.enter_async_context(open_runtime(cast("Kind", config.worker.runtime)))

        parallelism = config.worker.max_parallelism or None
        async with open_scheduler(WorkerCacheStore(cache), max_parallelism=parallelism) as scheduler:
            yield Engine(config, cache, scheduler, Lazily(start_runtime))


async def _load_ahead() -> None:
    """What comes after the first steps is loaded while they run: nothing else is to be done then."""
    await trio.sleep(_STEPS_RUN)
    for name in ("worker.ops.fileactions", "worker.explain.described", "worker.explain.files", "worker.explain.step"):
        importlib.import_module(name)


class Engine:
    """Made by `open_engine`. Builds may run at the same time; they share steps."""

    def __init__(self, config: Config, cache: Cache, scheduler: Scheduler, runtime: Lazily[Runtime]) -> None:
        self.config = config
        self.cache = cache
        self._scheduler = scheduler
        self._runtime = runtime
        self._facts: WorkerFacts | None = None
        self.frontends = Catalog(config, self.worker, runtime)

    def worker(self) -> WorkerInfo:
        """What is told of this machine to whoever builds on it."""
        if self._facts is None:
            from buildengine.daemon.workerfacts import WorkerFacts

            self._facts = WorkerFacts(self.config.worker, self.cache)
        return self._facts.info()

    async def stand_by(self) -> None:
        """For who stays: the first step is to find what runs steps there already. Raises HostError."""
        (await self._runtime()).rest()

    async def collect(self) -> None:
        """Make the store smaller by the rules for it, unless that was done within the last minute."""
        await collect_garbage(self.cache, self.config.worker)

    async def rest(self) -> None:
        """No build is near: give back what the last ones have left."""
        await self.cache.db.rest()

    def _registries(self) -> RegistryConfig:
        from worker.registry.configured import registry_config

        return registry_config(self.config.registries, self.config.environment)

    async def build(
        self,
        request: BuildRequest,
        session: Session,
        on_event: EventSink,
        *,
        frontend: Frontend | None = None,
        inputs: Mapping[str, Definition] = _NO_INPUTS,
        provenance: Provenance | None = None,
        verifier: Verifier | None = None,
    ) -> BuildOutcome:
        """Run one build to its end. Raises BuildError; what it had started has ended by then.

        `frontend` is taken instead of the one that the request names; `inputs` are the definitions that it gets.
        `verifier` is asked about every source.
        """
        _check_entitlements(request)
        check_exports(request.cache_exports)
        start = _Start(
            request=request,
            session=session,
            on_event=on_event,
            frontend=frontend or self.frontends.find(request.frontend),
            inputs=inputs,
            attesting=_attesting(request, provenance or Provenance()),
            verifier=verifier,
        )
        try:
            outcome = await self._build_again(start)
        except BuildError:
            await self.collect()  # a full disk may be why
            raise
        await self.collect()
        return outcome

    async def _build_again(self, start: _Start) -> BuildOutcome:
        """A build whose context changes while it is read begins anew, once: what is done by then is in the cache."""
        try:
            return await self._build(start)
        except BuildError as error:
            if not _saw_change(error):
                raise
        return await self._build(start)

    async def _build(self, start: _Start) -> BuildOutcome:
        request, session, on_event = start.request, start.session, start.on_event
        async with (
            AsyncExitStack() as later,
            open_images(self.cache, self._registries, session.credentials, session.layouts) as images,
            open_job(self._scheduler, request.ref, on_event) as job,
        ):
            later.enter_context(self.cache.activity())

            async def remotes() -> Remotes:
                from worker.remotes import open_remotes

                opened = open_remotes(self.cache, self._registries(), self.config.environment, session.uploads)
                return await later.enter_async_context(opened)

            context = self._context(start, images, Lazily(remotes))
            exports = Exports(context, request, on_event)  # what is wrong with an output is said before anything runs
            resolver = Resolver(context, on_event)
            solving = Solving(context, job, Policies(request.source_policy, start.verifier, resolver.resolve))
            if "no-cache" in request.options:
                await self._runtime()  # steps will run for certain: their launcher starts while the frontend works
            explained = partial(explain, self.cache, request, session, solving, job, on_event)
            try:
                async with open_imports(context, job, on_event) as imports:
                    imports.add(request.cache_imports)
                    result, built = await _solve(start, solving, resolver, imports, job, self.frontends)
            except BuildError as error:
                if not _saw_change(error):
                    await explained()
                raise
            if self._runtime.made is not None:
                self._runtime.made.rest()
            async with beside(explained):  # it has to do with the processor, an export and a sync with the disk
                response = await exports.run(built)
                await self._publish(context, exports, on_event)
                await self.cache.sync()
            outcome = _outcome(request, response | _of_frontend(result), exports)
            told = await start.attesting.remembered(several=built.multi_platform) if start.attesting else {}
            return replace(outcome, provenance=told, answer=result.metadata if REQUEST_ID in request.options else {})

    def _context(self, start: _Start, images: Images, remotes: Lazily[Remotes]) -> BuildContext:
        """What the build's ops are made with."""
        return BuildContext(
            cache=self.cache,
            images=images,
            remotes=remotes,
            trees=Trees(self.cache, images),
            session=start.session,
            runtime=self._runtime,
            limits=_limits(self.config),
            dns=_dns(self.config),
            output=OutputLimits.of(self.config.environment),
            emulators=self.config.worker.emulators,
            entitlements=start.request.entitlements,
        )

    async def _publish(self, context: BuildContext, exports: Exports, on_event: EventSink) -> None:
        """The pushes of a build: only once everything else of it is done."""
        if exports.pushes:
            from buildengine.daemon.publish import publish_results

            await publish_results(context, exports, self._registries(), on_event)


async def _solve(
    start: _Start, solving: Solving, resolver: Resolver, imports: CacheImports, job: Job, frontends: Catalog
) -> tuple[FrontendResult, BuildResult]:
    """What the frontend says, and what has come of it, with all that is to be attested of that."""
    attesting = start.attesting
    scope = attesting.scope if attesting else None
    gateway = LocalGateway(solving, resolver, imports, start.on_event, start.asked, frontends.find, scope)
    result = await start.frontend.build(gateway, start.asked)
    if (text := mismatch(start.asked.platforms, result)) is not None:
        gateway.warn(WarningEvent(vertex="", level=0, message=text))
    built = await solving.results(result)
    if attesting is not None:
        built = await attesting.attached(result, built, solving=solving, job=job, gateway=gateway)
    return result, built


def _attesting(request: BuildRequest, provenance: Provenance) -> Attesting | None:
    """None for a build of which nothing is to be said. Raises UserError."""
    if not provenance.is_remembered and not asks_to_attest(request.options):
        return None
    from buildengine.daemon.attesting import Attesting

    return Attesting(request, provenance.environment, is_remembered=provenance.is_remembered)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """What one build is begun with."""

    request: BuildRequest
    session: Session
    on_event: EventSink
    frontend: Frontend
    inputs: Mapping[str, Definition]
    attesting: Attesting | None
    verifier: Verifier | None

    @property
    def asked(self) -> FrontendRequest:
        """What the frontend is asked for."""
        return FrontendRequest(
            options=self.request.options,
            platforms=self.request.platforms or (platforms.local(),),
            build_platform=platforms.local(),
            session=self.session.id,
            inputs=self.inputs,
        )


def _outcome(request: BuildRequest, response: Mapping[str, str], exports: Exports) -> BuildOutcome:
    digest = response.get("containerimage.digest")
    return BuildOutcome(
        ref=request.ref,
        metadata=response,
        exported=tuple(exports.said),
        image_digest=Digest(digest) if digest is not None else None,
    )


def _of_frontend(result: FrontendResult) -> dict[str, str]:
    """What the frontend has to say to whoever asked for the build (solver/llbsolver/solver.go: `frontend.`)."""
    told = {name: value for name, value in result.metadata.items() if name.startswith("frontend.")}
    return {name: value.decode(errors="replace") for name, value in told.items()}


def _saw_change(error: BuildError) -> bool:
    causes = error.failures if isinstance(error, SolveError) else (error,)
    return any(isinstance(cause, ContextChanged) for cause in causes)


def _limits(config: Config) -> StepLimits:
    worker = config.worker
    return StepLimits(memory=worker.step_memory, cpus=worker.step_cpus, pids=worker.step_pids)


def _dns(config: Config) -> Dns:
    dns = config.dns
    return Dns(nameservers=dns.nameservers, options=dns.options, search_domains=dns.search_domains)


_KNOWN_ENTITLEMENTS = ("network.host", "security.insecure")


def _check_entitlements(request: BuildRequest) -> None:
    for entitlement in request.entitlements:
        if entitlement not in _KNOWN_ENTITLEMENTS:
            raise UserError(f"unknown entitlement {entitlement!r}", hint=f"one of {', '.join(_KNOWN_ENTITLEMENTS)}")
