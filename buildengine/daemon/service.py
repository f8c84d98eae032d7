"""The daemon behind the API: one engine, the builds that run on it, and what is remembered of them.

`buildengine.api.daemon.Daemon`; listeners, flags and signals are elsewhere.
"""

from __future__ import annotations

import json
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import field, replace
from functools import partial

import trio

from buildengine import __version__
from buildengine.api import spans, statusbytes
from buildengine.api import status as statuses
from buildengine.api.bridges import Bridges, unknown_job
from buildengine.api.control_pb2 import StatusResponse
from buildengine.api.daemon import BuildOrder, Version, WorkerInfo
from buildengine.api.journal import read
from buildengine.api.received import ReceivedDirectories, open_received
from buildengine.api.rpc import Code, RpcError
from buildengine.api.session import remote_session
from buildengine.api.sessions import Sessions
from buildengine.api.verifying import Verifier
from buildengine.builder import BuildOutcome, Predicate, PrunePolicy, RunnablePlatform, StoreCheck, UsageInfo
from buildengine.daemon import residency
from buildengine.daemon.bridge import Bridge
from buildengine.daemon.builds import Builds, RunningBuild, Stopped
from buildengine.daemon.collector import INTERVAL
from buildengine.daemon.engine import Engine, Provenance
from buildengine.daemon.frontends import ClientFrontend, DefinitionFrontend
from buildengine.daemon.history import History, opened
from buildengine.daemon.image_store import StoreImages
from buildengine.daemon.imagedocuments import described, documents
from buildengine.daemon.main import VERSION
from buildengine.daemon.watched import Watched
from buildengine.digest import Digest
from buildengine.errors import BuildError, UserError, leading
from buildengine.events import ExplainEvent
from buildengine.history import ERROR, LOGS, TRACE, Blob, BuildRecord, Failure, HistoryEvent, HistoryQuery, ResultInfo
from buildengine.layoutexports import with_each
from buildengine.limits import DISK, PATTERNS, offload
from buildengine.values import dataclass
from frontends.gateway import Frontend
from worker.exporters.statement import MEDIA_TYPE, PREDICATE_TYPE

_DESCRIPTOR = "containerimage.descriptor"  # exptypes.ExporterImageDescriptorKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a daemon is told of itself. `entitlements` are those that a client may ask for; `provenance` is what every
    provenance says of the environment."""

    entitlements: frozenset[str] = frozenset()
    provenance: Mapping[str, object] = field(default_factory=dict)


class Service:
    """Made by `open_service`."""

    def __init__(
        self,
        engine: Engine,
        history: History,
        builds: Builds,
        sessions: Sessions,
        received: ReceivedDirectories,
        settings: Settings,
    ) -> None:
        self.bridges: Bridges[Bridge] = Bridges()
        self.sessions = sessions
        self.history_store = history
        self._engine = engine
        self._builds = builds
        self._received = received
        self._settings = settings
        self._watched = Watched()

    @property
    def version(self) -> Version:
        return Version(package="pybuild", version=VERSION, revision=__version__)

    def worker(self) -> WorkerInfo:
        return self._engine.worker()

    async def disk_usage(self, filters: Sequence[str], *, unused_for: float) -> Sequence[UsageInfo]:
        from cache import usage

        infos = await offload(usage.disk_usage, self._engine.cache, filters, limiter=PATTERNS if filters else DISK)
        latest = time.time() - unused_for
        return [info for info in infos if not unused_for or (info.last_used or info.created) <= latest]

    async def prune(self, policy: PrunePolicy, on_record: Callable[[UsageInfo], None]) -> None:
        from cache import prune

        await prune.prune(self._engine.cache, policy, on_record)

    @property
    def images(self) -> StoreImages:
        return StoreImages(self._engine.cache, self._engine.config)

    async def verify_store(self) -> StoreCheck:
        from cache import verify

        damages = await offload(verify.verify, self._engine.cache, limiter=DISK)
        return StoreCheck(root=str(self._engine.cache.root), damages=damages)

    async def runnable_platforms(self) -> Sequence[RunnablePlatform]:
        from worker.runtime import runnable

        worker = self._engine.config.worker
        return await offload(lambda: runnable.table(directory=worker.emulators, runtime=worker.runtime), limiter=DISK)

    # --- builds

    async def solve(self, order: BuildOrder) -> Mapping[str, str]:
        self._check(order)
        ref = order.request.ref
        with self._builds.begun(ref) as build:
            try:
                if order.internal:
                    return (await self._run(order, build)).metadata
                return await self._remembered(order, build)
            finally:
                self._watched.end(ref)
        raise Stopped  # the block was cancelled; mypy does not know that it raised

    async def stop(self) -> int:
        """End every build, and let none begin; how many ran."""
        return await self._builds.stop()

    async def _run(self, order: BuildOrder, build: RunningBuild) -> BuildOutcome:
        session = remote_session(self.sessions, order.session, cache=self._engine.cache, received=self._received)
        ref = order.request.ref
        return await self._engine.build(
            replace(order.request, explain=ref in self._watched),
            session,
            self._watched.sink(ref, build.journal.tell),
            frontend=self._frontend(order),
            inputs=order.inputs,
            provenance=Provenance(is_remembered=not order.internal, environment=self._settings.provenance),
            verifier=self._verifier(order),
        )

    def _verifier(self, order: BuildOrder) -> Verifier | None:
        id = order.source_policy_session
        return Verifier(partial(self.sessions.get, id)) if id else None

    def _frontend(self, order: BuildOrder) -> Frontend:
        """Raises UserError."""
        if order.is_clients:
            return ClientFrontend(self.bridges, order.request.ref)
        if order.definition is not None and not order.request.frontend:
            return DefinitionFrontend(definition=order.definition, config=order.image_config)
        return self._engine.frontends.find(order.request.frontend)

    def _check(self, order: BuildOrder) -> None:
        """Raises UserError for what the client may not ask for."""
        if order.definition is not None and order.request.frontend:
            raise UserError("invalid request: definition and frontend cannot be both set")
        for entitlement in sorted(order.request.entitlements - self._settings.entitlements):
            raise UserError(
                f"granting entitlement {entitlement} is not allowed by build daemon configuration",
                hint=f"start the daemon with --allow-insecure-entitlement {entitlement}",
            )
        if order.session_exporter:
            raise UserError("exporters that the client finds after the build are not supported")

    async def _remembered(self, order: BuildOrder, build: RunningBuild) -> Mapping[str, str]:
        """The build leaves a record, however it ends."""
        request = order.request
        record = BuildRecord(
            ref=request.ref,
            frontend=request.frontend,
            options=request.options,
            exports=request.exports,
            created=time.time(),
        )
        self.history_store.started(record)
        try:
            outcome = await self._run(order, build)
        except BaseException as error:
            await self._complete(replace(record, failure=self._failure(error)), build, order)
            raise
        await self._complete(self._successful(record, outcome), build, order)
        return with_each(outcome.metadata, request.exports, outcome.exported)

    def _successful(self, record: BuildRecord, outcome: BuildOutcome) -> BuildRecord:
        made = {key: blob for key, each in outcome.provenance.items() if (blob := self._kept(each)) is not None}
        results = {key: ResultInfo(attestations=(blob,)) for key, blob in made.items() if key}
        whole = replace(_result(outcome), attestations=(made[""],) if "" in made else ())
        return replace(record, response=outcome.metadata, result=whole, results=results)

    def _kept(self, predicate: Predicate) -> Blob | None:
        """The provenance of a result, as a document of the history."""
        with suppress(OSError, BuildError):
            blob = self.history_store.keep(predicate.data, MEDIA_TYPE)
            return replace(blob, annotations={PREDICATE_TYPE: predicate.type})
        return None

    async def _complete(self, record: BuildRecord, build: RunningBuild, order: BuildOrder) -> None:
        """Whoever waits for the build may go meanwhile; and that its documents cannot be kept is not its failure."""
        build.journal.end()
        record = replace(record, completed=time.time(), steps=build.journal.steps)
        with trio.CancelScope(shield=True):
            with suppress(OSError, BuildError):
                record = replace(record, trace=self.history_store.keep(_trace(record, build, order), TRACE))
                record = replace(record, logs=await self.history_store.keep_file(build.path, LOGS))
            await self.history_store.completed(record, self._images(record))
        build.is_recorded = record.logs is not None

    def _images(self, record: BuildRecord) -> list[Blob]:
        """What the history keeps of the images that were made: they can be looked at when they are pruned."""
        made = record.result.results.values() if record.result is not None else ()
        store, kept = self._engine.cache.store, list[Blob]()
        for image in made:
            with suppress(OSError, BuildError):  # an exporter need not leave it in the store
                kept += [self.history_store.keep(*each) for each in documents(store, image)]
        return kept

    def _failure(self, raised: BaseException) -> Failure:
        error = leading(raised, RpcError, BuildError)
        told = statuses.to_rpc(error) if isinstance(error, Exception) else RpcError(Code.CANCELLED, "context canceled")
        blob: Blob | None = None
        with suppress(OSError, BuildError):
            blob = self.history_store.keep(statusbytes.encode(told), ERROR)
        return Failure(code=int(told.code), message=told.message, blob=blob)

    @contextmanager
    def explained(self, ref: str) -> Iterator[AsyncIterator[ExplainEvent]]:
        with self._watched.watching(ref) as events:
            yield events

    @asynccontextmanager
    async def status(self, ref: str) -> AsyncIterator[AsyncIterator[StatusResponse]]:
        record = self.history_store.find(ref)
        if record is not None:
            yield self._logged(record)
            return
        build = await self._builds.find(ref)
        if build is None:
            raise unknown_job(ref)
        with build.used() as journal:
            yield journal.follow()

    async def _logged(self, record: BuildRecord) -> AsyncIterator[StatusResponse]:
        if record.logs is None:
            return
        with self.history_store.document(record.logs.digest) as fd:
            for response in read(fd) if fd is not None else ():
                yield response
                await trio.lowlevel.checkpoint()

    # --- what is remembered

    def blob(self, digest: Digest) -> AbstractContextManager[int | None]:
        """A blob of the store, or a document of the history. Whoever reads it verifies it."""
        store = self._engine.cache.store
        if store.info(digest, pin=False) is None:
            return self.history_store.document(digest)
        return opened(store.path(digest))

    def blobs(self) -> set[Digest]:
        return {info.digest for info in self._engine.cache.store.list()} | self.history_store.documents()

    def history(self, query: HistoryQuery) -> AbstractAsyncContextManager[AsyncIterator[HistoryEvent]]:
        return self.history_store.listen(query)

    async def pin(self, ref: str, *, pinned: bool) -> None:
        await self.history_store.pin(ref, pinned=pinned)

    async def forget(self, ref: str) -> None:
        await self.history_store.forget(ref)

    async def finalize(self, ref: str) -> None:
        """A record is whole as soon as its build has ended: nothing is left to wait for."""


@asynccontextmanager
async def open_service(engine: Engine, history: History, settings: Settings) -> AsyncIterator[Service]:
    """A daemon on `engine`, alive for this block; builds that still run at its end are cancelled."""
    cache = engine.cache
    async with trio.open_nursery() as nursery, open_received(cache) as received:
        builds = Builds(cache.root / "ingest", cache.lease.id, nursery)
        nursery.start_soon(_rest, builds, engine, history)
        nursery.start_soon(_collect, builds, engine)
        yield Service(engine, history, builds, Sessions(), received, settings)
        nursery.cancel_scope.cancel()


async def _rest(builds: Builds, engine: Engine, history: History) -> None:
    while True:
        await builds.quiet()
        await history.rest()
        await engine.rest()
        residency.give_back()


async def _collect(builds: Builds, engine: Engine) -> None:
    """What builds leave to the collector that end within a minute of its last run, and what is there at the start."""
    while True:
        await engine.collect()
        await builds.quiet()
        await trio.sleep(INTERVAL)


def _trace(record: BuildRecord, build: RunningBuild, order: BuildOrder) -> bytes:
    call = spans.Call(
        name="moby.buildkit.v1.Control/Solve",
        traceparent=order.traceparent,
        started=record.created,
        ended=record.completed or record.created,
        error=record.failure.message if record.failure else "",
    )
    return spans.document(call, build.journal.vertices)


def _result(outcome: BuildOutcome) -> ResultInfo:
    """The images that a build gave, by the places of its exporters: a result without any is one, clients rely on it."""
    told = {n: said[_DESCRIPTOR] for n, said in enumerate(outcome.exported) if _DESCRIPTOR in said}
    return ResultInfo(results={place: described(json.loads(b64decode(text))) for place, text in told.items()})
