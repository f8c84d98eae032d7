"""A build whose frontend is not in this process: what it asks is answered by the build's gateway.

`Bridge` keeps the references that it has given away, by their ids, until the frontend has had its last word; then what
it still asks ends, and `result` gives what it said. References are definitions here: to solve one again costs nothing
while the build lasts.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import trio

from buildengine.api import returned
from buildengine.api.bridge import Attestation, ContainerOrder, Process, ProcessOrder, Ref, Result, SolveOrder
from buildengine.api.rpc import Code, RpcError
from buildengine.api.solvestatus import Left, frontend_failed, solve_failed
from buildengine.api.status import Told
from buildengine.daemon.allowance import DEFINITIONS, WARNINGS, Allowance
from buildengine.daemon.containers import Containers
from buildengine.daemon.gateway import LocalGateway
from buildengine.errors import BuildError
from buildengine.events import WarningEvent
from buildengine.platform import Platform
from buildengine.sourcepolicy import Policy
from buildengine.values import dataclass
from frontends.gateway import (
    USUAL_DETAILS,
    Details,
    FileInfo,
    FrontendRequest,
    FrontendResult,
    Gateway,
    PlatformResult,
    Reference,
    ResolvedSource,
)
from llb.definition import Definition
from llb.ops import SourceOp
from worker.layers.outcome import one_error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """A reference that the frontend has."""

    definition: Definition | None  # None: of a failed step, so it can be no result
    reference: Reference


class Bridge:
    """An `api.bridge.Bridge`. The build that makes it waits for its `last_word`, and closes it."""

    def __init__(self, gateway: Gateway, request: FrontendRequest) -> None:
        self._gateway = gateway
        self._engine = gateway if isinstance(gateway, LocalGateway) else None  # what has containers, and keeps failures
        if self._engine is not None:
            self._engine.keep_failures()
        self._request = request
        self._given: dict[str, _Given] = {}
        self._definitions = Allowance("definitions", DEFINITIONS)
        self._warnings = Allowance("warnings", WARNINGS)
        self._calls: set[trio.CancelScope] = set()
        self._left = trio.lowlevel.ParkingLot()
        self._closed = False
        self.said = trio.Event()
        self._containers: Containers | None = None
        self._result: Callable[[], FrontendResult] | None = None
        self._error: BuildError | None = None

    # --- the build asks

    @property
    def said_error(self) -> bool:
        """Whether the frontend's last word was that something went wrong."""
        return self._error is not None

    async def last_word(self) -> None:
        """Until the frontend has had it; the containers that it has opened end then."""
        async with trio.open_nursery() as nursery:
            if self._engine is not None:
                self._containers = Containers(self._engine, nursery)
            await self.said.wait()
            nursery.cancel_scope.cancel()

    def result(self) -> FrontendResult:
        """What it was.

        Raises what the frontend says went wrong, and UserError for a result that cannot be meant: it is the build that
        fails for that, not the frontend's last call, whose client would wait for the build's end (BuildKit
        solver/llbsolver).
        """
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result()

    def left(self, error: BuildError | None) -> None:
        """The frontend has ended by itself, with `error` where it failed: that counts more than a result, and less
        than what it has said of an error (BuildKit frontend/gateway/gateway.go, Solve)."""
        if error is None and self._result is None:
            error = BuildError("no result for incomplete build", hint="the frontend has ended without a result")
        self._error = self._error or error
        self.said.set()

    async def close(self) -> None:
        """Ends what is still being asked, and waits for that."""
        self._closed = True
        for scope in self._calls:
            scope.cancel()
        with trio.CancelScope(shield=True):
            while self._calls:
                await self._left.park()
        self._given.clear()
        if self._engine is not None:
            self._engine.forget_failures()

    # --- the frontend asks

    async def solve(self, order: SolveOrder) -> Result:
        async with self._asked():
            self._gateway.import_caches(order.cache_imports)
            if order.frontend:
                return await self._run_frontend(order)
            if order.definition is None:
                return Result()
            ref = await self._give(order.definition, order.policies)
            if order.evaluate:
                await self._evaluate((ref,))
            return Result(ref=ref)

    async def _run_frontend(self, order: SolveOrder) -> Result:
        source = order.options.get("source", "")
        try:
            result = await self._gateway.run_frontend(order.frontend, order.options, order.inputs)
        except (BuildError, RpcError) as error:
            raise frontend_failed(error, order.frontend, source) from error
        refs = [await self._give(made.definition) for made in result.results]
        attested = {made.id: await self._give_attested(made) for made in result.results if made.attestations}
        if order.evaluate:
            await self._evaluate((*refs, *(said.ref for each in attested.values() for said in each if said.ref)))
        return returned.told(result, refs, attested)

    async def _give_attested(self, made: PlatformResult) -> tuple[Attestation, ...]:
        return tuple([
            Attestation(claim=said.claim, ref=await self._give(said.definition)) for said in made.attestations
        ])  # fmt: skip

    async def resolve_source(
        self,
        source: SourceOp,
        *,
        platform: Platform | None,
        mode: str,
        name: str,
        policies: Sequence[Policy] = (),
        details: Details = USUAL_DETAILS,
    ) -> ResolvedSource:
        async with self._asked():
            return await self._gateway.resolve_source(
                source, platform=platform, mode=mode, name=name, policies=policies, details=details
            )

    async def read_file(self, ref: str, path: str, *, offset: int = 0, length: int | None = None) -> bytes:
        async with self._reading(ref) as reference:
            return await reference.read_file(path, offset=offset, length=length)

    async def read_dir(self, ref: str, path: str, *, include: str) -> Sequence[FileInfo]:
        async with self._reading(ref) as reference:
            return await reference.read_dir(path, include=include)

    async def stat_file(self, ref: str, path: str) -> FileInfo:
        async with self._reading(ref) as reference:
            return await reference.stat_file(path)

    async def evaluate(self, ref: str) -> None:
        async with self._reading(ref) as reference:
            await reference.evaluate()

    async def new_container(self, order: ContainerOrder) -> None:
        async with self._asked():
            inputs = [self._find(ref).reference if ref else None for ref in order.refs]
            await self._opened().open(order, inputs)

    async def release_container(self, id: str) -> None:
        async with self._asked():
            await self._opened().release(id)

    async def start(self, order: ProcessOrder) -> Process:
        async with self._asked():
            return await self._opened().start(order)

    def _opened(self) -> Containers:
        if self._containers is None:
            raise RpcError(Code.UNIMPLEMENTED, "this build has no containers")
        return self._containers

    def inputs(self) -> Mapping[str, Definition]:
        return self._request.inputs

    async def warn(self, warning: WarningEvent) -> None:
        async with self._asked():
            self._warnings.take(_size(warning))
            self._gateway.warn(warning)

    def finish(self, result: Result) -> None:
        self._check_silent()
        definitions = {ref.id: self._definition(ref.id) for ref in returned.refs_of(result) if ref.id}
        self._result = partial(returned.heard, result, definitions)
        self.said.set()

    def fail(self, error: RpcError) -> None:
        self._check_silent()
        self._error = Told(error)
        self.said.set()

    def _check_silent(self) -> None:
        if self.said.is_set():
            raise RpcError(Code.UNKNOWN, "gateway result is already set")

    # --- references

    async def _give(self, definition: Definition | None, policies: Sequence[Policy] = ()) -> Ref:
        """The client knows what it gave; a result is what source policies have made of that."""
        if definition is None or definition.is_scratch:
            return Ref()
        self._definitions.take(sum(map(len, definition.ops)))
        ref = Ref(id=secrets.token_hex(12), definition=definition)
        reference = await self._gateway.solve(definition, policies)
        self._given[ref.id] = _Given(definition=reference.definition, reference=reference)
        return ref

    def _find(self, ref: str) -> _Given:
        if ref not in self._given:
            raise RpcError(Code.UNKNOWN, f"no such ref: {ref}")
        return self._given[ref]

    def _definition(self, ref: str) -> Definition:
        definition = self._find(ref).definition
        if definition is None:
            raise RpcError(Code.UNKNOWN, f"return reference {ref} not found")
        return definition

    async def _evaluate(self, refs: Iterable[Ref]) -> None:
        """All at once. Raises what failed first."""
        with one_error():
            async with trio.open_nursery() as nursery:
                for ref in refs:
                    if ref.id:
                        nursery.start_soon(self._evaluate_one, self._find(ref.id))

    async def _evaluate_one(self, given: _Given) -> None:
        try:
            await given.reference.evaluate()
        except BuildError as error:
            raise self._failed(error, given) from error

    def _failed(self, error: BuildError, given: _Given) -> RpcError:
        """With references to what a failed step has left behind."""
        step = None
        if self._engine is not None and error.vertex is not None:
            step = self._engine.failed(error.vertex)
        if step is None:
            return solve_failed(error, given.definition)
        left = Left(
            inputs=tuple(map(self._keep, step.inputs)),
            mounts=tuple(map(self._keep, step.mounts)),
            action=step.action,
            dependency=step.dependency,
        )
        return solve_failed(error, given.definition, left)

    def _keep(self, reference: Reference | None) -> str:
        if reference is None:
            return ""
        id = secrets.token_hex(12)
        self._given[id] = _Given(definition=None, reference=reference)
        return id

    @asynccontextmanager
    async def _reading(self, ref: str) -> AsyncIterator[Reference]:
        async with self._asked():
            given = self._find(ref)
            try:
                yield given.reference
            except BuildError as error:
                raise self._failed(error, given) from error

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[None]:
        """One call: it ends with the bridge at the latest."""
        with trio.CancelScope() as scope:
            if self._closed:
                scope.cancel()
            self._calls.add(scope)
            try:
                await trio.lowlevel.checkpoint()
                yield
            finally:
                self._calls.remove(scope)
                self._left.unpark_all()
        if scope.cancelled_caught:
            raise RpcError(Code.CANCELLED, "the build has its result")


def _size(warning: WarningEvent) -> int:
    text = len(warning.location.text) if warning.location is not None else 0
    return len(warning.message) + sum(map(len, warning.detail)) + text
